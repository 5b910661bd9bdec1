"""KL divergence of the probability that goes to the answers as a whole."""

from knockgrid.divergences.divergence import Divergence
from knockgrid.divergences.pair import Pair, Rows, lost


def between_answers_and_rest(pair: Pair) -> Rows:
    """KL(clean || intervened) between the answers and the rest: the weight that crosses.

    KL of p(A), 1 - p(A) from q(A), 1 - q(A), in nats, 0 or more, where A holds the answers' tokens;
    infinite where the edit makes all answers, or all the rest, impossible; NaN without an answer.
    With `kl_within_answers` and `kl_within_rest` it sums to `kl`. Source: the chain rule of
    Cover & Thomas 2006, theorem 2.5.3, for the pair (side, token). Limit: it knows an answer by
    its first token, which other words may share.

    Example:
        >>> import torch
        >>> from knockgrid.divergences import kl_between
        >>> clean, intervened = torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[0.25, 0.5, 0.25]])
        >>> kl_between(clean.log(), intervened.log(), answers=torch.tensor([0, 1]))
        tensor([0.])
        >>> kl_between(clean.log(), intervened.log(), answers=torch.tensor([0, 2]))
        tensor([0.1308])
    """
    sides = [lost(side.p, side.q, side.d) for side in (pair.inside, pair.outside)]
    return pair.of_answers(sides[0] + sides[1])


kl_between = Divergence.known("kl_between", between_answers_and_rest)
