"""Where the logit difference lies between the corrupted run's and the clean run's."""

import torch

from knockgrid.divergences.divergence import Divergence
from knockgrid.divergences.pair import Pair, Rows
from knockgrid.table.measures import APART


def share_of_the_way(pair: Pair) -> Rows:
    """Recovered logit difference: 0 is that of the corrupted run, 1 that of the clean run.

    (x - corrupted)/(clean - corrupted) with x the intervened run's `logit_diff`, and corrupted that
    of the run which the edit's values come from (clean values go into it where the direction is
    denoising). A share without a unit or a bound: below 0 the edit went past the corrupted run,
    above 1 past the clean one. NaN where the answer or the foil is -1, and where the two runs are
    less than 0.1 logits from each other. Source: Wang et al. 2022 (IOI, arXiv
    2211.00593), section 3, and Zhang & Nanda 2023 (arXiv 2309.16042), section 2.1, the normalised
    logit difference. Limit: prompts whose corruption moves little weigh as much as the others, and
    vary more; a mean over samples has a value only where every sample has one.

    Example:
        >>> import torch
        >>> from knockgrid.divergences import recovered
        >>> clean, intervened, corrupted = torch.tensor([[[3.0, 1.0]], [[1.5, 1.0]], [[0.0, 1.0]]])
        >>> tokens = {"answer": torch.tensor([0]), "foil": torch.tensor([1])}
        >>> recovered(clean, intervened, corrupted=corrupted, **tokens)
        tensor([0.5000])
    """
    runs = (pair.clean, pair.intervened, pair.corrupted)
    clean, x, corrupted = map(pair.preference, runs)
    whole = clean - corrupted
    return ((x - corrupted) / whole).masked_fill(whole.abs() < APART, torch.nan)


recovered = Divergence.known("recovered", share_of_the_way)
