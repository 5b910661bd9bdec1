"""An engine sets a run up and computes its shards, here in this process; it writes nothing."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from knockgrid.runs.job import Job
from knockgrid.runs.run_folder import Plan
from knockgrid.runs.shard import Shard
from knockgrid.runs.start import Start, start_of
from knockgrid.runs.work import Work

Done = Callable[[int], Any]


@dataclass(frozen=True, eq=False)
class Task:
    """A run that was begun, as an engine must know it.

    `check` refuses another run, once it is set up; `stopping` says to begin no more shards;
    `wanted` of them are missing, and others are there if it is `proven`.
    """

    plan: Plan
    manifest: Mapping[str, Any]
    wanted: int
    check: Callable[[Start], None]
    stopping: Callable[[], bool]
    proven: bool = False

    @cached_property
    def ids(self) -> dict[int, list[str]]:
        """The prompts of every shard."""
        found: dict[int, list[str]] = {}
        for prompt, shard in zip(self.plan.prompts, self.plan.shards, strict=True):
            found.setdefault(shard, []).append(str(prompt.id))
        return found

    @property
    def belongs(self) -> dict[str, str]:
        """The digests of the run's settings and of all that was decided when it was begun."""
        return {"config": self.manifest["config_digest"], "run": self.manifest["run_digest"]}

    def cells(self, number: int) -> int:
        """The cells of a shard."""
        rows, layers = self.manifest["intervention_order"], self.manifest["layer_order"]
        return len(self.ids[number]) * len(rows) * len(layers)


class Engine(AbstractContextManager["Engine"]):
    """One shard after the other; what an engine holds ends with the context."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __exit__(self, *_: object) -> None: ...

    def start(self) -> Start:
        """What the run begins with."""
        return self.job.start()

    def shards(self, task: Task, numbers: Iterable[int], done: Done) -> Iterator[Shard]:
        """Compute shards, in any order, and tell of cells that are done."""
        setup = self.job.set_up(task.plan)
        task.check(start_of(setup))
        work = Work(setup, task.belongs, task.proven)
        for number in numbers:
            yield work.carry_out(number, done)
