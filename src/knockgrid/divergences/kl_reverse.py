"""KL divergence of the clean run from the intervened one."""

from knockgrid.divergences.divergence import Divergence
from knockgrid.divergences.pair import SATURATED, Pair, Rows


def kullback_leibler_reverse(pair: Pair) -> Rows:
    """KL(intervened || clean): how unlikely the clean run finds the intervened run's tokens.

    KL = sum q log(q/p) = sum m [t d - (d - 2t)], in nats, 0 or more; infinite where the edit allows
    a token that the clean run excludes. Source: Cover & Thomas 2006, eq. 2.26, p and q exchanged.
    Limit: it says little about clean tokens that the edit removes; `kl` does.

    Example:
        >>> import torch
        >>> from knockgrid.divergences import kl_reverse
        >>> kl_reverse(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, -torch.inf]]))
        tensor([0.1109, 0.6931])
    """
    d, t = pair.d.clamp(max=SATURATED), pair.t  # a token that q lacks leaves it finite
    return pair.total(t.sub(d, alpha=0.5).addcmul_(t, d, value=0.5)) * 2


kl_reverse = Divergence.known("kl_reverse", kullback_leibler_reverse)
