"""mean_interval and per_cluster: bootstrap-t over clusters, and bands for all layers at once."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Int
from scipy.stats import norm
from scipy.stats import t as student

from knockgrid.errors import InputError, unknown
from knockgrid.stats.clusters import FEWEST, By, Clusters, clusters, counted, fewest
from knockgrid.stats.resample import RESAMPLES, Cells, Resampled, mean_of, resample
from knockgrid.table.by_prompt import by_prompt, missing
from knockgrid.table.measures import measure_of
from knockgrid.table.table import KEY, metadata_of

METHODS = ("bootstrap-t", "t", "percentile")
# Of the largest standard error of a band: a layer that (almost) does not vary would else have a t
# of its own rounding, and could set the width of all other layers.
LEAST_OF_BAND = 0.01


def mean_interval(
    table: pd.DataFrame,
    metric: str = "js",
    by: By = "auto",
    *,
    level: float = 0.95,
    method: str = "bootstrap-t",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """The mean of every cell with an interval that knows the clusters, and a band over its layers.

    Example:
        >>> from knockgrid.table.table import build
        >>> rows = [
        ...     {"prompt": f"{p}", "intervention": "last", "layer": i, "js": p / 30 + i / 10}
        ...     for p in range(12) for i in range(2)
        ... ]
        >>> found = mean_interval(build(rows, {"unit": "nats"}))
        >>> found[["layer", "mean", "low", "high", "cluster"]].round(2).values.tolist()
        [[0, 0.18, 0.11, 0.26, '12 prompts'], [1, 0.28, 0.21, 0.36, '12 prompts']]

    Returns one row per cell: its labels, `mean`, `low`, `high`, `band_low`, `band_high` in the
    metric's unit, `n_prompts`, `n_clusters` with a value there (of the smaller dimension where two
    cross), `cluster` in words and `note`. Prompts weigh equally, as in `grid`. `by` is what
    `clusters` takes.

    `low` and `high` hold for that cell alone, the band for all layers of one row at once (largest
    absolute t of the row), and all end where the measure does. With fewer than six clusters they
    are NaN; look at `per_cluster`.

    `method` is "bootstrap-t" (symmetric, clusters resampled, each resample divided by its own
    jackknife error), "t" (Student's quantile) or "percentile", which with by="prompt" is the i.i.d.
    bootstrap. Near-zero variances do not rule: a resample's standard error counts as at least a
    quarter of the sample's own, and in a band every layer's as at least 1 % of the largest.

    Raises:
        InputError: an unknown metric, method or `by`, a level outside (0, 1), infinite values, or
            NaN where the status is "ok".

    Source: Cameron, Gelbach, Miller 2008 (bootstrap-t with clusters) and 2011, Owen 2007 (clusters
        that cross); Hall 1992, "The Bootstrap and Edgeworth Expansion" (symmetric bootstrap-t).
    Limit: with 7 clusters and strongly skewed values the coverage stays below the nominal one
        (docs/statistics.md has the rates).
    """
    check_level(level)
    made = by_prompt(table, metric)
    groups = clusters(table, by)
    drawn = resample(made.values, groups.codes(), resamples, seed)
    ends = interval(drawn, made.bands, level, method)
    least, most = measure_of(table, metric).bounds(str(metadata_of(table).get("unit")))
    least, most = np.minimum(least, drawn.mean), np.maximum(most, drawn.mean)
    found = made.cells.dropna(axis=1, how="all").assign(
        mean=drawn.mean,
        low=np.maximum(ends.low, least),
        high=np.minimum(ends.high, most),
        band_low=np.maximum(ends.band_low, least),
        band_high=np.minimum(ends.band_high, most),
        n_prompts=drawn.n_prompts,
        n_clusters=drawn.n_clusters,
        cluster=groups.words,
    )
    lacking = missing(made.prompts, made.values)
    few = [why_no_interval(groups, n) for n in drawn.n_clusters.tolist()]
    found["note"] = ["; ".join(filter(None, (one, lacking))) for one in few]
    found.attrs = {KEY: {**metadata_of(table), "metric": metric, "level": level, "method": method}}
    return found


def why_no_interval(groups: Clusters, n: int) -> str:
    """Why so few clusters have no interval; empty where there are enough."""
    if n >= FEWEST:
        return ""
    return f"only {counted(n, fewest(groups))}: no interval, which needs {FEWEST}"


def per_cluster(table: pd.DataFrame, metric: str = "js", by: By = "auto") -> pd.DataFrame:
    """The mean of every cell in every cluster, NaN for no value: what there is to show below six.

    Example:
        >>> from knockgrid.table.table import build
        >>> rows = [
        ...     {"prompt": p, "intervention": "last", "layer": 0, "js": js}
        ...     for p, js in [("a", 0.1), ("b", 0.3), ("c", 0.5)]
        ... ]
        >>> found = per_cluster(build(rows, {}), by={"a": "x", "b": "x", "c": "y"})
        >>> found[["cluster", "mean", "n_prompts"]].round(2).values.tolist()
        [['x', 0.2, 2], ['y', 0.5, 1]]

    Where two dimensions cross, the column `dimension` says which one a row belongs to. Raises as
    `mean_interval`.
    """
    made = by_prompt(table, metric)
    groups = clusters(table, by)
    parts = []
    for name, labels in groups.labels.items():
        for label in dict.fromkeys(labels):
            values = made.values[np.array(labels) == label]
            n = (~np.isnan(values)).sum(0)
            told = {"dimension": name, "cluster": label, "mean": mean_of(values), "n_prompts": n}
            parts.append(made.cells.dropna(axis=1, how="all").assign(**told))
    found = pd.concat(parts, ignore_index=True)
    found.attrs = {KEY: {**metadata_of(table), "metric": metric}}
    return found


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
    check_share("level", level, "0.95 for 95 %")


def check_share(name: str, value: float, advice: str) -> None:
    """Refuse what does not lie between 0 and 1."""
    if not 0 < value < 1:
        raise InputError(f"{name} {value!r} is not between 0 and 1; give {advice}")
