"""random_direction: as far as another source moves an activation, and somewhere else."""

from dataclasses import dataclass, field, replace
from typing import ClassVar, final

import torch
from torch import Tensor

from knockgrid.prompts.prompt import Prompt
from knockgrid.sources.corrupted_run import CorruptedRun, source_of
from knockgrid.sources.source import RunSpec, Source, Where


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
        >>> kg.patch("resid_post", "last", kg.random_direction()).source.label
        'random_direction(corrupted_run(noise(3.0)))'

    The distance is the L2 norm at every position (and head, where the activation has heads) between
    the activation and what `like` would put there, by default the corrupted run; the direction is
    drawn for every prompt, layer and sample. Prompts for which `like` has nothing to give are
    dropped from that row, and counted.

    Limits: random directions lie off the manifold of natural states, where models may react more or
    less than to a natural change of the same size; this null speaks of size alone.

    Raises:
        InputError: `like` is not a source.
    """
    return RandomDirection(source_of(like))
