"""staircase: all cells with the same first position in one growing pass over the suffix.

An edit at block l from position s on changes nothing below l and nothing before s. So the pass
runs over the positions from s on only, with keys and values of the earlier ones taken from the
clean run. It begins with one row per prompt in which nothing is ever edited, the null row, and
every cell forks from that row at the block where its first edit is made.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, final

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.edits.intervention import Cell
from knockgrid.engine.executors.executor import Outcome, edits_by_hook, items
from knockgrid.engine.executors.rows import Plan, plans
from knockgrid.engine.executors.states import States, outcomes_of, state_plans, states_in
from knockgrid.host.bridge import hook_name
from knockgrid.host.cache import Cache, Layer
from knockgrid.host.sizes import sizes_of
from knockgrid.passes.chunked import keep_final, part_size, parts
from knockgrid.passes.edit import Apply, Placed
from knockgrid.passes.run import (
    Hooks,
    Run,
    as_hook,
    input_device,
    keep_measured,
    noise_hooks,
    run_hooked,
)


@final
@dataclass(frozen=True)
class Staircase:
    """Exact layer sweeps at a small fraction of the cost of one pass per cell.

    A sweep of one row over L layers at suffix length n costs L (L + 1) / 2 block evaluations of n
    tokens (L (L - 1) / 2 where `resid_post` is edited, as the fork then comes after the block),
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
    anywhere: bool = False

    def __call__(
        self, model: TransformerBridge, runs: Sequence[Run], cells: Sequence[Cell]
    ) -> Iterator[Outcome]:
        if self.anywhere:
            yield from outcomes_of(model, runs, self.states(model, runs, cells))
            return
        for plan in self.plans(model, runs, cells):
            # Not kept in a variable here, which would hold the logits during the next pass.
            yield from outcomes(plan, run_pass(model, runs, plan, self.grow))

    def states(
        self, model: TransformerBridge, runs: Sequence[Run], cells: Sequence[Cell]
    ) -> Iterator[States]:
        """The final states of every cell from its first edit on."""
        bounds = (self.max_rows, self.max_bytes)
        for plan in state_plans(model, runs, items(cells), bounds):
            yield from states_in(plan, runs, final_states(model, runs, plan, self.grow))

    def plans(
        self, model: TransformerBridge, runs: Sequence[Run], cells: Sequence[Cell]
    ) -> Iterator[Plan]:
        """The passes that cells are carried out in."""
        if self.anywhere:
            bounds = (self.max_rows, self.max_bytes)
            return state_plans(model, runs, items(cells), bounds)
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
    chosen, start = [runs[i] for i in plan.null_row], plan.start
    ids, named, placed = pass_hooks(model, chosen, plan, grow, start)
    named.append(("unembed.hook_in", keep_measured(slice(chosen[0].n_prompt - 1 - start, None))))
    past = shared_prefix(*prefixes(chosen, plan), start, placed)
    with torch.inference_mode():
        return run_hooked(model, ids, named, past)


def pass_hooks(
    model: TransformerBridge,
    chosen: Sequence[Run],
    plan: Plan,
    grow: bool,
    start: int,
    end: int | None = None,
) -> tuple[Tensor, Hooks, list[Placed]]:
    """Token ids, hooks and edits of a pass over the positions from `start` to `end`."""
    row_prompt = torch.tensor(plan.row_prompt).to(input_device(model))
    placed = [Placed(e, plan.row[id(item)], start, end) for item in plan.items for e in item.edits]
    ids = torch.stack([run.ids[start:end] for run in chosen])
    hooks: list[tuple[str, Apply]] = []
    if grow:
        entering = torch.stack([run.acts["resid_pre", 0][start:end] for run in chosen])
        hooks.append((hook_name(model, "resid_pre", 0), lambda resid: entering))
        for (layer, after), (first, last) in plan.entries.items():
            name = hook_name(model, "resid_post" if after else "resid_pre", layer)
            hooks.append((name, partial(_fork, row_prompt[first:last])))
    else:
        ids = ids.index_select(0, row_prompt)
        hooks += noise_hooks(model, _row_noise(chosen, slice(start, end), row_prompt))
    hooks += edits_by_hook(model, placed).items()
    return ids[:1] if grow else ids, [(name, as_hook(apply)) for name, apply in hooks], placed


