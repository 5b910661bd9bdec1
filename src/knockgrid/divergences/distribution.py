"""The next-token distribution of one run, and the tokens that count as the answer."""

from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def nan_rows(logits: Float[Tensor, "*row d_vocab"]) -> Bool[Tensor, "*row"]:
    """Which rows of logits are no distribution: a NaN, a +inf, or -inf for every token.

    It does not wait for the device; call `.any()` on the answer once per batch.
    """
    return ~logits.amax(-1).isfinite()


def summed(terms: Float[Tensor, "*row d_vocab"]) -> Float[Tensor, "*row"]:
    """Sum over the vocabulary, to the last digits and in the same order alone and in a batch.

    Torch adds up in a tree of many lanes, which keeps float32's digits; but it cuts the sum of a
    single row to its threads, so that such a row is given to it twice.
    """
    if terms.numel() > terms.shape[-1] or torch.get_num_threads() == 1:
        return terms.sum(-1)
    return terms.expand(2, *terms.shape).sum(-1)[0]


class Distribution:
    """The next-token distributions of one run, a row each; every term is computed once.

    The logits `[*row, d_vocab]` may be raw or normalised. A -inf is a token that cannot occur. Rows
    that `nan_rows` names give NaN in every measure.
    """

    def __init__(self, logits: Float[Tensor, "*row d_vocab"]) -> None:
        self.logits = logits
        self._split: tuple[AnswerSet, Distribution, Distribution] | None = None

    @cached_property
    def softmax(self) -> Float[Tensor, "*row d_vocab"]:
        """Probabilities up to a factor: torch adds them up in eight lanes on a CPU, and rounds."""
        return self.logits.softmax(-1)

    @cached_property
    def whole(self) -> Float[Tensor, "*row"]:
        """What these sum to, 1.00003 or so."""
        return summed(self.softmax)

    @cached_property
    def p(self) -> Float[Tensor, "*row d_vocab"]:
        """Probability of every token."""
        return self.softmax / self.whole[..., None]

    @cached_property
    def top_logit(self) -> Float[Tensor, "*row"]:
        """The largest logit."""
        return self.logits.amax(-1)

    @cached_property
    def top_logp(self) -> Float[Tensor, "*row"]:
        """Log-probability of the most likely token, in nats."""
        return (self.softmax.amax(-1) / self.whole).log()

    @cached_property
    def logp(self) -> Float[Tensor, "*row d_vocab"]:
        """Log-probability of every token, in nats."""
        return (self.logits - self.top_logit[..., None]) + self.top_logp[..., None]

    @cached_property
    def token(self) -> Int[Tensor, "*row"]:
        """The most likely token."""
        return self.logits.argmax(-1)

    def logp_of(self, token: Int[Tensor, "..."]) -> Float[Tensor, "*row"]:
        """Log-probability of one token per row, in nats; NaN for token -1."""
        logp = (self._logit_of(token) - self.top_logit) + self.top_logp
        return logp.masked_fill(token < 0, torch.nan)

    def logit_of(self, token: Int[Tensor, "..."]) -> Float[Tensor, "*row"]:
        """Logit of one token per row; NaN for token -1, and where a row is no distribution."""
        return self._logit_of(token).masked_fill(
            (token < 0) | ~self.top_logit.isfinite(), torch.nan
        )

    def logp_within(self, whole: "Distribution") -> Float[Tensor, "*row"]:
        """Log-probability, in the whole distribution, of the tokens this one is cut out of it for.

        In nats, -inf where the whole excludes them all.
        """
        logp = ((self.top_logit - whole.top_logit) - self.top_logp) + whole.top_logp
        return logp.masked_fill(self.top_logit == -torch.inf, -torch.inf).clamp(max=0)

    def rank_of(self, token: Int[Tensor, "..."]) -> Float[Tensor, "*row"]:
        """How many tokens are strictly more likely than one token per row; NaN for token -1."""
        logits = self.logits.detach()
        # Counted in floats: a bool tensor takes five times as long to make and four to sum. The
        # count is exact up to 2**24 tokens.
        above = torch.empty_like(logits)
        rank = torch.gt(logits, self._logit_of(token).detach()[..., None], out=above).sum(-1)
        return rank.masked_fill((token < 0) | ~self.top_logit.isfinite(), torch.nan)

    def _logit_of(self, token: Int[Tensor, "..."]) -> Float[Tensor, "*row"]:
        rows = torch.broadcast_shapes(token.shape, self.logits.shape[:-1])
        index = token.clamp(min=0).expand(rows)
        return self.logits.expand(*rows, -1).gather(-1, index[..., None])[..., 0]

    def split(self, answers: "AnswerSet") -> "tuple[Distribution, Distribution]":
        """The distribution among the answers, `[*row, alias]`, and that among all other tokens.

        Kept for the last set asked for: one clean run serves many chunks.
        """
        if self._split is None or self._split[0] is not answers:
            index = answers.index
            rows = torch.broadcast_shapes(index.shape[:-1], self.logits.shape[:-1])
            index = index.expand(*rows, -1)
            logits = self.logits.expand(*rows, -1)
            inside = logits.gather(-1, index).masked_fill(answers.extra, -torch.inf)
            outside = logits.scatter(-1, index, -torch.inf)
            self._split = answers, Distribution(inside), Distribution(outside)
        return self._split[1:]


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
