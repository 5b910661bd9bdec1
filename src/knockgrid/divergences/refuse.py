"""Logits that cannot be compared, refused before any measure sees them."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from knockgrid.divergences.distribution import nan_rows
from knockgrid.errors import InputError


def refuse_rows(run: str, logits: Float[Tensor, "..."]) -> None:
    """Refuse rows that are no distribution; this waits for the device."""
    rows = nan_rows(logits).nonzero()
    if len(rows) == 0:
        return
    where = f"row {tuple(rows[0].tolist())} of " if logits.ndim > 1 else ""
    raise InputError(
        f"{where}the {run} logits ({len(rows)} in all) is no distribution: it holds a NaN or +inf,"
        " or -inf for every token; rerun that cell in a wider dtype or leave it out"
    )


def refuse_shapes(
    logits_p: Float[Tensor, "..."],
    logits_q: Float[Tensor, "..."],
    answer: Int[Tensor, "..."] | None = None,
    answers: Int[Tensor, "..."] | None = None,
) -> None:
    """Refuse runs that do not line up token by token and row by row."""
    n_p, n_q = logits_p.shape[-1], logits_q.shape[-1]
    if n_p != n_q:
        raise InputError(
            f"the clean logits have {n_p} tokens and the intervened logits {n_q}: compare runs of"
            " one model, with one vocabulary"
        )
    _refuse_rows_of("clean logits", logits_p.shape[:-1], logits_q.shape[:-1])
    if answer is not None:
        _refuse_rows_of("answers", answer.shape, logits_q.shape[:-1])
    if answers is not None:
        if answers.ndim == 0 or answers.shape[-1] == 0:
            raise InputError(
                f"the sets of answers have shape {tuple(answers.shape)}: give token ids "
                "[*row, alias], -1 where there is none"
            )
        _refuse_rows_of("sets of answers", answers.shape[:-1], logits_q.shape[:-1])


def refuse_answer(answer: Int[Tensor, "..."], d_vocab: int) -> None:
    """Refuse answers outside the vocabulary; this waits for the device."""
    outside = answer[(answer < -1) | (answer >= d_vocab)]
    if len(outside) > 0:
        raise InputError(
            f"answer {int(outside[0])} is no token: ids run from 0 to {d_vocab - 1}, and -1 stands"
            " for no answer"
        )


def _refuse_rows_of(what: str, given: torch.Size, rows: torch.Size) -> None:
    """Rows may be missing or 1, where one serves all; otherwise they must be the same."""
    padded = (1,) * (len(rows) - len(given)) + tuple(given)
    if len(padded) != len(rows) or any(n not in (1, m) for n, m in zip(padded, rows, strict=True)):
        raise InputError(
            f"the {what} have rows of shape {tuple(given)} and the intervened logits"
            f" {tuple(rows)}: give one row for all, or one each"
        )
