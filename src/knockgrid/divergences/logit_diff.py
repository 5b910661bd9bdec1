"""Logit of the answer minus that of a foil, in the intervened run."""

from knockgrid.divergences.divergence import Divergence
from knockgrid.divergences.pair import Pair, Rows


def answer_minus_foil(pair: Pair) -> Rows:
    """Logit difference: how far the intervened run prefers the answer's token to the foil's.

    In logits, without a bound: above 0 the answer is likelier, and exp of it is the odds between
    the two; nats and bits do not apply. NaN where the answer or the foil is -1. Source: Wang et al.
    2022 (IOI, arXiv 2211.00593), section 2. Limit: two tokens are seen, and no other; it does not
    change when both become unlikely.

    Example:
        >>> import torch
        >>> from knockgrid.divergences import logit_diff
        >>> clean, intervened = torch.tensor([[3.0, 1.0]]), torch.tensor([[0.5, 1.0]])
        >>> logit_diff(clean, intervened, answer=torch.tensor([0]), foil=torch.tensor([1]))
        tensor([-0.5000])
    """
    return pair.preference(pair.intervened)


logit_diff = Divergence.known("logit_diff", answer_minus_foil)
