"""The terms that the measures share, each computed once per comparison."""

from dataclasses import dataclass
from functools import cached_property, reduce
from math import factorial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from knockgrid.divergences.distribution import AnswerSet, Distribution
from knockgrid.errors import InputError

Rows = Float[Tensor, "*row"]
# From here on |tanh(d/2)| is exactly 1, in float64 too, so a longer gap changes no bracket that it
# is cut in; it only keeps infinity minus infinity out of them.
SATURATED = 64.0
_CLOSE = 0.5  # where the probabilities of a side are near each other, in nats


class Pair:
    """Rows of a reference run p and of an intervened run q, and the terms their measures share.

    All measures are sums over the vocabulary of m times a bracket that is never negative, with
    m = (p + q)/2, d = log p - log q and t = tanh(d/2), so that p = m(1 + t) and q = m(1 - t). No
    bracket subtracts numbers that are nearly equal when p and q are, and identical rows give 0.
    The rows of the reference run broadcast against those of the intervened run.
    """

    def __init__(
        self,
        clean: Distribution,
        intervened: Distribution,
        answers: AnswerSet | None = None,
        foil: Int[Tensor, "..."] | None = None,
        corrupted: Distribution | None = None,
    ) -> None:
        self.clean, self.intervened, self._answers = clean, intervened, answers
        self._foil, self._corrupted = foil, corrupted

    @classmethod
    def from_logits(
        cls,
        logits_p: Float[Tensor, "..."],
        logits_q: Float[Tensor, "..."],
        *,
        dtype: torch.dtype | None = None,
        answer: Int[Tensor, "..."] | None = None,
        answers: Int[Tensor, "..."] | None = None,
        foil: Int[Tensor, "..."] | None = None,
        corrupted: Float[Tensor, "..."] | None = None,
    ) -> "Pair":
        """Two runs as float32, or as float64 where one of them is or `dtype` asks for it.

        `answer` is one token per row, `answers` a set of them; one stands for the other. `foil` is
        one token per row, `corrupted` the logits of a third run.
        """
        dtype = dtype or working_dtype(logits_p, logits_q)
        clean, intervened = Distribution(logits_p.to(dtype)), Distribution(logits_q.to(dtype))
        third = None if corrupted is None else Distribution(corrupted.to(dtype))
        return cls(clean, intervened, answer_set(answer, answers), foil, third)

    @property
    def p(self) -> Float[Tensor, "..."]:
        """Probability of every token in the reference run."""
        return self.clean.p

    @property
    def q(self) -> Float[Tensor, "..."]:
        """Probability of every token in the intervened run."""
        return self.intervened.p

    @property
    def answers(self) -> AnswerSet:
        """The tokens that count as the answer."""
        if self._answers is None:
            raise InputError("this measure needs the answer's token ids: give answer=ids, -1: none")
        return self._answers

    @property
    def answer(self) -> Int[Tensor, "..."]:
        """The token id of the (best) answer, -1 where there is none."""
        return self.answers.best

    @property
    def foil(self) -> Int[Tensor, "..."]:
        """The token id of the foil, a wrong answer; -1 where there is none."""
        if self._foil is None:
            raise InputError("this measure needs the foil's token ids: give foil=ids, -1: none")
        return self._foil

    @property
    def corrupted(self) -> Distribution:
        """The run that the edit's values come from, or would in the other direction."""
        if self._corrupted is None:
            raise InputError(
                "this measure needs the run that values come from: give corrupted=logits"
            )
        return self._corrupted

    def preference(self, run: Distribution) -> Rows:
        """The logit of the answer minus that of the foil in a run; NaN where either is missing."""
        return run.logit_of(self.answer) - run.logit_of(self.foil)

    @cached_property
    def d(self) -> Float[Tensor, "*row d_vocab"]:
        """log p - log q in nats: 0 where neither run can say the token, infinite where one cannot.

        The raw logits are subtracted first: near each other they differ without rounding, where
        two log-probabilities around -10 would each be off by 5e-7.
        """
        p, q = self.clean, self.intervened
        shift = (p.top_logit - q.top_logit) - (p.top_logp - q.top_logp)
        d = (p.logits - q.logits).sub_(shift[..., None])
        return d.nan_to_num_(nan=0.0, posinf=torch.inf, neginf=-torch.inf)

    @cached_property
    def t(self) -> Float[Tensor, "*row d_vocab"]:
        """tanh(d/2) = (p - q)/(p + q)."""
        return (self.d / 2).tanh_()

    @cached_property
    def t_size(self) -> Float[Tensor, "*row d_vocab"]:
        """|t| = |p - q|/(p + q)."""
        return self.t.abs()

    @cached_property
    def mass(self) -> Float[Tensor, "*row d_vocab"]:
        """2m = p + q, above 0 so that a token too rare for the dtype keeps an infinite KL."""
        p, q = self.p.clamp(min=torch.finfo(self.p.dtype).tiny), self.intervened
        return torch.addcdiv(p, q.softmax, q.whole[..., None])

    def total(self, bracket: Float[Tensor, "*row d_vocab"]) -> Rows:
        """Sum over the vocabulary of m times a bracket."""
        return (self.mass * bracket).sum(-1) / 2

    @cached_property
    def kl(self) -> Rows:
        """KL(p||q) = sum m [t d + (d - 2t)]."""
        d, t = self.d.clamp(min=-SATURATED), self.t  # a token that p lacks leaves it finite
        return self.total(d.sub(t, alpha=2).addcmul_(t, d))

    @property
    def inside(self) -> "Side":
        """The answers: how likely they are as a whole, and the two runs among them."""
        return self._sides[0]

    @property
    def outside(self) -> "Side":
        """All other tokens: how likely they are as a whole, and the two runs among them."""
        return self._sides[1]

    @cached_property
    def _sides(self) -> "tuple[Side, Side]":
        parts = zip(
            self.clean.split(self.answers), self.intervened.split(self.answers), strict=True
        )
        logs = [(p.logp_within(self.clean), q.logp_within(self.intervened), p, q) for p, q in parts]
        gained = self._gained(*(logp.exp() for logp, *_ in logs))
        sides = []
        for (logp, logq, p, q), more in zip(logs, (gained, -gained), strict=True):
            far = (logp - logq).nan_to_num(nan=0.0, posinf=torch.inf, neginf=-torch.inf)
            # Near each other, two logarithms of sums would leave the rounding of both.
            both = (logp.exp() + logq.exp()).clamp(min=torch.finfo(logp.dtype).tiny)
            near = 2 * (more / both).clamp(-_CLOSE, _CLOSE).atanh()
            sides.append(Side(Pair(p, q), logp, logq, near.where(far.abs() < _CLOSE, far)))
        return sides[0], sides[1]

    def _gained(self, p_in: Float[Tensor, "..."], p_out: Float[Tensor, "..."]) -> Rows:
        """p(A) - q(A) for the answers A, as a sum of differences: its digits do not cancel.

        The same is q - p of the rest. What the two sums differ by is the rounding of the
        normalisers, which adds a multiple of p to each; weighted with each other's p, it is gone.
        """
        index = self.answers.index.expand(*self.d.shape[:-1], -1)
        gained = self.mass * self.t
        inside = gained.gather(-1, index).masked_fill(self.answers.extra, 0).sum(-1)
        return p_out * inside - p_in * gained.scatter_(-1, index, 0).sum(-1)

    def of_answers(self, value: Rows) -> Rows:
        """A value of rows that have an answer and are distributions; NaN for the others."""
        known = self.clean.top_logit.isfinite() & self.intervened.top_logit.isfinite()
        return value.masked_fill(~known | self.answers.empty, torch.nan)


