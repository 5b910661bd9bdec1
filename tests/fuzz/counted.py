"""Inputs are counted where they arrive, so that the closing table tells what really ran."""

import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import HealthCheck, settings

FULL = os.environ.get("KNOCKGRID_FUZZ") == "full"
QUICK = 200  # of each target in a default run, so that the properties cannot rot
SLOWEST = 2.0  # CPU-seconds for one input of at most some kilobytes
SHRUGS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]


@dataclass
class Ran:
    """How many inputs reached a target, and how long that took, drawing them included."""

    inputs: int = 0
    seconds: float = 0.0
    since: float = 0.0


RAN: dict[str, Ran] = {}


def total() -> Ran:
    return Ran(sum(r.inputs for r in RAN.values()), sum(r.seconds for r in RAN.values()))


def target(name: str, inputs: int) -> Callable:
    """Counts and times a property; `inputs` are those of the full run."""

    def decorate(check: Callable) -> Callable:
        @functools.wraps(check)
        def counted(*args, **kwargs):
            ran = RAN.setdefault(name, Ran(since=time.perf_counter()))
            ran.inputs += 1
            started = time.process_time()
            try:
                check(*args, **kwargs)
            finally:
                ran.seconds = time.perf_counter() - ran.since
            assert time.process_time() - started < SLOWEST, "it takes too long"

        options = {"max_examples": inputs if FULL else QUICK, "derandomize": not FULL}
        return settings(suppress_health_check=SHRUGS, print_blob=True, **options)(counted)

    return decorate
