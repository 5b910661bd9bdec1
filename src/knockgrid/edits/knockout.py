"""knockout: forbid some positions to attend to others."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, final

from knockgrid.edits.intervention import Intervention, Place, heads_of
from knockgrid.edits.layers import Window
from knockgrid.passes.edit import Edit
from knockgrid.prompts.positions import At
from knockgrid.sources.source import Source


@final
@dataclass(frozen=True, kw_only=True)
class Knockout(Intervention):
    """The frozen value behind `knockout()`."""

    dest: At
    src: At
    moves: ClassVar[str] = "dest"

    def default_name(self) -> str:
        return f"{self.src}->{self.dest}"

    @property
    def kind(self) -> str:
        return "knockout"

    @property
    def sites(self) -> tuple[tuple[str, At], ...]:
        return ()

    @property
    def edges(self) -> tuple[At, At]:
        return self.dest, self.src

    def no_op(self, itself: Source) -> "Knockout":
        return replace(self, heads=())

    def edits(self, place: Place) -> tuple[Edit, ...]:
        pos, src = place.query_pos(self.dest), place.pos(self.src)
        return (Edit("attn_scores", place.layer, pos, src, self.heads),)


def knockout(
    dest: At = "last",
    src: At = "subject",
    window: Window = 5,
    heads: int | Sequence[int] | None = None,
    *,
    name: str = "",
    label: str = "",
) -> Knockout:
    """Block attention from the positions `src` (keys) to the positions `dest` (queries).

    Example:
        >>> import knockgrid as kg
        >>> kg.knockout().name, kg.knockout().window
        ('subject->last', 5)

    The scores are set to the smallest number of their dtype before the softmax, so that the rest
    of the row renormalises, over a window of layers centred on the cell's layer. `heads` are query
    heads; by default all are blocked.

    Source: Geva et al. 2023 (arXiv 2304.14767), whose window is 9; 5 is that of Cheang et al. 2025
    (arXiv 2510.09033).

    Limits: a query that could see nothing else is refused, and an edge that no layer of the set
    can see (sliding window, linear attention) is NA, not 0.
    """
    return Knockout(
        dest=dest, src=src, window=window, heads=heads_of(heads), name=name, label=label
    )
