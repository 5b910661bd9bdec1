"""zero: nothing at all."""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from knockgrid.sources.source import Source, Where


@final
@dataclass(frozen=True)
class Zero(Source):
    """The frozen value behind `zero()`."""

    @property
    def label(self) -> str:
        return "zero()"

    def value(self, where: Where) -> Tensor:
        return torch.zeros_like(where.base)


def zero() -> Zero:
    """Replace an activation by zeros.

    Example:
        >>> import knockgrid as kg
        >>> kg.patch("mlp_out", "last", kg.zero()).source.label
        'zero()'

    Limits: a zero state is one the model never has; at the last token it saturates the divergence
    at every layer, so it says little about *where* something is.
    """
    return Zero()
