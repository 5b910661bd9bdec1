"""Oracle: what the cells of a trial must give, by the reference executor."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.divergences import js
from knockgrid.divergences.evaluate import evaluate
from knockgrid.edits.intervention import Cell
from knockgrid.engine.executors import reference
from knockgrid.engine.executors.executor import Outcome
from knockgrid.engine.executors.reference import forward, in_rows
from knockgrid.engine.memory import is_out_of_memory
from knockgrid.engine.trial import Trial
from knockgrid.passes.run import Run


@dataclass(frozen=True)
class Tolerance:
    """How far an executor may be from the reference, in nats of JS, by dtype."""

    agree: float
    no_op: float


SINGLE = Tolerance(agree=5e-6, no_op=1e-9)
TOLERANCES = {torch.float64: Tolerance(agree=1e-8, no_op=1e-12), torch.float32: SINGLE}
HALF = Tolerance(agree=1e-2, no_op=1e-4)


@dataclass(frozen=True)
class Seen:
    """One cell, measured: its logits and effect, and how far its null row is from the clean run."""

    logits: Tensor
    effect: float
    null: float


def expected_of(model: TransformerBridge, trial: Trial, max_rows: int) -> dict[int, Seen]:
    """What the cells must give, by the reference executor.

    Rows of whole passes do for passes of their own where the cell of the greatest effect is, to
    the same tolerance, what it is alone.
    """
    tried = [*trial.edited(*trial.cells), *trial.pair]
    agree = tolerance_of(model).agree
    try:
        seen = measure(model, trial.runs, tried, partial(in_rows, max_rows=max_rows))
        cell = max(tried, key=lambda cell: seen[cell.index].effect)
        alone = forward(model, trial.runs[cell.runs[0]], cell.samples[0], cell.n_rows)
    except Exception as error:
        if is_out_of_memory(error):
            raise
    else:
        null = largest(one.null for one in seen.values())
        if null <= agree and js_of(alone, seen[cell.index].logits) <= agree:
            return seen
    return measure(model, trial.runs, tried, reference)


def measure(
    model: TransformerBridge,
    runs: Sequence[Run],
    cells: Sequence[Cell],
    carry_out: Callable[..., Iterable[Outcome]],
) -> dict[int, Seen]:
    """Every cell by index: the largest values over its measured tokens."""
    found: dict[int, Seen] = {}
    with warnings.catch_warnings():
        # A bridge that discards an edit warns once per hook; the refusal says it once, with a name.
        warnings.filterwarnings("ignore", message=".*edit is discarded.*")
        for outcome in carry_out(model, runs, cells):
            clean = runs[outcome.cell.runs[outcome.sample]].logits
            found[outcome.cell.index] = Seen(
                logits=outcome.logits,
                effect=js_of(outcome.null, outcome.logits),
                null=js_of(clean, outcome.null),
            )
    return found


def js_of(one: Tensor, other: Tensor) -> float:
    """The largest JS over the measured tokens."""
    return float(evaluate([js], one, other)["js"].max())


def tolerance_of(model: TransformerBridge) -> Tolerance:
    """The tolerance of a model's dtype."""
    return TOLERANCES.get(next(model.original_model.parameters()).dtype, HALF)


def largest(values: Iterable[float]) -> float:
    """The largest value, NaN if there is one, 0 if there are none."""
    return max(values, key=lambda value: (value != value, value), default=0.0)
