"""staircase: all cells with the same first position in one growing pass over the suffix.

An edit at block l from position s on changes nothing below l and nothing before s. So the pass
runs over the positions from s on only, with keys and values of the earlier ones taken from the
clean run. It begins with one row per prompt in which nothing is ever edited, the null row, and
every cell forks from that row at the block where its first edit is made.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import final

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.edits.intervention import Cell
from knockgrid.engine.executors.executor import Outcome, edits_by_hook, items
from knockgrid.engine.executors.rows import Plan, plans
from knockgrid.engine.executors.shared_prefix import shared_prefix
from knockgrid.host.bridge import hook_name
from knockgrid.passes.edit import Apply, Placed
from knockgrid.passes.run import Run, as_hook, input_device, keep_measured, noise_hooks, run_hooked


@final
@dataclass(frozen=True)
class Staircase:
    """Exact layer sweeps at a small fraction of the cost of one pass per cell.

    Example:
        >>> import knockgrid as kg
        >>> kg.executors.staircase.name
        'staircase'

    A sweep of one row over L layers at suffix length n costs L (L + 1) / 2 block evaluations of n
    tokens (L (L - 1) / 2 where `resid_post` is edited, since the fork then comes after the block),
    instead of L * L over the whole sequence. `max_rows` bounds the rows of one pass, `max_bytes`
    what it allocates; without them they follow free memory. With `grow=False` all rows are there
    from the first block on (the rectangle), for models that build tensors per batch row before
    their blocks. Where an edit puts the residuals of a noisy run at all positions from the first
    noisy one on, that run has all that is computed there; with `lift` the pass begins after them.

    Limits: needs a model that takes a `transformers` cache; `sweep` checks that it agrees with
    the reference executor before it is used.
    """

    name: str = "staircase"
    max_rows: int | None = None
    grow: bool = True
    needs_kv: bool = True
    max_bytes: int | None = None
    lift: bool = True

    def __call__(
        self, model: TransformerBridge, runs: Sequence[Run], cells: Sequence[Cell]
    ) -> Iterator[Outcome]:
        for plan in self.plans(model, runs, cells):
            # Not kept in a variable here, which would hold the logits during the next pass.
            yield from outcomes(plan, run_pass(model, runs, plan, self.grow))

    def plans(
        self, model: TransformerBridge, runs: Sequence[Run], cells: Sequence[Cell]
    ) -> Iterator[Plan]:
        """The passes that cells are carried out in."""
        lift = self.lift and self.grow
        return plans(model, runs, items(cells), self.max_rows, self.max_bytes, lift)


def outcomes(plan: Plan, logits: Tensor) -> Iterator[Outcome]:
    """The rows of a finished pass, prompt by prompt."""
    order = sorted(plan.items, key=lambda item: item.run)
    for run, group in groupby(order, key=lambda item: item.run):
        null = logits[plan.null_row[run]]
        for item in group:
            yield Outcome(item.cell, item.sample, logits[plan.row[id(item)]], null)


def run_pass(model: TransformerBridge, runs: Sequence[Run], plan: Plan, grow: bool) -> Tensor:
    """Logits `[row, token, d_vocab]` of one pass."""
    chosen = [runs[i] for i in plan.null_row]
    device, start = input_device(model), plan.start
    row_prompt = torch.tensor(plan.row_prompt).to(device)
    placed = [Placed(e, plan.row[id(item)], start) for item in plan.items for e in item.edits]
    applied = edits_by_hook(model, placed, device)
    ids = torch.stack([run.ids[start:] for run in chosen])
    hooks: dict[str, list[Apply]] = {}
    if grow:
        entering = torch.stack([run.acts["resid_pre", 0][start:] for run in chosen])
        hooks[hook_name(model, "resid_pre", 0)] = [lambda resid: entering]
        for name, fork in forks(model, plan, row_prompt).items():
            hooks.setdefault(name, []).append(fork)
    else:
        for name, add in noise_hooks(model, _row_noise(chosen, start, row_prompt)):
            hooks[name] = [add]
    for name, apply in applied.items():
        hooks.setdefault(name, []).append(apply)
    measured = slice(chosen[0].n_prompt - 1 - start, None)
    hooks["unembed.hook_in"] = [keep_measured(measured)]
    past = shared_prefix(*prefixes(chosen, plan), start, placed)
    named = [(name, as_hook(f)) for name, group in hooks.items() for f in group]
    rows = ids[:1] if grow else ids.index_select(0, row_prompt)
    with torch.inference_mode():
        return run_hooked(model, rows, named, past)


def prefixes(chosen: Sequence[Run], plan: Plan) -> tuple[list[Run], Tensor]:
    """The runs whose keys and values come before a pass, and for every row which of them it is."""
    found, row_prefix = list(chosen), list(plan.row_prompt)
    place = {id(run): i for i, run in enumerate(found)}
    for item in plan.items:
        if item.lifted(plan.start):
            run, row = item.edits[0].prefix, plan.row[id(item)]
            if id(run) not in place:
                place[id(run)] = len(found)
                found.append(run)
            row_prefix[row : row + item.cell.n_rows] = [place[id(run)]] * item.cell.n_rows
    return found, torch.tensor(row_prefix)


def _row_noise(chosen: Sequence[Run], start: int, row_prompt: Tensor) -> Tensor | None:
    """The noise `[row, pos, d_model]` of every row's own base run."""
    some = next((run.noise for run in chosen if run.noise is not None), None)
    if some is None:
        return None
    noise = [torch.zeros_like(some) if run.noise is None else run.noise for run in chosen]
    return torch.stack(noise)[:, start:].index_select(0, row_prompt)


def forks(model: TransformerBridge, plan: Plan, row_prompt: Tensor) -> Mapping[str, Apply]:
    """At each hook where cells enter, the function that appends their rows to the batch."""
    made: dict[str, Apply] = {}
    for (layer, after), (first, last) in plan.entries.items():
        name = hook_name(model, "resid_post" if after else "resid_pre", layer)
        made[name] = partial(_fork, row_prompt[first:last])
    return made


def _fork(null_rows: Tensor, resid: Tensor) -> Tensor:
    return torch.cat([resid, resid.index_select(0, null_rows.to(resid.device))])


staircase = Staircase()
rectangle = Staircase(name="rectangle", grow=False, lift=False)
