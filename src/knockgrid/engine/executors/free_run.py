"""free_run: the intervened model writes its own tokens, while edits stay in force.

The other executors measure on the clean continuation; here every row goes its own way, so a pass
cannot be shared beyond the prompt. All cells of a prompt are rows of one batch, and every step
feeds one token per row to a cache that holds the edited keys and values.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import final

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.divergences import js
from knockgrid.divergences.evaluate import evaluate
from knockgrid.edits.intervention import Cell
from knockgrid.engine.executors.executor import Outcome, edit_hooks, items
from knockgrid.engine.executors.rows import Plan, layout, rows_at_once, split
from knockgrid.engine.sampled import drawn, uniform_draws
from knockgrid.errors import InputError
from knockgrid.host.cache import Cache, copied, empty_cache, takes_cache
from knockgrid.host.sizes import sizes_of
from knockgrid.passes.edit import Placed
from knockgrid.passes.run import Hooks, Run, keep_measured, run_hooked

Pick = Callable[[int, Tensor], tuple[Tensor, Tensor]]
"""From a measured token and the logits `[row, d_vocab]` there to what rows write, and read next."""
TOLERANCES = {torch.float64: 1e-8, torch.float32: 5e-6}


@final
@dataclass(frozen=True)
class FreeRun:
    """Generation under persistent edits, batched over the cells of a prompt.

    Row 0 is never edited and is given the clean tokens; if its logits differ from those of the
    clean run, the cache of this model cannot be trusted and the run ends. In `sampled_runs` every
    row, the unedited one too, draws its tokens at `temperature`, by numbers that all rows share;
    there its first and its last text are held to one pass over the whole text. With `cached=False`,
    or on a model that takes no cache, every step runs over the whole sequence again.

    Limits: costs one whole pass over the prompt per cell, which the staircase saves.
    """

    name: str = "free_run"
    max_rows: int | None = None
    cached: bool = True
    needs_kv: bool = False
    max_bytes: int | None = None
    sampled_runs: int | None = None
    temperature: float = 1.0
    seed: int = 0

    def __call__(
        self, model: TransformerBridge, runs: Sequence[Run], cells: Sequence[Cell]
    ) -> Iterator[Outcome]:
        for plan in self.plans(model, runs, cells):
            index = plan.items[0].run
            run = runs[index]
            greedy, prompt = self.sampled_runs is None, None
            last = (self.sampled_runs or 1) - 1
            for number in range(last + 1):
                first, past = prompt or self.prompt_step(model, run, plan)
                again = None if greedy else copied(past)
                prompt = None if again is None else (first, again)
                logits, tokens = generate(model, run, plan, past, first, self.pick(run, number))
                null, written = logits[0], [tuple(row) for row in tokens.tolist()]
                clean = None if greedy else written[0]
                check_null(run, run.logits if greedy else run.logits[:1], null)
                # a cache that lies shows at later tokens, one that is no true copy in later texts
                if clean is not None and past is not None and number in (0, last):
                    check_null(run, in_one_pass(model, run, clean), null)
                for item in plan.items:
                    row = plan.row[id(item)]
                    yield Outcome(item.cell, item.sample, logits[row], null, written[row], clean)

    def prompt_step(
        self, model: TransformerBridge, run: Run, plan: Plan
    ) -> tuple[Tensor, Cache | None]:
        """Logits after the prompt, and its cache, from which every text of a plan goes on."""
        past = empty_cache(model) if self.cached and takes_cache(model) else None
        ids = run.ids[: run.n_prompt].expand(len(plan.row_prompt), -1)
        return step(model, run, plan, ids, 0, past), past

    def pick(self, run: Run, number: int) -> Pick:
        """What gives every row its own token, and the one that is fed."""
        if self.sampled_runs is None:
            return partial(greedily, run)
        draws = uniform_draws(self.seed, run.prompt, number, run.n_tokens)

        def sampled(at: int, logits: Tensor) -> tuple[Tensor, Tensor]:
            own = drawn(logits, self.temperature, draws[at])
            return own, own

        return sampled

    def plans(
        self, model: TransformerBridge, runs: Sequence[Run], cells: Sequence[Cell]
    ) -> Iterator[Plan]:
        """The batches of rows that cells are generated in, each of one prompt."""
        cached = self.cached and takes_cache(model)
        bounds = (self.max_rows, self.max_bytes)
        todo = sorted(items(cells), key=lambda item: item.run)
        for index, group in groupby(todo, key=lambda item: item.run):
            length, n_tokens = len(runs[index].ids), runs[index].n_tokens
            # A row keeps its own cache, and the logits of the steps before.
            kept = sizes_of(model).cache(length) if cached else 0
            suffix = runs[index].n_prompt if cached else length
            limit = rows_at_once(model, length, suffix, 2 * n_tokens, bounds, kept)
            for part in split(list(group), limit):
                yield layout(0, part)


def greedily(run: Run, at: int, logits: Tensor) -> tuple[Tensor, Tensor]:
    """The most probable tokens; the unedited row reads the clean run's."""
    own, end = logits.argmax(-1), run.n_prompt + at
    fed = own.clone()
    if end < len(run.ids):
        fed[0] = run.ids[end]
    return own, fed


