"""The terms that the measures share, each computed once per comparison."""

from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from knockgrid._errors import InputError
from knockgrid.divergences._distribution import Distribution

# From here on |tanh(d/2)| is exactly 1, in float64 too, so a longer gap changes no bracket that it
# is cut in; it only keeps infinity minus infinity out of them.
_SATURATED = 64.0


class Pair:
    """Rows of a reference run p and of an intervened run q, and the terms their measures share.

    All measures are sums over the vocabulary of m times a bracket that is never negative, with
    m = (p + q)/2, d = log p - log q and t = tanh(d/2), so that p = m(1 + t) and q = m(1 - t). No
    bracket subtracts numbers that are nearly equal when p and q are, and identical rows give 0.

    Args:
        clean: the reference run; its rows broadcast against those of the intervened run.
        intervened: the run with the edit.
        answer: token ids, `[*row]`, -1 where a row has no answer.

    Example:
        >>> pair = Pair.from_logits(torch.tensor([0.0, 0.0]), torch.tensor([[0.0, -torch.inf]]))
        >>> pair.d
        tensor([[-0.6931,     inf]])
        >>> pair.mass / 2
        tensor([[0.7500, 0.2500]])
    """

    def __init__(
        self,
        clean: Distribution,
        intervened: Distribution,
        answer: Int[Tensor, "..."] | None = None,
    ) -> None:
        self.clean = clean
        self.intervened = intervened
        self._answer = answer

    @classmethod
    def from_logits(
        cls,
        logits_p: Float[Tensor, "..."],
        logits_q: Float[Tensor, "..."],
        *,
        dtype: torch.dtype | None = None,
        answer: Int[Tensor, "..."] | None = None,
    ) -> "Pair":
        """Two runs as float32, or as float64 where one of them is or `dtype` asks for it."""
        dtype = dtype or working_dtype(logits_p, logits_q)
        return cls(Distribution(logits_p.to(dtype)), Distribution(logits_q.to(dtype)), answer)

    @property
    def p(self) -> Float[Tensor, "..."]:
        """Probability of every token in the reference run."""
        return self.clean.p

    @property
    def q(self) -> Float[Tensor, "..."]:
        """Probability of every token in the intervened run."""
        return self.intervened.p

    @property
    def logp(self) -> Float[Tensor, "..."]:
        """Log-probability of every token in the reference run, in nats."""
        return self.clean.logp

    @property
    def logq(self) -> Float[Tensor, "..."]:
        """Log-probability of every token in the intervened run, in nats."""
        return self.intervened.logp

    @property
    def clean_token(self) -> Int[Tensor, "..."]:
        """The most likely token of the reference run."""
        return self.clean.token

    @property
    def answer(self) -> Int[Tensor, "..."]:
        """The token id of the answer, -1 where there is none."""
        if self._answer is None:
            raise InputError("this measure needs the answer's token ids: give answer=ids, -1: none")
        return self._answer

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
    def d_size(self) -> Float[Tensor, "*row d_vocab"]:
        """|d|, cut where |t| is 1."""
        return self.d.abs().clamp(max=_SATURATED)

    @cached_property
    def t_size(self) -> Float[Tensor, "*row d_vocab"]:
        """|t| = |p - q|/(p + q)."""
        return self.t.abs()

    @cached_property
    def d_above(self) -> Float[Tensor, "*row d_vocab"]:
        """d, cut below where t is -1: a token that p lacks leaves KL(p||q) finite."""
        return self.d.clamp(min=-_SATURATED)

    @cached_property
    def d_below(self) -> Float[Tensor, "*row d_vocab"]:
        """d, cut above where t is 1: a token that q lacks leaves KL(q||p) finite."""
        return self.d.clamp(max=_SATURATED)

    @cached_property
    def mass(self) -> Float[Tensor, "*row d_vocab"]:
        """2m = p + q, above 0 so that a token too rare for the dtype keeps an infinite KL."""
        return self.p.clamp(min=torch.finfo(self.p.dtype).tiny) + self.q

    def total(self, bracket: Float[Tensor, "*row d_vocab"]) -> Float[Tensor, "*row"]:
        """Sum over the vocabulary of m times a bracket."""
        return (self.mass * bracket).sum(-1) / 2


def working_dtype(*logits: Tensor) -> torch.dtype:
    """float64 where a run is float64, else float32: halves are upcast before any softmax.

    Example:
        >>> working_dtype(torch.zeros(1, dtype=torch.bfloat16), torch.zeros(1))
        torch.float32
    """
    dtype = torch.float32
    for run in logits:
        dtype = torch.promote_types(dtype, run.dtype)
    return dtype
