"""ulp: the least that an activation can move, up or down at random."""

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from knockgrid.sources.source import Source, Where

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
        >>> kg.patch("resid_post", "subject", kg.ulp()).source.label
        'ulp()'

    The smallest change that the activation's dtype can hold: what it moves is rounding, and the
    high percentiles of it are the noise floor of a measurement (`noise_floor`). Signs are drawn for
    every prompt, layer and sample. The step is that of the recorded activation and is added to the
    activation of the pass itself, so rounding between the two is not counted as an effect.

    Limits: it is a null for one site at a time; rounding elsewhere in the pass is not moved.
    """
    return Ulp()
