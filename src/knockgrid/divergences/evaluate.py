"""All measures of many rows, a few rows at a time."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from knockgrid.divergences.distribution import Distribution, serves_all
from knockgrid.divergences.divergence import Divergence
from knockgrid.divergences.pair import Pair, answer_set, working_dtype
from knockgrid.divergences.refuse import Given, refuse_shapes

# Numbers per term: on a CPU the dozen terms of a chunk stay in a core's cache, elsewhere launches
# should not dominate while the terms stay below a gigabyte.
_CHUNK_CPU = 2**17
_CHUNK_ACCELERATOR = 2**24


def evaluate(
    measures: Sequence[Divergence],
    clean: Float[Tensor, "..."],
    intervened: Float[Tensor, "row d_vocab"],
    *,
    dtype: torch.dtype | None = None,
    answer: Int[Tensor, "..."] | None = None,
    answers: Int[Tensor, "..."] | None = None,
    foil: Int[Tensor, "..."] | None = None,
    corrupted: Float[Tensor, "..."] | None = None,
    chunk: int | None = None,
) -> dict[str, Float[Tensor, " row"]]:
    """Every measure of every row by name, in nats, without a check and without a device sync.

    A row that `nan_rows` names comes out as NaN: check once per batch. One row of clean logits,
    `answer` (token ids, -1: none), `answers` (sets `[row, alias]` of them), `foil` (token ids) or
    `corrupted` (logits of the run that values come from) serves all rows. The intervened logits
    are upcast `chunk` rows at a time, on which the values do not depend.
    """
    refuse_shapes(clean, intervened, Given(answer, answers, foil, corrupted))
    dtype = dtype or working_dtype(clean, intervened)
    n_rows, d_vocab = intervened.shape
    chunk = chunk or chunk_rows(d_vocab, intervened.device)
    sets = answer_set(answer, answers)
    clean_rows, third = _by_rows(clean, dtype), _by_rows(corrupted, dtype)
    values = []
    for start in range(0, max(n_rows, 1), chunk):
        rows = slice(start, start + chunk)
        pair = Pair(
            clean_rows(rows),
            Distribution(intervened[rows].to(dtype)),
            None if sets is None else sets.rows(rows),
            foil if foil is None or serves_all(foil, 1) else foil[rows],
            third(rows),
        )
        values.append([measure.formula(pair) for measure in measures])
    columns = zip(*values, strict=True)
    return {m.name: torch.cat(column) for m, column in zip(measures, columns, strict=True)}


def _by_rows(logits: Any, dtype: torch.dtype) -> Callable[[slice], Any]:
    """Some rows of a run's logits as a distribution, made once where one row serves all.

    Without logits there is none.
    """
    if logits is None:
        return lambda rows: None
    if logits.numel() == logits.shape[-1]:
        one = Distribution(logits.to(dtype).reshape(1, -1))
        return lambda rows: one
    return lambda rows: Distribution(logits[rows].to(dtype))


def chunk_rows(d_vocab: int, device: torch.device) -> int:
    """How many rows to measure at a time."""
    numbers = _CHUNK_CPU if device.type == "cpu" else _CHUNK_ACCELERATOR
    return max(1, numbers // d_vocab)
