"""Edit: one write into one activation, and the only place that applies it.

An edit is a formula, `where(mask, value, activation)`. Indices (row of the batch, position, head)
make the mask, so that the same code serves one full sequence and a growing batch of suffixes.
Activations are copied, never written in place: the user's tensors stay as they were.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

Apply = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Edit:
    """One write at one layer of one cell.

    `pos` are the positions written (the query positions for `attn_scores`), `src_pos` the key
    positions there. `value` is `[pos, ...]`; without one, an attention score is blocked, that is
    set to the smallest number of its dtype, so that the softmax shares its weight among the rest.
    `from_row` takes the value from a different row of the same cell instead (an edge patch computes
    its attention in a second row). `cached` is the same value as the K/V cache holds it, after
    the rotary embedding; an `optional` edit leaves positions before the pass to that cache.
    `prefix` is the run whose keys and values these positions and all before them have from here on.
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
    """Entries of one dimension, by slices.

    Example:
        >>> import torch
        >>> taken(torch.arange(6), [1, 2, 4]).tolist()
        [1, 2, 4]

    Indexing with a list would make an index tensor and move it to the device for every cell.
    """
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

    Example:
        >>> import torch
        >>> old, new = torch.tensor([1.0, 1.0]), torch.tensor([3.0, 5.0])
        >>> formula(old, new), formula(old, new, alpha=0.5), formula(old, new, add=True)
        (tensor([3., 5.]), tensor([2., 3.]), tensor([4., 6.]))

    At alpha = 1 the value itself comes out, bit for bit, not `old + (new - old)`.
    """
    value = value.to(activation.device, activation.dtype)
    if add:
        return activation + alpha * value
    return value if alpha == 1.0 else activation + alpha * (value - activation)


def _slots(placed: Placed) -> list[tuple[int, ...]]:
    """(row, pos[, head]) of every entry an edit with a value writes, in the value's order."""
    edit, row = placed.edit, placed.row + placed.edit.row
    inside = [(row, pos - placed.start) for pos in edit.pos if placed.holds(pos)]
    return _by_head(inside, edit)


def _edges(placed: Placed) -> list[tuple[int, ...]]:
    """(row, query, key[, head]) of every attention score an edit blocks."""
    edit, row = placed.edit, placed.row + placed.edit.row
    queries = [q for q in edit.pos if placed.holds(q)]
    pairs = [(row, q - placed.start, k) for q in queries for k in edit.src_pos or () if k <= q]
    return _by_head(pairs, edit)


def _copies(placed: Placed) -> list[tuple[int, ...]]:
    """The entries that an edit copies into, each with the row that it copies from behind it."""
    by = (placed.edit.from_row or 0) - placed.edit.row
    return [(*slot, slot[0] + by) for slot in _slots(placed)]


def _by_head(slots: Sequence[tuple[int, ...]], edit: Edit) -> list[tuple[int, ...]]:
    if edit.heads is None:
        return list(slots)
    return [(*slot, head) for slot in slots for head in edit.heads]


def _value(placed: Placed) -> Tensor:
    edit, value = placed.edit, placed.edit.value
    assert value is not None
    inside = [i for i, pos in enumerate(edit.pos) if placed.holds(pos)]
    if len(inside) < len(edit.pos):
        value = taken(value, inside)
    if edit.heads is None:
        return value
    return taken(value, edit.heads, 1).flatten(0, 1)


def _on(index: Sequence[Tensor], like: Tensor) -> tuple[Tensor, ...]:
    """Indices on the device of an activation: under a `device_map` blocks lie on several."""
    return tuple(i if i.device == like.device else i.to(like.device) for i in index)


def _set(group: Sequence[Placed], index: list[Tensor]) -> Apply:
    value = torch.cat([_value(p) for p in group])
    return partial(_write, index, value, group[0].edit.alpha, group[0].edit.add)


def _write(
    index: list[Tensor], value: Tensor, alpha: float, add: bool, activation: Tensor
) -> Tensor:
    where, out = _on(index, activation), activation.clone()
    out[where] = formula(activation[where], value, alpha, add)
    return out


def _copy(group: Sequence[Placed], index: list[Tensor]) -> Apply:
    _, *rest, source_row = index
    return partial(_write_rows, index[:-1], [source_row, *rest], group[0].edit.alpha)


def _write_rows(to: list[Tensor], source: list[Tensor], alpha: float, activation: Tensor) -> Tensor:
    return _write(to, activation[_on(source, activation)], alpha, False, activation)


def _block(group: Sequence[Placed], index: list[Tensor]) -> Apply:
    return partial(_mask, index)


def _mask(index: list[Tensor], scores: Tensor) -> Tensor:
    row, query, key, *head = _on(index, scores)
    where, out = (row, head[0] if head else slice(None), query, key), scores.clone()
    out[where] = torch.finfo(scores.dtype).min
    return out


FORMS = {"set": (_slots, _set), "block": (_edges, _block), "copy": (_copies, _copy)}
"""How each kind of edit finds its entries, and how it writes them. Copies come last: they pass on
what the other edits of the same hook have written."""


def _kind(placed: Placed) -> tuple[str, bool, float, bool]:
    """What edits share that one indexed write applies together."""
    edit = placed.edit
    form = "copy" if edit.from_row is not None else "block" if edit.value is None else "set"
    return form, edit.heads is None, edit.alpha, edit.add


def compile_edits(placed: Iterable[Placed], device: torch.device | str) -> Apply:
    """One function that applies all edits of one hook, with its indices on `device`."""
    groups: dict[tuple[str, bool, float, bool], list[Placed]] = {}
    for one in placed:
        groups.setdefault(_kind(one), []).append(one)
    steps: list[Apply] = []
    for kind in sorted(groups, key=lambda kind: kind[0] == "copy"):
        find, make = FORMS[kind[0]]
        if slots := [slot for one in groups[kind] for slot in find(one)]:
            index = torch.tensor(slots, dtype=torch.long).to(device).unbind(1)
            steps.append(make(groups[kind], list(index)))
    return partial(_in_turn, steps)


def _in_turn(steps: list[Apply], activation: Tensor) -> Tensor:
    for step in steps:
        activation = step(activation)
    return activation
