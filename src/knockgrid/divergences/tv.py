"""Total variation distance."""

from knockgrid.divergences.divergence import Divergence
from knockgrid.divergences.pair import Pair, Rows


def half_l1(pair: Pair) -> Rows:
    """Total variation: the probability that the edit moves from some tokens to others.

    TV = 1/2 sum abs(p - q) = sum m abs(t), from 0 to 1, without a unit; symmetric. Source: Levin,
    Peres & Wilmer 2009, "Markov chains and mixing times", proposition 4.2. Limit: it does not see
    how unlikely a token became, only how much probability left it.

    Example:
        >>> import torch
        >>> from knockgrid.divergences import tv
        >>> tv(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 0.0]]))
        tensor([0.2311])
    """
    return pair.total(pair.t_size)


tv = Divergence.known("tv", half_l1)
