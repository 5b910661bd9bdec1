"""Logits that cannot be compared, refused before any measure sees them."""

from typing import Any, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from knockgrid.divergences.distribution import nan_rows
from knockgrid.errors import InputError


class Given(NamedTuple):
    """What a comparison is given beside its two runs: token ids, and the logits of a third run."""

    answer: Int[Tensor, "..."] | None = None
    answers: Int[Tensor, "..."] | None = None
    foil: Int[Tensor, "..."] | None = None
    corrupted: Float[Tensor, "..."] | None = None


NOTHING = Given()


def refuse_values(
    clean: Float[Tensor, "..."], intervened: Float[Tensor, "..."], given: Given = NOTHING
) -> None:
    """Refuse rows that are no distribution and ids that are no token; waits for the device."""
    runs = {"clean": clean, "intervened": intervened, "corrupted": given.corrupted}
    for run, logits in runs.items():
        if logits is None:
            continue
        rows = nan_rows(logits).nonzero()
        if len(rows):
            where = f"row {tuple(rows[0].tolist())} of " if logits.ndim > 1 else ""
            raise InputError(
                f"{where}the {run} logits ({len(rows)} in all) is no distribution: it holds a NaN "
                "or +inf, or -inf for every token; rerun that cell in a wider dtype or leave it out"
            )
    d_vocab = intervened.shape[-1]
    several = (("answer", given.answer), ("answer", given.answers), ("foil", given.foil))
    for what, tokens in several:
        if tokens is None:
            continue
        outside = tokens[(tokens < -1) | (tokens >= d_vocab)]
        if len(outside):
            raise InputError(
                f"{what} {int(outside[0])} is no token: ids run from 0 to {d_vocab - 1}, and -1 "
                f"stands for no {what}"
            )


def refuse_shapes(
    logits_p: Float[Tensor, "..."], logits_q: Float[Tensor, "..."], given: Given = NOTHING
) -> None:
    """Refuse runs that do not line up token by token and row by row."""
    shapes = dict[str, Any]()
    for run, logits in (("clean", logits_p), ("corrupted", given.corrupted)):
        if logits is None:
            continue
        _refuse_vocabularies(run, logits, logits_q)
        shapes[f"{run} logits"] = logits.shape[:-1]
    for what, tokens in (("answers", given.answer), ("foils", given.foil)):
        if tokens is not None:
            shapes[what] = tokens.shape
    if given.answers is not None:
        shapes["sets of answers"] = _rows_of_sets(given.answers)
    rows = logits_q.shape[:-1]
    for what, shape in shapes.items():
        # rows may be missing or 1, where one serves all; otherwise they must be the same
        fits = [n in (1, m) for n, m in zip(shape[::-1], rows[::-1], strict=False)]
        if len(shape) > len(rows) or not all(fits):
            raise InputError(
                f"the {what} have rows of shape {tuple(shape)} and the intervened logits"
                f" {tuple(rows)}: give one row for all, or one each"
            )


def _refuse_vocabularies(
    run: str, logits: Float[Tensor, "..."], logits_q: Float[Tensor, "..."]
) -> None:
    n_p, n_q = logits.shape[-1], logits_q.shape[-1]
    if n_p != n_q:
        raise InputError(
            f"the {run} logits have {n_p} tokens and the intervened logits {n_q}: compare runs of"
            " one model, with one vocabulary"
        )


def _rows_of_sets(answers: Int[Tensor, "..."]) -> Any:
    """The shape of the rows of sets of answers."""
    if answers.ndim == 0 or answers.shape[-1] == 0:
        raise InputError(
            f"the sets of answers have shape {tuple(answers.shape)}: give token ids "
            "[*row, alias], -1 where there is none"
        )
    return answers.shape[:-1]
