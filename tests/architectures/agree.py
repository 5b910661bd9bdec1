"""Holds executors against the reference executor, kind by kind."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from knockgrid.divergences import js
from knockgrid.divergences.evaluate import evaluate
from knockgrid.edits.layers import layer_list
from knockgrid.engine.bind import Bound, bind
from knockgrid.engine.executors import rectangle, reference, staircase
from knockgrid.engine.settings import Settings
from knockgrid.engine.setup import with_statistics
from knockgrid.passes.prepared import Prepared, batches, prepare
from knockgrid.passes.unembed import Unembedding

EXECUTORS = {one.name: one for one in (staircase, rectangle, reference)}
Effects = dict[tuple[int, int], Tensor]


@dataclass(frozen=True)
class Agreement:
    """One intervention on one executor: its largest effect and its largest distance."""

    name: str
    executor: str
    effect: float
    apart: float
    cells: int


def prepared(
    model,
    prompts,
    interventions,
    *,
    layers="all",
    n_tokens=1,
    persistent=False,
    samples=1,
    direction="noising",
    bos=True,
    keep_kv=True,
    anywhere=False,
) -> tuple[list[Prepared], Settings]:
    """What `sweep` makes of its arguments before preflight."""
    chosen = layer_list(layers, int(model.cfg.n_layers))
    ready = prepare(model, prompts, bos, n_tokens)
    settings = Settings(
        interventions, chosen, n_tokens, samples, direction, persistent, bos, 0, keep_kv
    )
    settings = replace(settings, anywhere=anywhere)
    return ready, with_statistics(model, ready, settings)


def bound(model, prompts, interventions, **options) -> list[Bound]:
    """Every batch, bound."""
    ready, settings = prepared(model, prompts, interventions, **options)
    order = {one.prompt.id: i for i, one in enumerate(ready)}
    return [
        bind(model, batch, [order[one.prompt.id] for one in batch], settings)
        for batch in batches(ready)
    ]


def effects(model, batch: Bound, cells, executor) -> Effects:
    """JS of every sample of every cell at every measured token."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*edit is discarded.*")
        return {
            (o.cell.index, o.sample): evaluate([js], o.null, o.logits)["js"]
            for o in executor(model, batch.runs, cells)
        }


def effects_anywhere(model, batch: Bound, cells, executor) -> Effects:
    """JS of every sample of every cell at every position of the text."""
    unembed, found = Unembedding(model), {}
    for one in executor.states(model, batch.runs, cells):
        whole = torch.cat([one.null[: one.start], one.states])
        apart = evaluate([js], unembed(one.null), unembed(whole))["js"]
        found[one.cell.index, one.sample] = apart
    return found


def compare(
    model, executors: Sequence, prompts, interventions, effects=effects, **options
) -> Iterator[Agreement]:
    """Each intervention alone, on each executor, against the reference.

    The reference's runs are recorded whole, without keys and values; the others' as they need.
    """
    whole = bound(model, prompts, interventions, keep_kv=False, **options)
    theirs = [effects(model, batch, batch.cells, reference) for batch in whole]
    fast = any(executor.needs_kv for executor in executors)
    mine_ = bound(model, prompts, interventions, **options) if fast else whole
    for one in interventions:
        for executor in executors:
            effect, apart, n = 0.0, 0.0, 0
            for batch, expected in zip(mine_, theirs, strict=True):
                cells = [c for c in batch.cells if c.intervention.name == one.name]
                for key, mine in effects(model, batch, cells, executor).items():
                    effect = max(effect, float(expected[key].max()))
                    apart = max(apart, float((mine - expected[key]).abs().nan_to_num(9.9).max()))
                    n += 1
            yield Agreement(one.name, executor.name, effect, apart, n)


def assert_agree(found: Iterator[Agreement], within: float, above: float) -> None:
    """All within the bound, and each with an effect that could have been missed."""
    found = list(found)
    assert found
    wrong = [one for one in found if not one.apart <= within]
    assert not wrong, f"not the reference: {wrong}"
    idle = [one for one in found if not (one.effect > above and one.cells)]
    assert not idle, f"no effect, so nothing was shown: {idle}"


def fast(family) -> list:
    """Both forms of the staircase where the family allows them."""
    return [rectangle] + [staircase] * (family.executor == "staircase")


def null_and_clean(model, batch: Bound, executor) -> float:
    """The largest difference between the unedited row of a pass and the recorded clean run."""
    return max(
        float((o.null - batch.runs[o.cell.runs[o.sample]].logits).abs().max())
        for o in executor(model, batch.runs, batch.cells)
    )


def seeded(*shape: int) -> Tensor:
    """Some fixed numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
