"""Rank that the intervened run gives to the answer."""

from knockgrid.divergences.divergence import Divergence
from knockgrid.divergences.pair import Pair, Rows


def rank_of_answer(pair: Pair) -> Rows:
    """Rank of the answer's token in the intervened run: 0 where it is the most likely.

    The count of tokens that are strictly more likely, so that ties rank equally; NaN where the
    answer is -1; without a unit. Source: definition. Limit: it has no gradient.

    Example:
        >>> import torch
        >>> from knockgrid.divergences import rank_answer
        >>> clean, intervened = torch.tensor([[0.0, 9.0]]), torch.tensor([[3.0, 2.0]])
        >>> rank_answer(clean, intervened, answer=torch.tensor([1]))
        tensor([1.])
    """
    return pair.intervened.rank_of(pair.answer)


rank_answer = Divergence.known("rank_answer", rank_of_answer)
