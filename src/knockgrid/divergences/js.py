"""Jensen-Shannon divergence."""

import torch

from knockgrid.divergences.divergence import Divergence
from knockgrid.divergences.pair import SATURATED, Pair, Rows


def jensen_shannon(pair: Pair) -> Rows:
    """Jensen-Shannon divergence: the mean KL divergence of both runs from their mixture.

    JS = 1/2 sum m [t d + log(1 - t^2)], in nats, from 0 (equal) to ln 2 (no token in common);
    symmetric. Source: Lin 1991, "Divergence measures based on the Shannon entropy", eq. 4.1 with
    equal weights. Limit: in float32 the relative error is below 1e-6 for effects of 1e-5
    nats and more, and below 1e-5 down to 1e-9 nats.

    Example:
        >>> from knockgrid.divergences import js
        >>> js(torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 0.0]]))
        tensor([0.0285])
    """
    d, t = pair.d.abs().clamp(max=SATURATED), pair.t_size
    # Past |d| = 1 the logarithm nears -inf, so d + log(1 - t^2) = 2 log(1 + t) takes its place.
    # Both ways are one line, `far` being 0 or 1: torch.where costs twenty times a product here.
    far = d.floor().clamp_(max=1)
    log = torch.lerp(t.square().neg_(), t, far).log1p_()
    bracket = (t - far).mul_(d).add_(log).addcmul_(log, far)
    return pair.total(bracket) / 2


js = Divergence.known("js", jensen_shannon)
