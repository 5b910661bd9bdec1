"""ulp and random_direction: pushes, which have a size and no meaning."""

from dataclasses import dataclass, field, replace
from typing import ClassVar, final

import torch
from torch import Tensor

from knockgrid.prompts.prompt import Prompt
from knockgrid.sources.other_run import CorruptedRun, source_of
from knockgrid.sources.source import RunSpec, Source, Where

AS_INTEGER = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@final
@dataclass(frozen=True)
class Ulp(Source):
    """The frozen value behind `ulp()`."""

    adds: ClassVar[bool] = True
    random: ClassVar[bool] = True

    @property
    def label(self) -> str:
        return "ulp()"

    def value(self, where: Where) -> Tensor:
        return to_neighbour(where.base, (where.drawn() > 0).to(where.base.device))


def to_neighbour(values: Tensor, up: Tensor) -> Tensor:
    """What leads from each entry to the next number of its dtype, upwards or downwards.

    Adding it gives the neighbour exactly; an entry without a finite neighbour there stays.
    """
    # Numbers of one sign are ordered as their bits are, so that a step away from zero adds 1
    away = torch.where(values > 0, up, ~up)
    bits = values.view(AS_INTEGER[values.element_size()])
    next_to = torch.where(away, bits + 1, bits - 1).view(values.dtype)
    least = torch.ones_like(bits).view(values.dtype)
    next_to = torch.where(values == 0, torch.where(up, least, -least), next_to)
    step = next_to - values
    return torch.where(step.isfinite(), step, torch.zeros_like(step))


def ulp() -> Ulp:
    """Move every entry of an activation by one unit in the last place, up or down at random.

    Example:
        >>> import knockgrid as kg
        >>> kg.patch("resid_post", "subject", kg.sources.ulp()).source.label
        'ulp()'

    What it moves is rounding; high percentiles of that are the noise floor of a measurement
    (`noise_floor`). Signs are drawn for every prompt, layer and sample. The step is that of the
    recorded activation, added to the activation of the pass itself.

    Limits: it is a null for one site at a time; rounding elsewhere in the pass is not moved.
    """
    return Ulp()


@final
@dataclass(frozen=True)
class RandomDirection(Source):
    """The frozen value behind `random_direction()`."""

    like: Source = field(default_factory=CorruptedRun)
    adds: ClassVar[bool] = True
    random: ClassVar[bool] = True

    @property
    def label(self) -> str:
        return f"random_direction({self.like.label})"

    @property
    def needs_statistics(self) -> bool:  # type: ignore[override]
        """Those of the source it is measured by."""
        return self.like.needs_statistics

    def run(self, prompt: Prompt) -> RunSpec | None:
        return self.like.run(prompt)

    def check(self, act_name: str, n_layers: int) -> None:
        self.like.check(act_name, n_layers)

    def value(self, where: Where) -> Tensor:
        exact = torch.promote_types(where.base.dtype, torch.float32)
        seed, prompt, _, *more = where.key  # `like` draws by its own label
        theirs = self.like.value(replace(where, key=(seed, prompt, self.like.label, *more)))
        moved = theirs.to(where.base.device, exact)
        moved = moved if self.like.adds else moved - where.base.to(exact)
        drawn = where.drawn().to(moved)
        length, own = (each.norm(dim=-1, keepdim=True) for each in (moved, drawn))
        return (drawn * (length / own)).to(where.base.dtype)


def random_direction(like: Source | None = None) -> RandomDirection:
    """Move an activation in a random direction, as far as another source would move it.

    Example:
        >>> import knockgrid as kg
        >>> kg.patch("resid_post", "last", kg.sources.random_direction()).source.label
        'random_direction(corrupted_run(noise(3.0)))'

    The distance is the L2 norm at every position (and head) between the activation and what `like`
    (by default the corrupted run) would put there; the direction is drawn for every prompt, layer
    and sample. Prompts for which `like` has nothing to give are dropped from that row, and counted.

    Limits: random directions lie off the manifold of natural states, where models may react more or
    less than to a natural change of the same size.
    """
    return RandomDirection(source_of(like))
