"""What runs in an actor: the model, loaded once, and the shards that are asked of it."""

import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from knockgrid.runs.job import Job
from knockgrid.runs.start import start_of
from knockgrid.runs.work import Work


@dataclass(frozen=True, eq=False)
class Heard:
    """What a call gave, and the warnings that it gave on the way."""

    value: Any
    warnings: list[Warning]


class ShardActor:
    """Holds a job and, from its first call on, the model; it writes nothing.

    It unpickles what the driver sent it through Ray, which is no less than the driver's program.
    """

    def __init__(self, job: bytes, cpus: int) -> None:
        import torch

        torch.set_num_threads(cpus)  # Ray would leave it one
        self.job: Job = pickle.loads(job)
        self.work: Work | None = None

    def start(self) -> Heard:
        """What a new run begins with."""
        return heard(self.job.start)

    def set_up(self, sent: bytes) -> Heard:
        """Get ready for the shards of a run: its plan, and what `Work` is told; say what is set up."""
        plan, *belongs = pickle.loads(sent)

        def made() -> Any:
            setup = self.job.set_up(plan)
            self.work = Work(setup, *belongs)
            return start_of(setup)

        return heard(made)

    def carry_out(self, number: int) -> Heard:
        """Compute a shard."""
        assert self.work is not None
        return heard(partial(self.work.carry_out, number))


def heard(call: Callable[[], Any]) -> Heard:
    """Do something, and keep what it warns of for whoever asked."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        value = call()
    return Heard(value, [one.message for one in caught if isinstance(one.message, Warning)])
