"""Log-probability that the intervened run leaves to the clean run's choice."""

from knockgrid.divergences.divergence import Divergence
from knockgrid.divergences.pair import Pair, Rows


def logp_of_clean_token(pair: Pair) -> Rows:
    """Log-probability, in the intervened run, of the clean run's most likely token.

    In nats, 0 or less; -inf where the edit excludes the token. Source: the probability of interest
    of Meng et al. 2022 (ROME), section 2.1, in logarithm. Limit: it sees one token only.

    Example:
        >>> import torch
        >>> from knockgrid.divergences import logp_clean
        >>> logp_clean(torch.tensor([[0.0, 9.0]]), torch.tensor([[0.0, 0.0]]))
        tensor([-0.6931])
    """
    return pair.intervened.logp_of(pair.clean.token)


logp_clean = Divergence.known("logp_clean", logp_of_clean_token)