@dataclass(frozen=True, eq=False)
class Side:
    """One part of the vocabulary: both runs' distribution within it, and its own probability.

    `logp` and `logq` are its log-probabilities in nats, -inf where it is impossible; `d` is their
    difference, without cancellation.
    """

    pair: Pair
    logp: Float[Tensor, "..."]
    logq: Float[Tensor, "..."]
    d: Float[Tensor, "..."]

    @property
    def p(self) -> Float[Tensor, "..."]:
        """The probability of this side in the reference run."""
        return self.logp.exp()

    @property
    def q(self) -> Float[Tensor, "..."]:
        """The probability of this side in the intervened run."""
        return self.logq.exp()

    def weighted(self, within: Rows) -> Rows:
        """A divergence within this side times p; 0 where either run excludes the whole side."""
        possible = (self.logp > -torch.inf) & (self.logq > -torch.inf)
        weight = self.p.clamp(min=torch.finfo(self.logp.dtype).tiny)
        return (weight * within).where(possible, 0.0)


def lost(
    p: Float[Tensor, "..."], q: Float[Tensor, "..."], d: Float[Tensor, "..."]
) -> Float[Tensor, "..."]:
    """p (d + exp(-d) - 1) with d = log p - log q, never negative: the terms of KL(p||q).

    For sums over so few terms that rounding errors do not average out: below 1/2, where d and
    exp(-d) - 1 would cancel, their series d^2/2! - d^3/3! + ... - d^11/11! is summed.
    """
    gain = q - p * (1 - d.clamp(min=-SATURATED))
    p = p.clamp(min=torch.finfo(p.dtype).tiny)  # a loss too rare for the dtype is still a loss
    series = torch.zeros_like(d)
    for n in range(11, 1, -1):
        series = (-1) ** n / factorial(n) + series * d
    far = torch.where(d > -16, d + (-d).expm1(), 0.0) * p
    return torch.where(d.abs() < 0.5, p * (series * d.square()), torch.where(d > -16, far, gain))


def answer_set(
    answer: Int[Tensor, "..."] | None, answers: Int[Tensor, "..."] | None
) -> AnswerSet | None:
    """The answers of a comparison: a set, whose first is the best, or a single token per row."""
    if answers is not None:
        return AnswerSet(answers, answer)
    return None if answer is None else AnswerSet(answer[..., None])


def working_dtype(*logits: Tensor) -> torch.dtype:
    """float64 where a run is float64, else float32: halves are upcast before any softmax."""
    return reduce(torch.promote_types, (run.dtype for run in logits), torch.float32)
