"""mean_interval and per_cluster: the mean of every cell, and how far it is known."""

import numpy as np
import pandas as pd

from knockgrid.stats.cluster_interval import check_level, interval
from knockgrid.stats.clusters import FEWEST, By, Clusters, clusters, counted, fewest
from knockgrid.stats.resample import RESAMPLES, mean_of, resample
from knockgrid.table.by_prompt import by_prompt, missing
from knockgrid.table.measures import measure_of
from knockgrid.table.table import KEY, metadata_of


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
    cross), `cluster` in words and `note`. Prompts weigh equally, as in `grid`: a relation with more
    prompts counts for more. `by` is what `clusters` takes.

    `low` and `high` hold for that cell alone, the band for all layers of one row at once (largest
    absolute t of the row). With fewer than six clusters all four are NaN, and `note` says so; look
    at `per_cluster`. Ends are cut where the measure ends: at 0, and for JS and total variation at
    their largest value.

    `method` is "bootstrap-t" (symmetric, clusters resampled, each resample divided by its own
    jackknife error), or one of the neighbours to compare it with: "t" (Student's quantile) and
    "percentile". Give by="prompt" with "percentile" to see what the i.i.d. bootstrap says. A
    resample's standard error counts as at least a quarter of the sample's own, and in a band every
    layer's as at least 1 % of the largest, so that near-zero variances do not rule.

    Raises:
        InputError: an unknown metric, method or `by`, a level outside (0, 1), infinite values, or
            NaN where the status is "ok".

    Source: Cameron, Gelbach, Miller 2008, "Bootstrap-based improvements for inference with
        clustered errors"; the same 2011 and Owen 2007 for clusters that cross; Hall 1992, "The
        Bootstrap and Edgeworth Expansion", for symmetric bootstrap-t.
    Limit: the coverage is measured in docs/statistics.md. With 7 clusters and strongly skewed
        values it stays below the nominal one.
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
    """The mean of every cell in every cluster: what there is to show below six clusters.

    Example:
        >>> from knockgrid.table.table import build
        >>> rows = [
        ...     {"prompt": p, "intervention": "last", "layer": 0, "js": js}
        ...     for p, js in [("a", 0.1), ("b", 0.3), ("c", 0.5)]
        ... ]
        >>> found = per_cluster(build(rows, {}), by={"a": "x", "b": "x", "c": "y"})
        >>> found[["cluster", "mean", "n_prompts"]].round(2).values.tolist()
        [['x', 0.2, 2], ['y', 0.5, 1]]

    Where two dimensions cross, the column `dimension` says which one a row belongs to. A cluster
    without a value in a cell has the mean NaN there.

    Raises:
        InputError: as `mean_interval`.
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
