"""knockout, edge_patch and paths: what some positions see of others."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, final

import torch

from knockgrid.edits.intervention import Intervention, Place, heads_of
from knockgrid.edits.layers import Layers, Window, of_name, window_of
from knockgrid.edits.pairs.rules import PairRule
from knockgrid.errors import InputError, shown
from knockgrid.passes.edit import Edit, cut_edges
from knockgrid.prompts.positions import At
from knockgrid.sources.other_run import CorruptedRun, source_of
from knockgrid.sources.source import Source


@dataclass(frozen=True, kw_only=True)
class OnEdges(Intervention):
    """An intervention on what the queries `dest` see of the keys `src`."""

    dest: At
    src: At
    moves: ClassVar[str] = "dest"

    @property
    def edges(self) -> tuple[At, At]:
        return self.dest, self.src


@final
@dataclass(frozen=True, kw_only=True)
class Knockout(OnEdges):
    """The frozen value behind `knockout()`."""

    pairs: PairRule | None = None

    def __post_init__(self) -> None:
        if self.pairs is not None and not isinstance(self.pairs, PairRule):
            raise InputError(
                f"pairs is {shown(self.pairs)}; give a rule such as kg.pairs.farther_than(8)"
            )
        super().__post_init__()

    def default_name(self) -> str:
        rule = "" if self.pairs is None else f" {self.pairs.label}"
        return f"{self.src}->{self.dest}{rule}{of_name(self.window)}"

    @property
    def kind(self) -> str:
        return "knockout" if self.pairs is None else "knockout of some pairs"

    @property
    def sites(self) -> tuple[tuple[str, At], ...]:
        return ()

    def no_op(self, itself: Source) -> "Knockout":
        return replace(self, heads=())

    def maximal(self, n_layers: int, strong: Source) -> Intervention:
        return replace(super().maximal(n_layers, strong), pairs=None)  # type: ignore[call-arg]

    def edits(self, place: Place) -> tuple[Edit, ...]:
        pos, src, pairs = place.query_pos(self.dest), place.pos(self.src), None
        if self.pairs is not None:
            query, key = torch.tensor(pos), torch.tensor(src)
            pairs = self.pairs.cut(query, key, place.run, place.layer)
        edit = Edit("attn_scores", place.layer, pos, src, self.heads, pairs=pairs)
        if pairs is None and min(src, default=0) <= min(pos, default=0):
            return (edit,)
        # Queries that lose nothing are no part of it: a pass may then begin after them.
        cut = set(cut_edges(edit)[0].tolist())
        kept = [i for i, at in enumerate(pos) if at in cut]
        pairs = None if pairs is None else pairs[kept]
        return (replace(edit, pos=tuple(pos[i] for i in kept), pairs=pairs),)


@final
@dataclass(frozen=True, kw_only=True)
class EdgePatch(OnEdges):
    """The frozen value behind `edge_patch()`.

    At every layer of the set a second row of the batch is made equal to the first, its keys and
    values at `src` are replaced, and what its attention then gives to the queries is copied into
    the first row, head by head, before the output projection. So nothing needs to be known about
    scales, soft caps, biases or sinks of the architecture.
    """

    source: Source = field(default_factory=CorruptedRun)
    alpha: float = 1.0
    n_rows: int = field(default=2, init=False)

    def default_name(self) -> str:
        return f"edge {self.src}->{self.dest}{of_name(self.window)}"

    @property
    def kind(self) -> str:
        return "edge_patch"

    @property
    def sites(self) -> tuple[tuple[str, At], ...]:
        return (("k", self.src), ("v", self.src))

    def edits(self, place: Place) -> tuple[Edit, ...]:
        layer, src = place.layer, place.pos(self.src)
        keys, values = place.cached(self.src) or (None, None)
        every = tuple(range(len(place.run.ids)))
        twin = Edit("resid_pre", layer, every, row=1, from_row=0, optional=True)
        edited = []
        for name, cached in (("k", keys), ("v", values)):
            value, optional = place.value(self.source, name, self.src), cached is not None
            edited.append(
                Edit(name, layer, src, value=value, row=1, cached=cached, optional=optional)
            )
        pos, heads = place.query_pos(self.dest), self.heads
        result = Edit("z", layer, pos, heads=heads, from_row=1, alpha=self.alpha)
        return (twin, *edited, result)


def knockout(
    dest: At = "last",
    src: At = "subject",
    window: Window = 5,
    heads: int | Sequence[int] | None = None,
    *,
    layers: Layers = None,
    pairs: PairRule | None = None,
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
    heads; by default all are blocked. With `layers` ("all", a list, `all_but(...)`) it blocks these
    layers in one cell, whatever the sweep's are. `pairs` says which of the edges are cut, such as
    `pairs.farther_than(8)`; by default all.

    Source: Geva et al. 2023 (arXiv 2304.14767), whose window is 9; 5 is that of Cheang et al. 2025
    (arXiv 2510.09033).

    Limits: a query that could see nothing else is refused, and an edge that no layer of the set
    can see (sliding window, linear attention) is NA, not 0.
    """
    return Knockout(
        dest=dest,
        src=src,
        window=window_of(window, layers, 5),
        heads=heads_of(heads),
        pairs=pairs,
        name=name,
        label=label,
    )


def edge_patch(
    dest: At = "last",
    src: At = "subject",
    source: Source | None = None,
    window: Window = 5,
    heads: int | Sequence[int] | None = None,
    *,
    layers: Layers = None,
    alpha: float = 1.0,
    name: str = "",
    label: str = "",
) -> EdgePatch:
    """Give the queries `dest` the source run's keys and values at `src`.

    Example:
        >>> import knockgrid as kg
        >>> kg.edge_patch().name
        'edge subject->last'

    Unlike in `knockout`, the weight that the blocked positions would have had is not pushed onto
    other tokens. `source` must come from a run: `corrupted_run()` (default) or `donor()`. `layers`
    ("all", a list, `all_but(...)`) are the same in every cell, of which there is then one.
    """
    source = source_of(source)
    if not source.from_run:
        raise InputError(
            f"edge_patch needs keys and values of a run, and {source.label!r} has none; "
            "use corrupted_run() or donor()"
        )
    if source.run_layer is not None:
        raise InputError(
            f"edge_patch gives a layer keys and values of the same layer, and {source.label!r} "
            "takes them from another; use patch()"
        )
    return EdgePatch(
        dest=dest,
        src=src,
        source=source,
        window=window_of(window, layers, 5),
        alpha=alpha,
        heads=heads_of(heads),
        name=name,
        label=label,
    )


def paths(source: Source | None = None, window: Window = "from") -> list[EdgePatch]:
    """Cut the direct path from the subject, the paths through the tokens between, and both.

    Example:
        >>> import knockgrid as kg
        >>> [one.name for one in kg.edits.paths()]
        ['direct', 'between', 'both']

    The queries see the source run's keys and values at the subject, by default from the cell's
    layer on: in `direct` the last token, in `between` the tokens after the subject and before the
    last one (prompts need one), in `both` all of them. At layer 0 `both` is the whole corruption;
    `both` - `direct` - `between` is what the two ways share (negative) or only do together.
    """
    rows: dict[str, At] = {"direct": "last", "between": "between", "both": ["between", "last"]}
    return [
        edge_patch(dest, "subject", source, window, name=name, label=name)
        for name, dest in rows.items()
    ]
