"""Change of the answer's probability, in percent of the clean one."""

import torch

from knockgrid.divergences.divergence import Divergence
from knockgrid.divergences.pair import Pair, Rows


def relative_change(pair: Pair) -> Rows:
    """Relative change of the answer's probability: 100 (q - p)/p of its token.

    In percent, -100 or more: 0 where nothing changed, -100 where the edit excludes the token; NaN
    where the answer is -1, or was impossible before. Source: Zhang et al. 2024 (cross-modal
    information flow, arXiv 2411.18620), section 3. Limit: a token that was unlikely can gain
    thousands of percent, which then rule a mean over prompts; `logp_answer` has no such tail.

    Example:
        >>> import torch
        >>> from knockgrid.divergences import p_change
        >>> clean, intervened = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.25, 0.75]])
        >>> p_change(clean.log(), intervened.log(), answer=torch.tensor([0]))
        tensor([-50.])
    """
    before, after = (run.logp_of(pair.answer) for run in (pair.clean, pair.intervened))
    return (100 * (after - before).expm1()).masked_fill(before == -torch.inf, torch.nan)


p_change = Divergence.known("p_change", relative_change)
