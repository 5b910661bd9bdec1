"""Engines: where a run is set up and its shards are computed; they never touch the run folder."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

from knockgrid.engine.setup import Setup
from knockgrid.runs.run_folder import Plan
from knockgrid.runs.shard import Shard
from knockgrid.runs.start import Start, start_of
from knockgrid.runs.work import Work


@runtime_checkable
class Recipe(Protocol):
    """From what was asked to a sweep that is set up; it may be carried out far from here."""

    def start(self) -> Start:
        """Choose, check, measure: everything that a run begins with."""
        ...

    def set_up(self, plan: Plan) -> Setup:
        """The same sweep, of a run that was begun."""
        ...


@dataclass(frozen=True, eq=False)
class Task:
    """A run that was begun, as an engine must know it.

    `check` refuses what is not this run, once it is set up; `stopping` says that no shard should be
    begun any more; `wanted` shards are missing, and `proven` says that others are there.
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

    def start(self) -> Start:
        """What the run begins with."""
        ...

    def shards(
        self, task: Task, numbers: Iterable[int], done: Callable[[int], Any]
    ) -> Iterator[Shard]:
        """Compute shards, and tell of cells that are done."""
        ...


@dataclass(frozen=True, eq=False)
class InProcess(Engine):
    """One shard after the other, here."""

    recipe: Recipe

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def start(self) -> Start:
        return self.recipe.start()

    def shards(
        self, task: Task, numbers: Iterable[int], done: Callable[[int], Any]
    ) -> Iterator[Shard]:
        setup = self.recipe.set_up(task.plan)
        task.check(start_of(setup))
        work = Work(setup, task.config, task.run, task.proven)
        for number in numbers:
            yield work.carry_out(number, done)
