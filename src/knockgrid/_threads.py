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
"""Seconds after which fewer threads than there are get another look: others may have gone."""
SHARE = 20
"""Times what a look took that must pass before the next, so that looking stays below 5 %."""
ROUNDS = 3


@dataclass(eq=False)
class Threads:
    """The threads of one sweep, out of one and all that torch has.

    Args:
        given: what the user fixed; None to measure.
        small_pass: what is timed; None where measuring is not worth it.
        clock: seconds of wall clock.

    Example:
        >>> threads = Threads(given=1)
        >>> with threads.at_work():
        ...     torch.get_num_threads()
        1
        >>> threads.describe()
        {'given': 1, 'used': [1]}
    """

    given: int | None = None
    small_pass: Callable[[], Any] | None = None
    clock: Callable[[], float] = time.perf_counter
    used: list[int] = field(default_factory=list)
    _best: int | None = None
    _usual: float | None = None
    _slower: bool = False
    _looked: float = 0.0
    _took: float = 0.0

    def describe(self) -> dict[str, Any]:
        """What was given, and every number that was computed with, in turn."""
        return {"given": self.given, "used": list(self.used)}

    @contextmanager
    def at_work(self, cells: int = 0) -> Iterator[None]:
        """Compute with the better number of threads; what the user had set is back afterwards.

        `cells` says how many cells, times their tokens, are computed meanwhile: if they took half
        as long again as usual, the next work begins with another look.
        """
        before = torch.get_num_threads()
        try:
            if self._due(before):
                self._look(before)
            n = self._best or before
            if self.given is not None:  # more than there are processors would only wait in turn
                n = min(self.given, os.cpu_count() or self.given)
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
        if self.given is not None or self.small_pass is None or most == 1:
            return False
        if self._best is None:
            return True
        since = self.clock() - self._looked
        again = self._slower or (self._best < most and since > MINUTE)
        return again and since > SHARE * self._took

    def _note(self, rate: float) -> None:
        self._usual = rate if self._usual is None else min(rate, self._usual)
        self._slower = rate > SLOWER * self._usual

    def _look(self, most: int) -> None:
        """Time the small pass with one thread and with all, until two of three rounds agree."""
        began = self.clock()
        self._timed(most)  # what is first only once
        won = 0
        for _ in range(ROUNDS):
            won += 1 if self._timed(most) < self._timed(1) else -1
            if abs(won) == 2:
                break
        self._best, self._usual, self._slower = most if won > 0 else 1, None, False
        self._looked = self.clock()
        self._took = self._looked - began

    def _timed(self, n: int) -> float:
        assert self.small_pass is not None
        torch.set_num_threads(n)
        began = self.clock()
        self.small_pass()
        return self.clock() - began
