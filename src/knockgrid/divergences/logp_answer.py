"""Log-probability that the intervened run leaves to the answer."""

from knockgrid.divergences.divergence import Divergence
from knockgrid.divergences.pair import Pair, Rows


def logp_of_answer(pair: Pair) -> Rows:
    """Log-probability of the answer's token in the intervened run.

    In nats, 0 or less; -inf where the edit excludes the token, NaN where the answer is -1. Source:
    the probability of interest of Meng et al. 2022 (ROME), section 2.1, in logarithm. Limit: one
    token; an answer of several needs its joint log-probability.

    Example:
        >>> import torch
        >>> from knockgrid.divergences import logp_answer
        >>> clean, intervened = torch.tensor([[0.0, 9.0]]), torch.tensor([[0.0, 0.0]])
        >>> logp_answer(clean, intervened, answer=torch.tensor([0]))
        tensor([-0.6931])
    """
    return pair.intervened.logp_of(pair.answer)


logp_answer = Divergence.known("logp_answer", logp_of_answer)
