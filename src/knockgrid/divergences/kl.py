"""KL divergence of the intervened run from the clean one."""

from knockgrid.divergences.divergence import Divergence
from knockgrid.divergences.pair import Pair, Rows


def kullback_leibler(pair: Pair) -> Rows:
    """KL(clean || intervened): what the clean run's tokens lose in log-probability.

    KL = sum p log(p/q) = sum m [t d + (d - 2t)], in nats, 0 or more; infinite where the edit makes
    a token impossible that the clean run allows. Source: Cover & Thomas 2006, eq. 2.26. Limit: it
    is dominated by tokens that the intervened run all but excludes; `js` is not.

    Example:
        >>> import torch
        >>> from knockgrid.divergences import kl
        >>> kl(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, float("-inf")]]))
        tensor([0.1201,    inf])
    """
    return pair.kl


kl = Divergence.known("kl", kullback_leibler)