def final_states(model: TransformerBridge, runs: Sequence[Run], plan: Plan, grow: bool) -> Tensor:
    """Final states `[row, pos, d_model]` of one pass, from its first position on, in parts."""
    chosen, grow = [runs[i] for i in plan.null_row], grow and bool(plan.entries)
    placed = [Placed(e, plan.row[id(item)], plan.start) for item in plan.items for e in item.edits]
    past = shared_prefix(chosen, torch.tensor(plan.row_prompt), plan.start, placed)
    length, found = len(chosen[0].ids), list[Tensor]()
    size = part_size(sizes_of(model), length, len(plan.row_prompt))
    for start, end in parts(plan.start, length, size):
        ids, hooks, _ = pass_hooks(model, chosen, plan, grow, start, end)
        hooks.append(("unembed.hook_in", partial(keep_final, found)))
        with torch.inference_mode():
            run_hooked(model, ids, hooks, past)
    return torch.cat(found, dim=1)


def _fork(null_rows: Tensor, resid: Tensor) -> Tensor:
    """The batch with the rows of the cells that enter here, copied from their null rows."""
    return torch.cat([resid, resid.index_select(0, null_rows.to(resid.device))])


def _row_noise(chosen: Sequence[Run], at: slice, row_prompt: Tensor) -> Tensor | None:
    """The noise `[row, pos, d_model]` of every row's own base run."""
    some = next((run.noise for run in chosen if run.noise is not None), None)
    if some is None:
        return None
    noise = [torch.zeros_like(some) if run.noise is None else run.noise for run in chosen]
    return torch.stack(noise)[:, at].index_select(0, row_prompt)


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


def shared_prefix(
    runs: Sequence[Run], row_prefix: Tensor, start: int, placed: Sequence[Placed]
) -> Cache:
    """A `transformers` cache over the positions before `start` of some runs."""
    layers = []
    for layer in range(len(runs[0].kv)):
        keys, values = (torch.stack([run.kv[layer][i] for run in runs]) for i in (0, 1))
        layers.append(SharedPrefixLayer(keys, values, row_prefix, start))
        layers[-1].replace([one for one in placed if one.edit.layer == layer])
    return Cache(layers=layers)


class SharedPrefixLayer(Layer):
    """One layer of the cache: gathers the prefix for every row, stores nothing.

    `states` holds keys and values `[prompt, head, pos, d_head]`, of which the first `length`
    positions are the prefix; the rest is room for those of the pass, so that one copy per row is
    enough. A pass in parts keeps the keys and values of its earlier parts, `own`, up to `done`.
    `row_prefix` tells for every row whose prefix it has; a batch that grows is served from its
    first entries.
    """

    def __init__(self, keys: Tensor, values: Tensor, row_prefix: Tensor, length: int) -> None:
        super().__init__()
        self.states, self.length, self.done = {"k": keys, "v": values}, length, length
        self.own: dict[str, Tensor] = {}
        self.row_prefix = row_prefix.to(keys.device)
        self.writes: dict[str, tuple[Tensor, Tensor, Tensor]] = {}

    def replace(self, placed: Sequence[Placed]) -> None:
        """Give some rows the keys or values of another run, as an edge patch asks for."""
        for which in ("k", "v"):
            slots, values = [], []
            for one in placed:
                inside = [i for i, p in enumerate(one.edit.pos) if p < one.start]
                if one.edit.act_name == which and one.edit.cached is not None and inside:
                    slots += [(one.row + one.edit.row, one.edit.pos[i]) for i in inside]
                    values.append(one.edit.cached[: len(inside)])
            if slots:
                row, pos = torch.tensor(slots).to(self.row_prefix.device).unbind(1)
                self.writes[which] = (row, pos, torch.cat(values))

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Prefix and new states in one tensor, for as many rows as there are now."""
        found = self._gather("k", key_states), self._gather("v", value_states)
        self.done += key_states.shape[2]
        return found

    def _gather(self, which: str, new: Tensor) -> Tensor:
        states, rows, end = self.states[which], new.shape[0], self.done + new.shape[2]
        total = states.shape[2]
        if end < total or self.own:
            room = (rows, new.shape[1], total - self.length, new.shape[3])
            own = self.own.setdefault(which, new.new_empty(room))
            own[:, :, self.done - self.length : end - self.length] = new
            new, states = own[:, :, : end - self.length], states[:, :, :end]
        if states.shape[0] == 1:
            found = states.expand(rows, -1, -1, -1).clone()
        else:
            found = states.index_select(0, self.row_prefix[:rows])
        found[:, :, self.length :] = new
        if which in self.writes:
            row, pos, value = self.writes[which]
            found[row, :, pos] = value.to(found.dtype)
        return found

    def get_seq_length(self) -> int:
        """Positions before the pass, or before this part of it."""
        return self.done

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys, for the model's own mask."""
        return self.done + query_length, 0


staircase = Staircase()
rectangle = Staircase(name="rectangle", grow=False, lift=False)
