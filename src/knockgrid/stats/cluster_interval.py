"""Intervals of means: bootstrap-t over clusters, and bands that hold for all layers at once."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from scipy.stats import norm
from scipy.stats import t as student

from knockgrid.errors import InputError, unknown
from knockgrid.stats.clusters import FEWEST
from knockgrid.stats.resample import Cells, Resampled

METHODS = ("bootstrap-t", "t", "percentile")
# Of the largest standard error of a band: a layer that (almost) does not vary would else have a t
# of its own rounding, and could set the width of all other layers.
LEAST_OF_BAND = 0.01


class Interval(NamedTuple):
    """Ends per cell, and ends of the band that holds for all cells of its band at once."""

    low: Cells
    high: Cells
    band_low: Cells
    band_high: Cells


def interval(
    made: Resampled,
    bands: Int[np.ndarray, " cell"],
    level: float = 0.95,
    method: str = "bootstrap-t",
) -> Interval:
    """The interval of every mean, NaN where fewer than six clusters have a value.

    "bootstrap-t": the mean ± the quantile of |t| over resamples × the standard error. "t": the same
    with Student's quantile. "percentile": the quantiles of the resampled means, without a band.
    `bands` has one number per cell, equal for the cells of one band, whose half-width is the
    quantile of the largest |t| in it.
    """
    check_level(level)
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    ends = np.full((4, len(made.mean)), np.nan)
    usable = (made.n_clusters >= FEWEST) & np.isfinite(made.error)
    for band in np.unique(bands[usable]):
        here = usable & (bands == band)
        if method == "percentile":
            tails = [(1 - level) / 2, (1 + level) / 2]
            ends[:2, here] = np.nanquantile(made.means[:, here], tails, axis=0)
            continue
        mean, error = made.mean[here], made.error[here]
        least = LEAST_OF_BAND * error.max()
        if method == "t":
            factor = student.ppf((1 + level) / 2, made.n_clusters[here] - 1)
        else:
            factor = np.nanquantile(np.abs(made.t(here)), level, axis=0)
        largest = np.nan_to_num(np.abs(made.t(here, least))).max(1)
        half, wide = factor * error, np.nanquantile(largest, level) * np.maximum(error, least)
        wide = np.maximum(wide, half)  # a band never cuts into the interval of one of its layers
        ends[:, here] = mean - half, mean + half, mean - wide, mean + wide
    return Interval(*ends)


def widened(level: float, n_clusters: int) -> tuple[float, float]:
    """The two tail probabilities at which percentiles of few clusters are read.

    The plain percentiles are too narrow by √((n-1)/n), and ignore that the variance is estimated.

    Source: Hesterberg 2015, "What Teachers Should Know About the Bootstrap" (expanded percentile).
    """
    stretch = np.sqrt(n_clusters / (n_clusters - 1))
    tail = float(norm.cdf(stretch * student.ppf((1 - level) / 2, n_clusters - 1)))
    return tail, 1 - tail


def check_level(level: float) -> None:
    """Refuse a level that is no share."""
    if not 0 < level < 1:
        raise InputError(f"level {level!r} is not between 0 and 1; give 0.95 for 95 %")
