"""States: what the unembedding reads, at every position that an edit can reach.

Logits at every position of a long text do not fit, the states that they are made of do.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.edits.intervention import Cell
from knockgrid.engine.executors.executor import Item, Outcome
from knockgrid.engine.executors.rows import Plan, entry, joined, layout, passing, split
from knockgrid.host.sizes import sizes_of
from knockgrid.passes.chunked import SCORES
from knockgrid.passes.run import Run
from knockgrid.passes.unembed import Unembedding

STARTING = 0.3
"""The share of a pass's fixed cost that a pass over hundreds of tokens does not hide, measured."""
PASS = 192 * 2**20
"""Bytes of the rows of a pass, where nothing else bounds them."""


@dataclass(frozen=True, eq=False)
class States:
    """What one sample of one cell did to the final states, from position `start` on.

    `states` is `[pos, d_model]` from there to the end, `null` the same of the run without an edit,
    at all positions. Before `start` both are the same.
    """

    cell: Cell
    sample: int
    start: int
    states: Tensor
    null: Tensor


def state_plans(
    model: TransformerBridge,
    runs: Sequence[Run],
    todo: Sequence[Item],
    bounds: tuple[int | None, int | None],
) -> Iterator[Plan]:
    """The passes that cells are carried out in: from their first edit to the end of the text.

    Cells that are edited from the first block on have rows of their own from there, and no null row
    beside them: their clean states are those of the recorded run, which other shapes of products
    round differently. In half precision that is no rounding any more, so there a null row is.
    """
    half = next(model.original_model.parameters()).dtype in (torch.float16, torch.bfloat16)
    groups: dict[tuple[int, bool], dict[int, list[Item]]] = {}
    for item in todo:
        nulls = half or entry(item) > (0, False)
        key = len(runs[item.run].ids), nulls
        groups.setdefault(key, {}).setdefault(item.start, []).append(item)
    for (length, nulls), by_start in groups.items():

        def most(start: int, length: int = length) -> int:
            return rows_of(model, length, start, bounds)

        n_layers, each = int(model.cfg.n_layers), STARTING * passing(model)
        for start, group in joined(by_start, length, n_layers, most, each, nulls):
            for part in split(group, most(start), nulls):
                yield layout(min(item.start for item in part), part, nulls)


def rows_of(
    model: TransformerBridge, length: int, start: int, bounds: tuple[int | None, int | None]
) -> int:
    """Rows of a pass in parts: each keeps its keys and values, and gathers those of one block."""
    sizes, (max_rows, max_bytes) = sizes_of(model), bounds
    gathered = 4 * sizes.n_heads * sizes.d_head * length * sizes.itemsize
    left = (PASS if max_bytes is None else min(PASS, max_bytes)) - SCORES
    rows = max(1, left // (sizes.cache(length - start) + gathered))
    return rows if max_rows is None else min(rows, max_rows)


def states_in(plan: Plan, runs: Sequence[Run], states: Tensor) -> Iterator[States]:
    """The rows of a finished pass; without null rows, the clean states are the recorded ones."""
    nulls: dict[int, Tensor] = {}
    for index, row in plan.null_row.items():
        final = runs[index].final
        assert final is not None
        nulls[index] = torch.cat([final[: plan.start], states[row]]) if plan.entries else final
    for item in plan.items:
        own = states[plan.row[id(item)], item.start - plan.start :]
        yield States(item.cell, item.sample, item.start, own, nulls[item.run])


def outcomes_of(
    model: TransformerBridge, runs: Sequence[Run], found: Iterator[States]
) -> Iterator[Outcome]:
    """States as logits from the prompt's last token on: for short texts, as preflight tries."""
    unembed = Unembedding(model)
    for one in found:
        first = runs[one.cell.runs[one.sample]].n_prompt - 1
        whole = torch.cat([one.null[: one.start], one.states])
        logits, null = unembed(whole[first:]), unembed(one.null[first:])
        yield Outcome(one.cell, one.sample, logits, null)
