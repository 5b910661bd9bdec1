"""All measures of many rows, a few rows at a time."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from knockgrid.divergences.distribution import Distribution
from knockgrid.divergences.divergence import Divergence
from knockgrid.divergences.pair import Pair, answer_set, working_dtype
from knockgrid.divergences.refuse import refuse_shapes

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
    chunk: int | None = None,
) -> dict[str, Float[Tensor, " row"]]:
    """Every measure of every row by name, in nats, without a check and without a device sync.

    A row that `nan_rows` names comes out as NaN: check once per batch.

    Args:
        measures: what to measure; the terms they share are computed once per chunk.
        clean: clean logits, `[d_vocab]` or `[1, d_vocab]` for all rows, or `[row, d_vocab]`.
        intervened: intervened logits, any float dtype; upcast a chunk at a time.
        dtype: float32 or float64; default: float64 where an input is, else float32.
        answer: token ids, one for all rows or one each, -1 where there is none.
        answers: sets of them, `[alias]` for all rows or `[row, alias]`, the best first and -1 for
            padding; either stands for the other where only one is given.
        chunk: rows at a time; default by device. The values do not depend on it.

    Raises:
        InputError: for vocabularies or rows that do not fit.

    Example:
        >>> from knockgrid.divergences import js, tv
        >>> evaluate([js, tv], torch.tensor([0.0, 1.0]), torch.zeros(2, 2))
        {'js': tensor([0.0285, 0.0285]), 'tv': tensor([0.2311, 0.2311])}
    """
    refuse_shapes(clean, intervened, answer, answers)
    dtype = dtype or working_dtype(clean, intervened)
    n_rows, d_vocab = intervened.shape
    chunk = chunk or chunk_rows(d_vocab, intervened.device)
    sets = answer_set(answer, answers)
    one = Distribution(clean.to(dtype).reshape(1, -1)) if clean.numel() == d_vocab else None
    values = []
    for start in range(0, max(n_rows, 1), chunk):
        rows = slice(start, start + chunk)
        pair = Pair(
            one or Distribution(clean[rows].to(dtype)),
            Distribution(intervened[rows].to(dtype)),
            None if sets is None else sets.rows(rows),
        )
        values.append([measure.formula(pair) for measure in measures])
    columns = zip(*values, strict=True)
    return {m.name: torch.cat(column) for m, column in zip(measures, columns, strict=True)}


def chunk_rows(d_vocab: int, device: torch.device) -> int:
    """How many rows to measure at a time.

    Example:
        >>> chunk_rows(49_152, torch.device("cpu")), chunk_rows(49_152, torch.device("cuda"))
        (2, 341)
    """
    numbers = _CHUNK_CPU if device.type == "cpu" else _CHUNK_ACCELERATOR
    return max(1, numbers // d_vocab)
