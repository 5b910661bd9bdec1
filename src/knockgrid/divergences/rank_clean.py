"""Rank that the intervened run gives to the clean run's choice."""

from knockgrid.divergences.divergence import Divergence
from knockgrid.divergences.pair import Pair, Rows


def rank_of_clean_token(pair: Pair) -> Rows:
    """Rank, in the intervened run, of the clean run's most likely token: 0 where it stays the top.

    The count of tokens that are strictly more likely, so that ties rank equally; a whole number
    without a unit. Source: definition. Limit: it has no gradient.

    Example:
        >>> import torch
        >>> from knockgrid.divergences import rank_clean
        >>> rank_clean(torch.tensor([[0.0, 9.0, 0.0]]), torch.tensor([[3.0, 2.0, 2.0]]))
        tensor([1.])
    """
    return pair.intervened.rank_of(pair.clean.token)


rank_clean = Divergence.known("rank_clean", rank_of_clean_token)
