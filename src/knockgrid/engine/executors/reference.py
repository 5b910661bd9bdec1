"""reference: one full forward pass per cell, the oracle of every other executor."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, final

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.edits.intervention import Cell
from knockgrid.engine.executors.executor import Outcome, edit_hooks, items
from knockgrid.engine.executors.rows import layout, split
from knockgrid.engine.executors.states import States, outcomes_of
from knockgrid.passes.chunked import keep_final
from knockgrid.passes.edit import Edit, Placed
from knockgrid.passes.run import Run, keep_measured, run_hooked


@final
@dataclass(frozen=True)
class Reference:
    """One `run_with_hooks` over the whole sequence per sample of a cell; no cache, no batching.

    Limits: a sweep over L layers costs L full passes per row and prompt.
    """

    name: str = "reference"
    needs_kv: bool = False
    anywhere: bool = False

    def states(
        self, model: TransformerBridge, runs: Sequence[Run], cells: Sequence[Cell]
    ) -> Iterator[States]:
        """The final states of every cell, at all positions."""
        nulls: dict[tuple[int, int], Tensor] = {}
        for item in items(cells):
            run, rows = runs[item.run], item.cell.n_rows
            if (item.run, rows) not in nulls:
                nulls[item.run, rows] = final_of(model, run, (), rows)
            states = final_of(model, run, item.edits, rows)
            yield States(item.cell, item.sample, 0, states, nulls[item.run, rows])

    def __call__(
        self, model: TransformerBridge, runs: Sequence[Run], cells: Sequence[Cell]
    ) -> Iterator[Outcome]:
        if self.anywhere:
            yield from outcomes_of(model, runs, self.states(model, runs, cells))
            return
        nulls: dict[tuple[int, int], Tensor] = {}
        for item in items(cells):
            run, rows = runs[item.run], item.cell.n_rows
            if (item.run, rows) not in nulls:
                nulls[item.run, rows] = forward(model, run, (), rows)
            logits = forward(model, run, item.edits, rows)
            yield Outcome(item.cell, item.sample, logits, nulls[item.run, rows])


def forward(
    model: TransformerBridge,
    run: Run,
    edits: Sequence[Edit],
    n_rows: int = 1,
    watch: Sequence[tuple[str, Any]] = (),
) -> Tensor:
    """Logits `[token, d_vocab]` of a full pass, its first row edited; `watch` sees it then."""
    hooks = edit_hooks(model, run.noise, [Placed(edit, row=0) for edit in edits])
    with torch.inference_mode():
        logits = run_hooked(model, run.ids.expand(n_rows, -1), [*hooks, *watch])
    # A copy, since a view would keep the logits of all positions and rows alive.
    return logits[0, run.n_prompt - 1 :].clone()


def final_of(model: TransformerBridge, run: Run, edits: Sequence[Edit], n_rows: int = 1) -> Tensor:
    """Final states `[pos, d_model]` of a full pass, its first row edited."""
    found: list[Tensor] = []
    hooks = edit_hooks(model, run.noise, [Placed(edit, row=0) for edit in edits])
    hooks.append(("unembed.hook_in", partial(keep_final, found)))
    with torch.inference_mode():
        run_hooked(model, run.ids.expand(n_rows, -1), hooks)
    return found[0][0].clone()


def in_rows(
    model: TransformerBridge, runs: Sequence[Run], cells: Sequence[Cell], max_rows: int
) -> Iterator[Outcome]:
    """The cells of every run as rows of whole passes without a cache: fewer passes, as exact."""
    todo = sorted(items(cells), key=lambda item: item.run)
    for index, group in groupby(todo, key=lambda item: item.run):
        run = runs[index]
        for part in split(list(group), max_rows):
            plan = layout(0, part)
            placed = [Placed(e, plan.row[id(item)]) for item in part for e in item.edits]
            hooks = edit_hooks(model, run.noise, placed)
            hooks.append(("unembed.hook_in", keep_measured(slice(run.n_prompt - 1, None))))
            with torch.inference_mode():
                logits = run_hooked(model, run.ids.expand(len(plan.row_prompt), -1), hooks)
            for item in part:
                yield Outcome(item.cell, item.sample, logits[plan.row[id(item)]], logits[0])


reference = Reference()
