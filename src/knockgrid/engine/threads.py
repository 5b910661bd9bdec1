"""Threads: how many torch computes a sweep with, which is measured where nobody says.

The threads of a pass wait for each other hundreds of times, and spin meanwhile. Where another
process has a processor, all of them wait for the one that lost it, and one thread alone is faster.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

SLOWER = 1.5
"""Times the usual time per cell, from which it is worth another look."""
MINUTE = 60.0
"""Seconds that a look is good for in a new sweep, or with one thread: others may have gone."""
SHARE = 20
"""Times what a look took that must pass before the next, so that looking stays below 5 %."""
ROUNDS = 3


@dataclass(eq=False)
class Look:
    """What was found when it was last measured: when, what it took, and the better of how many."""

    at: float = 0.0
    took: float = 0.0
    most: int = 0
    best: int = 0


@dataclass(eq=False)
class Threads:
    """The threads of one sweep, out of one and all that torch has.

    `given` is what the user fixed, None to measure; `small_pass` is timed, None where that is not
    worth it; all sweeps of a model share the `last` look.
    """

    given: int | None = None
    small_pass: Callable[[], Any] | None = None
    last: Look = field(default_factory=Look)
    clock: Callable[[], float] = time.perf_counter
    used: list[int] = field(default_factory=list)
    _usual: float | None = None
    _slower: bool = False

    def describe(self) -> dict[str, Any]:
        """What was given, and every number that was computed with, in turn."""
        return {"given": self.given, "used": list(self.used)}

    @contextmanager
    def at_work(self, cells: int = 0) -> Iterator[None]:
        """Compute with the better number of threads; slow `cells` make the next work look again."""
        before = n = torch.get_num_threads()
        try:
            if self.given is not None:  # more than there are processors would only wait in turn
                n = min(self.given, os.cpu_count() or self.given)
            elif self.small_pass is not None and before > 1:
                if self._due(before):
                    self._look(before, self.small_pass)
                n = self.last.best
            torch.set_num_threads(n)
            if self.used[-1:] != [n]:
                self.used.append(n)
            began = self.clock()
            yield
            if cells:
                self._note((self.clock() - began) / cells)
        finally:
            torch.set_num_threads(before)

    def _due(self, most: int) -> bool:
        if self.last.most != most:
            return True
        since = self.clock() - self.last.at
        old = since > MINUTE and (self.last.best < most or not self.used)
        return (self._slower or old) and since > SHARE * self.last.took

    def _note(self, rate: float) -> None:
        self._usual = rate if self._usual is None else min(rate, self._usual)
        self._slower = rate > SLOWER * self._usual

    def _look(self, most: int, small_pass: Callable[[], Any]) -> None:
        """Time the small pass with one thread and with all, until two of three rounds agree."""

        def seconds(n: int) -> float:
            torch.set_num_threads(n)
            began = self.clock()
            small_pass()
            return self.clock() - began

        began = self.clock()
        seconds(most)  # what is first only once
        won = 0
        for _ in range(ROUNDS):
            won += 1 if seconds(most) < seconds(1) else -1
            if abs(won) == 2:
                break
        self._usual, self._slower, now = None, False, self.clock()
        found = Look(now, now - began, most, most if won > 0 else 1)
        vars(self.last).update(vars(found))
