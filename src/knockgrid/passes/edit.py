"""Edit: one write into one activation, and the only place that applies it.

An edit is a formula, `where(mask, value, activation)`. Indices (row of the batch, position, head)
make the mask, so that the same code serves one full sequence and a growing batch of suffixes.
Activations are copied, never written in place: the user's tensors stay as they were.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

Apply = Callable[[Tensor], Tensor]
Entries = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, eq=False)
class Edit:
    """One write at one layer of one cell.

    `pos` are the positions written (the query positions for `attn_scores`), `src_pos` the key
    positions there. `value` is `[pos, ...]`; without one, an attention score is blocked, that is
    set to the smallest number of its dtype, so that the softmax shares its weight among the rest;
    `pairs` `[query, key]` says which, by default all.
    `from_row` takes the value from a different row of the same cell (an edge patch computes its
    attention in a second row). `cached` is the same value as the K/V cache holds it, after the
    rotary embedding; an `optional` edit leaves positions before the pass to that cache. `prefix` is
    the run whose keys and values these positions and all before them have from here on.
    """

    act_name: str
    layer: int
    pos: tuple[int, ...]
    src_pos: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None
    value: Tensor | None = None
    row: int = 0
    from_row: int | None = None
    alpha: float = 1.0
    add: bool = False
    cached: Tensor | None = None
    optional: bool = False
    prefix: Any = None
    pairs: Tensor | None = None

    @property
    def anchors(self) -> tuple[int, ...]:
        """The positions that a pass must contain for this edit to apply in it."""
        return () if self.optional else self.pos


@dataclass(frozen=True)
class Placed:
    """An edit with the batch row of its cell, and the positions `start` to `end` of the pass."""

    edit: Edit
    row: int
    start: int = 0
    end: int | None = None

    def holds(self, pos: int) -> bool:
        """Whether the pass contains a position."""
        return pos >= self.start and (self.end is None or pos < self.end)


def taken(activation: Tensor, at: Sequence[int], dim: int = 0) -> Tensor:
    """Entries of one dimension, by slices: a list would move an index tensor for every cell."""
    runs: list[list[int]] = []
    for i in at:
        if runs and runs[-1][1] == i:
            runs[-1][1] = i + 1
        else:
            runs.append([i, i + 1])
    parts = [activation.narrow(dim, first, end - first) for first, end in runs]
    return parts[0] if len(parts) == 1 else torch.cat(parts or [activation.narrow(dim, 0, 0)], dim)


def formula(activation: Tensor, value: Tensor, alpha: float = 1.0, add: bool = False) -> Tensor:
    """What an edited entry becomes: the value, a share `alpha` of the way to it, or a sum.

    At alpha = 1 the value itself comes out, bit for bit, not `old + (new - old)`.
    """
    value = value.to(activation.device, activation.dtype)
    if add:
        return activation + alpha * value
    return value if alpha == 1.0 else activation + alpha * (value - activation)


def _slots(placed: Placed, form: str) -> Entries:
    """(row, pos[, head]) of every entry an edit writes, in the value's order.

    Those of blocked scores are (row, query, key[, head]); behind those that an edit copies into is
    the row that it copies from.
    """
    edit, row = placed.edit, placed.row + placed.edit.row
    pos = np.array([at for at in edit.pos if placed.holds(at)], dtype=np.int64)
    columns = [pos - placed.start]
    if form == "block":
        query, key = cut_edges(edit, placed)
        columns = [query - placed.start, key]
    if edit.heads is not None:
        n = len(columns[0])
        columns = [column.repeat(len(edit.heads)) for column in columns]
        columns.append(np.tile(np.array(edit.heads, dtype=np.int64), n))
    columns.insert(0, np.full_like(columns[0], row))
    if form == "copy":
        columns.append(np.full_like(columns[0], placed.row + (edit.from_row or 0)))
    return np.stack(columns, 1)


def cut_edges(edit: Edit, placed: Placed | None = None) -> tuple[Entries, Entries]:
    """Query and key of every attention score that an edit blocks, in no future.

    Of an edit that is placed in a pass, those whose query the pass contains.
    """
    query, key = (np.array(at, dtype=np.int64) for at in (edit.pos, edit.src_pos or ()))
    inside = np.array([placed is None or placed.holds(at) for at in edit.pos], dtype=bool)
    query = query[inside]
    cut = key[None] <= query[:, None]
    if edit.pairs is not None:
        cut &= edit.pairs.numpy()[inside]
    of_query, of_key = cut.nonzero()
    return query[of_query], key[of_key]


def _value(placed: Placed) -> Tensor:
    edit, value = placed.edit, placed.edit.value
    assert value is not None
    inside = [i for i, pos in enumerate(edit.pos) if placed.holds(pos)]
    if len(inside) < len(edit.pos):
        value = taken(value, inside)
    return value if edit.heads is None else taken(value, edit.heads, 1).flatten(0, 1)


def _step(form: str, group: Sequence[Placed], index: list[Tensor]) -> Apply:
    """How the edits of one kind write their entries."""
    edit = group[0].edit
    if form == "block":
        return partial(_mask, index)
    if form == "copy":
        *to, source = index
        return partial(_copy, to, [source, *to[1:]], edit.alpha)
    return partial(_write, index, torch.cat([_value(p) for p in group]), edit.alpha, edit.add)


def _on(index: Sequence[Tensor], like: Tensor) -> tuple[Tensor, ...]:
    """Indices on the device of an activation: under a `device_map` blocks lie on several."""
    return tuple(i if i.device == like.device else i.to(like.device) for i in index)


def _write(
    index: list[Tensor], value: Tensor, alpha: float, add: bool, activation: Tensor
) -> Tensor:
    where, out = _on(index, activation), activation.clone()
    out[where] = formula(activation[where], value, alpha, add)
    return out


def _copy(to: list[Tensor], source: list[Tensor], alpha: float, activation: Tensor) -> Tensor:
    return _write(to, activation[_on(source, activation)], alpha, False, activation)


def _mask(index: list[Tensor], scores: Tensor) -> Tensor:
    row, query, key, *head = _on(index, scores)
    out = scores.clone()
    out[row, head[0] if head else slice(None), query, key] = torch.finfo(scores.dtype).min
    return out


def compile_edits(placed: Iterable[Placed], device: torch.device | str) -> Apply:
    """One function that applies all edits of one hook, with its indices on `device`.

    One indexed write applies all edits of a kind; copies come last, as they pass on what the others
    have written.
    """
    groups: dict[tuple[bool, str, bool, float, bool], list[Placed]] = {}
    for one in placed:
        edit, copies = one.edit, one.edit.from_row is not None
        form = "copy" if copies else "block" if edit.value is None else "set"
        kind = (copies, form, edit.heads is None, edit.alpha, edit.add)
        groups.setdefault(kind, []).append(one)
    steps: list[Apply] = []
    for kind in sorted(groups, key=lambda kind: kind[0]):
        slots = np.concatenate([_slots(one, kind[1]) for one in groups[kind]])
        if len(slots):
            index = torch.from_numpy(slots).to(device).unbind(1)
            steps.append(_step(kind[1], groups[kind], list(index)))
    return partial(_in_turn, steps)


def _in_turn(steps: list[Apply], activation: Tensor) -> Tensor:
    for step in steps:
        activation = step(activation)
    return activation
