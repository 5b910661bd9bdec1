"""KL divergence among all tokens that are no answer."""

from knockgrid.divergences.divergence import Divergence
from knockgrid.divergences.pair import Pair, Rows


def within_rest(pair: Pair) -> Rows:
    """KL(clean || intervened) among the rest, times 1 - p(A): what moves beside the answers.

    (1 - p(A)) KL of the two distributions given that the token is no answer, in nats, 0 or more;
    infinite where the edit excludes some of the rest, 0 where the rest is impossible as a whole
    in either run (`kl_between` has that), NaN without an answer. Source: the chain rule of Cover &
    Thomas 2006, theorem 2.5.3, for the pair (side, token). Limit: the longest sum of the three, and
    the only one that costs as much as `kl`.

    Example:
        >>> import torch
        >>> from knockgrid.divergences import kl_within_rest
        >>> clean, intervened = torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[0.5, 0.4, 0.1]])
        >>> kl_within_rest(clean.log(), intervened.log(), answers=torch.tensor([0]))
        tensor([0.1116])
    """
    return pair.of_answers(pair.outside.weighted(pair.outside.pair.kl))


kl_within_rest = Divergence.known("kl_within_rest", within_rest)
