"""Logits that cannot be compared, refused before any measure sees them."""

from jaxtyping import Float, Int
from torch import Tensor

from knockgrid.divergences.distribution import nan_rows
from knockgrid.errors import InputError


def refuse_values(
    clean: Float[Tensor, "..."],
    intervened: Float[Tensor, "..."],
    *answers: Int[Tensor, "..."] | None,
) -> None:
    """Refuse rows that are no distribution and ids that are no token; waits for the device."""
    for run, logits in (("clean", clean), ("intervened", intervened)):
        rows = nan_rows(logits).nonzero()
        if len(rows):
            where = f"row {tuple(rows[0].tolist())} of " if logits.ndim > 1 else ""
            raise InputError(
                f"{where}the {run} logits ({len(rows)} in all) is no distribution: it holds a NaN "
                "or +inf, or -inf for every token; rerun that cell in a wider dtype or leave it out"
            )
    d_vocab = intervened.shape[-1]
    for tokens in (one for one in answers if one is not None):
        outside = tokens[(tokens < -1) | (tokens >= d_vocab)]
        if len(outside):
            raise InputError(
                f"answer {int(outside[0])} is no token: ids run from 0 to {d_vocab - 1}, and -1 "
                "stands for no answer"
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
    given = {"clean logits": logits_p.shape[:-1]}
    if answer is not None:
        given["answers"] = answer.shape
    if answers is not None:
        if answers.ndim == 0 or answers.shape[-1] == 0:
            raise InputError(
                f"the sets of answers have shape {tuple(answers.shape)}: give token ids "
                "[*row, alias], -1 where there is none"
            )
        given["sets of answers"] = answers.shape[:-1]
    rows = logits_q.shape[:-1]
    for what, shape in given.items():
        # rows may be missing or 1, where one serves all; otherwise they must be the same
        fits = [n in (1, m) for n, m in zip(shape[::-1], rows[::-1], strict=False)]
        if len(shape) > len(rows) or not all(fits):
            raise InputError(
                f"the {what} have rows of shape {tuple(shape)} and the intervened logits"
                f" {tuple(rows)}: give one row for all, or one each"
            )
