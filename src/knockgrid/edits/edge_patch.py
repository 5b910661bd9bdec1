"""edge_patch and paths: some positions see another run's keys and values instead of nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, final

from knockgrid.edits.intervention import Intervention, Place, heads_of
from knockgrid.edits.layers import Window
from knockgrid.errors import InputError
from knockgrid.passes.edit import Edit
from knockgrid.prompts.positions import At
from knockgrid.sources.corrupted_run import CorruptedRun, source_of
from knockgrid.sources.source import Source


@final
@dataclass(frozen=True, kw_only=True)
class EdgePatch(Intervention):
    """The frozen value behind `edge_patch()`.

    A cell takes two rows of the batch. At every layer of the set the second row is made equal to
    the first, its keys and values at `src` are replaced, and what its attention then gives to the
    queries is copied into the first row, head by head, before the output projection. So nothing
    needs to be known about scales, soft caps, biases or sinks of the architecture.
    """

    dest: At
    src: At
    source: Source = field(default_factory=CorruptedRun)
    alpha: float = 1.0
    n_rows: int = field(default=2, init=False)
    moves: ClassVar[str] = "dest"

    def default_name(self) -> str:
        return f"edge {self.src}->{self.dest}"

    @property
    def kind(self) -> str:
        return "edge_patch"

    @property
    def sites(self) -> tuple[tuple[str, At], ...]:
        return (("k", self.src), ("v", self.src))

    @property
    def edges(self) -> tuple[At, At]:
        return self.dest, self.src

    def edits(self, place: Place) -> tuple[Edit, ...]:
        layer, src = place.layer, place.pos(self.src)
        keys, values = place.cached(self.src) or (None, None)
        twin = Edit("resid_pre", layer, place.every_pos(), row=1, from_row=0, optional=True)
        edited = []
        for name, cached in (("k", keys), ("v", values)):
            value, optional = place.value(self.source, name, self.src), cached is not None
            edited.append(
                Edit(name, layer, src, value=value, row=1, cached=cached, optional=optional)
            )
        pos, heads = place.query_pos(self.dest), self.heads
        result = Edit("z", layer, pos, heads=heads, from_row=1, alpha=self.alpha)
        return (twin, *edited, result)


def edge_patch(
    dest: At = "last",
    src: At = "subject",
    source: Source | None = None,
    window: Window = 5,
    heads: int | Sequence[int] | None = None,
    *,
    alpha: float = 1.0,
    name: str = "",
    label: str = "",
) -> EdgePatch:
    """Give the queries `dest` the source run's keys and values at `src`.

    Example:
        >>> import knockgrid as kg
        >>> kg.edge_patch().name
        'edge subject->last'

    Like `knockout`, but the weight that the blocked positions would have had is not pushed onto
    other tokens, and the attention row shares its source with the rows above and below it.
    `source` must come from a run: `corrupted_run()` (default) or `donor()`.

    Raises:
        InputError: a source that is not taken from a run.
    """
    source = source_of(source)
    if not source.from_run:
        raise InputError(
            f"edge_patch needs keys and values of a run, and {source.label!r} has none; "
            "use corrupted_run() or donor()"
        )
    return EdgePatch(
        dest=dest,
        src=src,
        source=source,
        window=window,
        alpha=alpha,
        heads=heads_of(heads),
        name=name,
        label=label,
    )


def paths(source: Source | None = None, window: Window = "from") -> list[EdgePatch]:
    """Cut the direct path from the subject, the paths through the tokens between, and both.

    Example:
        >>> import knockgrid as kg
        >>> [one.name for one in kg.paths()]
        ['direct', 'between', 'both']

    Each row lets its queries see the source run's keys and values at the subject, by default from
    the cell's layer on: `direct` the last token, `between` the tokens after the subject and before
    the last one, `both` all of them. At layer 0 `both` is the whole corruption, since nothing of
    the subject reaches the last token otherwise; `both` - `direct` - `between` is what the two ways
    share (negative) or only do together (positive).

    Limit: prompts need a token between the subject and the last one.
    """
    rows: dict[str, At] = {"direct": "last", "between": "between", "both": ["between", "last"]}
    return [
        edge_patch(dest, "subject", source, window, name=name, label=name)
        for name, dest in rows.items()
    ]
