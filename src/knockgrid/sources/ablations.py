"""zero and mean: an activation without what it says of this prompt, or of anything."""

from dataclasses import dataclass
from typing import ClassVar, final

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


@final
@dataclass(frozen=True)
class Mean(Source):
    """The frozen value behind `mean()`."""

    needs_statistics: ClassVar[bool] = True

    @property
    def label(self) -> str:
        return "mean()"

    def value(self, where: Where) -> Tensor:
        assert where.mean is not None
        return where.mean.to(where.base).expand_as(where.base)


def zero() -> Zero:
    """Replace an activation by zeros.

    Example:
        >>> import knockgrid as kg
        >>> kg.patch("mlp_out", "last", kg.zero()).source.label
        'zero()'

    Limits: the model never has a zero state; at the last token it saturates the divergence at every
    layer, so it says little about *where* something is.
    """
    return Zero()


def mean() -> Mean:
    """Replace an activation by its mean over the prompt set at the same position name.

    Example:
        >>> import knockgrid as kg
        >>> kg.patch("resid_post", "subject_last", kg.mean()).source.label
        'mean()'

    All tokens of the place count equally. The mean is taken once over all prompts of the sweep;
    with a single prompt it is that prompt's own.
    """
    return Mean()
