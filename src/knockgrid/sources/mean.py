"""mean: the average activation of the prompt set at the same place."""

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from knockgrid.sources.source import Source, Where


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


def mean() -> Mean:
    """Replace an activation by its mean over the prompt set at the same position name.

    Example:
        >>> import knockgrid as kg
        >>> kg.patch("resid_post", "subject_last", kg.mean()).source.label
        'mean()'

    All tokens of the place count equally. The mean is taken once over all prompts of the sweep,
    before any batching; with a single prompt it is that prompt's own mean.
    """
    return Mean()
