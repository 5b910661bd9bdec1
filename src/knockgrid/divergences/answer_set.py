"""The tokens that count as the answer, row by row."""

from functools import cached_property

from jaxtyping import Bool, Int
from torch import Tensor


class AnswerSet:
    """A set of token ids `[*row, alias]` per row, padded with -1; a token may stand there twice.

    `best` is the token `[*row]` that measures of a single answer read; by default the first.
    """

    def __init__(
        self, tokens: Int[Tensor, "*row alias"], best: Int[Tensor, "..."] | None = None
    ) -> None:
        self.tokens = tokens
        self.best = tokens[..., 0] if best is None else best

    @cached_property
    def _sorted(self) -> Int[Tensor, "*row alias"]:
        return self.tokens.sort(-1).values

    @cached_property
    def empty(self) -> Bool[Tensor, "*row"]:
        """Which rows have no answer."""
        return self._sorted[..., -1] < 0

    @cached_property
    def index(self) -> Int[Tensor, "*row alias"]:
        """The tokens, each at least once, without a -1: what may be gathered and scattered."""
        ids = self._sorted
        return ids.where(ids >= 0, ids[..., -1:]).clamp(min=0)

    @cached_property
    def extra(self) -> Bool[Tensor, "*row alias"]:
        """Which entries of `index` are padding or a repetition."""
        ids = self._sorted
        again = ids.new_zeros(ids.shape).bool()
        again[..., 1:] = ids[..., 1:] == ids[..., :-1]
        return again | (ids < 0)

    def rows(self, rows: slice) -> "AnswerSet":
        """Some rows; the set itself where one row serves all, so that its terms are kept."""
        one_set, one_best = serves_all(self.tokens, 2), serves_all(self.best, 1)
        if one_set and one_best:
            return self
        tokens = self.tokens if one_set else self.tokens[rows]
        return AnswerSet(tokens, self.best if one_best else self.best[rows])


def serves_all(tokens: Int[Tensor, "..."], n_dims: int) -> bool:
    """Whether token ids are one row for all, which has fewer dimensions or one entry."""
    return tokens.ndim < n_dims or len(tokens) == 1
