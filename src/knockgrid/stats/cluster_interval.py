"""Intervals of means: bootstrap-t over clusters, and bands that hold for all layers at once."""

from dataclasses import dataclass

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


@dataclass(frozen=True, eq=False)
class Interval:
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

    Example:
        >>> from knockgrid.stats.resample import resample
        >>> made = resample(np.arange(12.0)[:, None], [np.arange(12)])
        >>> found = interval(made, np.array([0]))
        >>> bool(found.low[0] < 5.5 < found.high[0]), bool(found.band_low[0] == found.low[0])
        (True, True)

    "bootstrap-t": the mean ± the quantile of |t| over resamples × the standard error. "t": the same
    with Student's quantile. "percentile": the quantiles of the resampled means, without a band.
    `bands` has one number per cell, equal for the cells of one band, whose half-width is the
    quantile of the largest |t| in it.

    Raises:
        InputError: a level outside (0, 1), or an unknown method.
    """
    check_level(level)
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    ends = np.full((4, len(made.mean)), np.nan)
    usable = (made.n_clusters >= FEWEST) & np.isfinite(made.error)
    for band in np.unique(bands[usable]):
        here = usable & (bands == band)
        ends[:, here] = _ends(part(made, here), level, method)
    return Interval(*ends)


def _ends(made: Resampled, level: float, method: str) -> np.ndarray:
    if method == "percentile":
        tails = [(1 - level) / 2, (1 + level) / 2]
        low, high = np.nanquantile(made.means, tails, axis=0)
        return np.stack([low, high, np.full_like(low, np.nan), np.full_like(low, np.nan)])
    least = LEAST_OF_BAND * made.error.max()
    alone, joint = np.abs(made.t()), np.abs(made.t(least))
    wide = np.nanquantile(np.nanmax(np.nan_to_num(joint), axis=1), level)
    factor = np.nanquantile(alone, level, axis=0)
    if method == "t":
        factor = student.ppf((1 + level) / 2, made.n_clusters - 1)
    half, band = factor * made.error, wide * np.maximum(made.error, least)
    band = np.maximum(band, half)  # a band never cuts into the interval of one of its layers
    return np.stack([made.mean - half, made.mean + half, made.mean - band, made.mean + band])


def part(made: Resampled, here: np.ndarray) -> Resampled:
    """Some of the cells of a resampling.

    Example:
        >>> from knockgrid.stats.resample import resample
        >>> part(resample(np.ones((3, 2)), [np.arange(3)]), np.array([True, False])).mean
        array([1.])
    """
    return Resampled(
        made.mean[here],
        made.error[here],
        made.n_prompts[here],
        made.n_clusters[here],
        made.means[:, here],
        made.errors[:, here],
    )


def widened(level: float, n_clusters: int) -> tuple[float, float]:
    """The two tail probabilities at which percentiles of few clusters are read.

    Example:
        >>> [round(tail, 4) for tail in widened(0.95, 12)]
        [0.0108, 0.9892]

    The plain percentiles are too narrow by √((n-1)/n), and ignore that the variance is estimated.

    Source: Hesterberg 2015, "What Teachers Should Know About the Bootstrap" (expanded percentile).
    """
    stretch = np.sqrt(n_clusters / (n_clusters - 1))
    tail = float(norm.cdf(stretch * student.ppf((1 - level) / 2, n_clusters - 1)))
    return tail, 1 - tail


def check_level(level: float) -> None:
    """Refuse a level that is no share.

    Raises:
        InputError: a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise InputError(f"level {level!r} is not between 0 and 1; give 0.95 for 95 %")