def generate(
    model: TransformerBridge, run: Run, plan: Plan, past: Cache | None, first: Tensor, pick: Pick
) -> tuple[Tensor, Tensor]:
    """Logits `[row, token, d_vocab]` and own tokens `[row, token]` of every row of a plan.

    `first` are the logits after the prompt, `past` is the cache of it, where there is one.
    """
    ids = run.ids[: run.n_prompt].expand(len(plan.row_prompt), -1)
    found, written = [first], list[Tensor]()
    for end in range(run.n_prompt, run.n_prompt + run.n_tokens):
        if end > run.n_prompt:
            start = 0 if past is None else end - 1
            found.append(step(model, run, plan, ids[:, start:], start, past))
        own, fed = pick(end - run.n_prompt, found[-1])
        written.append(own.to(ids.device))
        ids = torch.cat([ids, fed.to(ids.device)[:, None]], dim=1)
    return torch.stack(found, dim=1), torch.stack(written, dim=1)


def step(
    model: TransformerBridge, run: Run, plan: Plan, ids: Tensor, start: int, past: Cache | None
) -> Tensor:
    """Logits `[row, d_vocab]` after some tokens of every row, the first of them at `start`."""
    end = start + ids.shape[1]
    placed = [
        Placed(edit, plan.row[id(item)], start, end) for item in plan.items for edit in item.edits
    ]
    hooks = edit_hooks(model, None if run.noise is None else run.noise[start:end], placed)
    hooks.append(("unembed.hook_in", keep_measured(slice(-1, None))))
    with torch.inference_mode():
        return run_hooked(model, ids, hooks, past)[:, -1]


def in_one_pass(model: TransformerBridge, run: Run, text: Sequence[int]) -> Tensor:
    """Logits `[token, d_vocab]` of the unedited model that write a text, without a cache."""
    ids = torch.cat([run.ids[: run.n_prompt], run.ids.new_tensor(text[:-1])])
    hooks: Hooks = [("unembed.hook_in", keep_measured(slice(run.n_prompt - 1, None)))]
    with torch.inference_mode():
        return run_hooked(model, ids[None], hooks)[0]


def check_null(run: Run, clean: Tensor, logits: Tensor) -> None:
    """Refuse a cache under which the unedited row is not the clean run."""
    apart = float(evaluate([js], clean, logits[: len(clean)])["js"].max())
    if not apart <= TOLERANCES.get(logits.dtype, 1e-2):
        raise InputError(
            f"generating prompt {run.prompt.id!r} step by step is {apart:.1e} in JS away from the "
            "clean run on this model; use mode='persistent', or executor='reference' for steps "
            "without a cache"
        )


free_run = FreeRun()
