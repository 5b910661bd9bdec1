"""Engines: where a run is set up and its shards are computed; they never touch the run folder."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

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
    config: str
    run: str
    executor: str
    columns: tuple[str, ...]
    wanted: int
    cells_of_prompt: int
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

    def cells(self, number: int) -> int:
        """The cells of a shard."""
        return len(self.ids[number]) * self.cells_of_prompt


@runtime_checkable
class Engine(AbstractContextManager["Engine"], Protocol):
    """Sets a run up and computes its shards, in any order; what it holds ends with the context."""

    def start(self) -> Start: ...

    def shards(self, task: Task, numbers: Iterable[int], done: Done) -> Iterator[Shard]:
        """Compute shards, and tell of cells that are done."""
        ...


@dataclass(frozen=True, eq=False)
class InProcess(Engine):
    """One shard after the other, here."""

    job: Job

    def __exit__(self, *_: object) -> None: ...

    def start(self) -> Start:
        return self.job.start()

    def shards(self, task: Task, numbers: Iterable[int], done: Done) -> Iterator[Shard]:
        setup = self.job.set_up(task.plan)
        task.check(start_of(setup))
        work = Work(setup, task.config, task.run, task.proven)
        for number in numbers:
            yield work.carry_out(number, done)
