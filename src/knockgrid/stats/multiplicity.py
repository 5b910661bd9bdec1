"""p-values of many cells: false discovery rate and family-wise error."""

import numpy as np
from jaxtyping import Float
from scipy.stats import false_discovery_control

P = Float[np.ndarray, " cell"]


def benjamini_hochberg(p: P) -> P:
    """Adjusted p that bound the false discovery rate; NaN stays NaN and is not counted.

    Source: Benjamini, Hochberg 1995, "Controlling the False Discovery Rate".
    """
    found, known = p.copy(), ~np.isnan(p)
    if known.any():
        found[known] = false_discovery_control(p[known])
    return found


def holm(p: P) -> P:
    """Adjusted p that bound the probability of any false positive; NaN is not counted.

    Source: Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure".
    """
    found, known = p.copy(), ~np.isnan(p)
    order = np.argsort(p[known])
    steps = np.arange(known.sum(), 0, -1)
    adjusted = np.maximum.accumulate(steps * p[known][order])
    found[np.flatnonzero(known)[order]] = np.minimum(adjusted, 1.0)
    return found
