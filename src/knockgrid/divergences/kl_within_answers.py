"""KL divergence among the answers."""

from knockgrid.divergences.divergence import Divergence
from knockgrid.divergences.pair import Pair, Rows, lost


def within_answers(pair: Pair) -> Rows:
    """KL(clean || intervened) among the answers, times p(A): the weight that changes names.

    p(A) KL(p_A || q_A), in nats, 0 or more, with the distributions p_A, q_A given that the token is
    in A; infinite where the edit excludes some of the answers, 0 where A is impossible as a whole
    in either run (`kl_between` has that), NaN without an answer. Source: the chain rule of Cover &
    Thomas 2006, theorem 2.5.3, for the pair (side, token). Limit: a single answer gives 0.

    Example:
        >>> import torch
        >>> from knockgrid.divergences import kl_within_answers
        >>> clean, intervened = torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[0.25, 0.5, 0.25]])
        >>> kl_within_answers(clean.log(), intervened.log(), answers=torch.tensor([0, 1]))
        tensor([0.1733])
        >>> kl_within_answers(clean.log(), intervened.log(), answers=torch.tensor([0, -1]))
        tensor([0.])
    """
    side = pair.inside
    inner = lost(side.pair.p, side.pair.q, side.pair.d).sum(-1)
    return pair.of_answers(side.weighted(inner))


kl_within_answers = Divergence.known("kl_within_answers", within_answers)
