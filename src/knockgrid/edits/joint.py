"""joint: several edits in one cell, each with places, layers and heads of its own."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, final

import numpy as np

from knockgrid.edits.intervention import Intervention, Place
from knockgrid.edits.layers import in_words
from knockgrid.errors import InputError, shown
from knockgrid.passes.edit import Edit, cut_edges
from knockgrid.prompts.positions import At
from knockgrid.sources.source import Source

OF_KEYS = ("k", "v", "rot_k", "k_input", "v_input", "attn_in")
OF_QUERIES = ("q", "rot_q", "q_input", "attn_scores", "pattern", "z")
"""Activations that an edge patch computes once more, in a row of its own: those of keys bear on
every query, the others on their own."""


@final
@dataclass(frozen=True, kw_only=True)
class Joint(Intervention):
    """The frozen value behind `joint()`."""

    members: tuple[Intervention, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "members", tuple(self.members))
        extra = sum(one.n_rows - 1 for one in self.members)
        object.__setattr__(self, "n_rows", 1 + extra)
        super().__post_init__()

    def default_name(self) -> str:
        return " + ".join(one.name for one in self.members)

    @property
    def kind(self) -> str:
        return "joint of " + ", ".join(sorted({one.kind for one in self.members}))

    @property
    def parts(self) -> tuple[Intervention, ...]:
        return self.members

    @property
    def sites(self) -> tuple[tuple[str, At], ...]:
        return tuple(dict.fromkeys(site for one in self.parts for site in one.sites))

    @property
    def places(self) -> list[At]:
        return [at for one in self.parts for at in one.places]

    @property
    def row(self) -> str:
        return self.name

    @property
    def place(self) -> str:
        return "; ".join(one.place for one in self.parts)

    def edits(self, place: Place) -> tuple[Edit, ...]:
        raise InputError(f"the edits of {self.name!r} are made part by part")

    def no_op(self, itself: Source) -> "Joint":
        return replace(self, members=tuple(one.no_op(itself) for one in self.parts))

    def describe(self) -> dict[str, Any]:
        windows = dict.fromkeys(str(in_words(one.window)) for one in self.parts)
        return {**super().describe(), "window": "; ".join(windows)}


def joint(members: Sequence[Intervention], *, name: str = "", label: str = "") -> Intervention:
    """Make several edits together in one cell.

    Example:
        >>> import knockgrid as kg
        >>> to_last = kg.knockout("last", "subject", layers=kg.all_but(range(16, 26)))
        >>> kg.joint([to_last, kg.patch("mlp_out", "subject", kg.zero())], name="pathway").n_rows
        1

    Each edit keeps its own places, heads, source and layers: those with `layers=` edit them in
    every cell, the others a window around the cell's layer; where all have layers of their own
    there is one cell. A joint of one edit is that edit. The order of the edits does not matter.

    Raises:
        InputError: no edits, something that is none, a joint in a joint, or a control of a
            treatment; in a sweep, two edits that write the same entries, or queries that are left
            nothing to attend to.

    Source: edges cut together, each outside its own layers: Map the Flow (ICLR 2026); heads
    ablated together: LOCOS (arXiv 2607.01002).
    """
    several = isinstance(members, Iterable) and not isinstance(members, str)
    parts = list(members) if several else []
    if not parts:
        raise InputError(
            f"joint({shown(members)}): give a list of edits, such as [knockout(), ...]"
        )
    for one in parts:
        if not isinstance(one, Intervention) or isinstance(one, Joint):
            raise InputError(f"{shown(one)} cannot be a part of a joint; give knockouts or patches")
        if one.role != "treatment":
            raise InputError(f"{one.name!r} is a {one.role}; join treatments only")
    if len(parts) == 1:
        changes = {key: text for key, text in (("name", name), ("label", label)) if text}
        return replace(parts[0], **changes)
    return Joint(members=tuple(parts), name=name, label=label)


def together(name: str, parts: Sequence[Sequence[Edit]]) -> tuple[Edit, ...]:
    """The edits of a cell's parts, each part's second row moved behind those before it."""
    if len(parts) > 1:
        _check_disjoint(name, parts)
    found, rows = list[Edit](), 0
    for edits in parts:
        extra = max((edit.row for edit in edits), default=0)
        found += [_moved(edit, rows) for edit in edits] if rows and extra else edits
        rows += extra
    return tuple(found)


def _moved(edit: Edit, by: int) -> Edit:
    from_row = edit.from_row and edit.from_row + by
    return replace(edit, row=edit.row and edit.row + by, from_row=from_row)


def _check_disjoint(name: str, parts: Sequence[Sequence[Edit]]) -> None:
    """Refuse parts of a joint that write the same entries, as their order would matter."""
    layers: dict[int, list[tuple[int, Edit]]] = {}
    for i, edits in enumerate(parts):
        for edit in edits:
            if edit.row == 0:
                layers.setdefault(edit.layer, []).append((i, edit))
    for layer, some in layers.items():
        for (i, one), (k, other) in combinations(some, 2):
            if i != k and _meet(one, other):
                raise InputError(
                    f"two edits of {name!r} write {one.act_name!r} at layer {layer}, where the "
                    "order of two edits would matter; make them one, or give them layers, places "
                    "or heads that do not overlap (a persistent edit has every later query)"
                )


def _meet(one: Edit, other: Edit) -> bool:
    """Whether two edits of a layer write the same entry, or one what the other computes anew."""
    if one.from_row is not None or other.from_row is not None:
        edit = other if one.from_row is not None else one
        if edit.act_name in OF_KEYS or edit.act_name.startswith(("attn.", "ln1.")):
            return True
        if edit.act_name not in OF_QUERIES:
            return False
    elif one.act_name != other.act_name:
        return False
    heads = one.heads is None or other.heads is None or {*one.heads} & {*other.heads}
    if not heads or not {*one.pos} & {*other.pos}:
        return False
    if one.act_name == other.act_name == "attn_scores":
        edges = [np.stack(cut_edges(edit), 1) for edit in (one, other)]
        every = np.concatenate(edges)
        return len(np.unique(every, axis=0)) < len(every)
    return True
