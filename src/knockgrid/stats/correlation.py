"""cluster_correlation: how much alike the prompts of one cluster are."""

import numpy as np
import pandas as pd

from knockgrid.errors import InputError
from knockgrid.stats.clusters import By, clusters
from knockgrid.table.by_prompt import by_prompt


def cluster_correlation(table: pd.DataFrame, metric: str = "js", by: By = "auto") -> pd.DataFrame:
    """The intraclass correlation of every cell: the share of the variance between clusters.

    Example:
        >>> from knockgrid.table.table import build
        >>> rows = [
        ...     {"prompt": p, "intervention": "last", "layer": 0, "js": js}
        ...     for p, js in [("a", 0.1), ("b", 0.1), ("c", 0.5), ("d", 0.5)]
        ... ]
        >>> by = {"a": "x", "b": "x", "c": "y", "d": "y"}
        >>> cluster_correlation(build(rows, {}), by=by).correlation.tolist()
        [1.0]

    One row per cell and dimension of clusters, with `correlation`, `n_clusters` and `n_prompts`. At
    1 the prompts of a cluster are all alike and only the number of clusters counts; at 0 they are
    as different as any. It can be negative. NaN where nothing varies, or no cluster has two
    prompts.

    Raises:
        InputError: as `mean_interval`, or fewer than two clusters.

    Source: the one-way analysis-of-variance estimator for unequal sizes, Donner 1986, "A review of
        inference procedures for the intraclass correlation coefficient".
    """
    made = by_prompt(table, metric)
    groups = clusters(table, by)
    parts = []
    for name, codes in zip(groups.labels, groups.codes(), strict=True):
        if codes.max() < 1:
            raise InputError(f"all prompts share one {name}, so nothing lies between clusters")
        found = [_one(column, codes) for column in made.values.T]
        told = pd.DataFrame(found, columns=["correlation", "n_clusters", "n_prompts"])
        parts.append(made.cells.dropna(axis=1, how="all").assign(dimension=name).join(told))
    return pd.concat(parts, ignore_index=True)


def _one(column: np.ndarray, codes: np.ndarray) -> tuple[float, int, int]:
    known = ~np.isnan(column)
    y, code = column[known], np.unique(codes[known], return_inverse=True)[1]
    n = np.bincount(code).astype(float)
    k, total = len(n), n.sum()
    if k < 2 or total == k or y.std() == 0:
        return np.nan, k, int(total)
    means = np.bincount(code, y) / n
    between = (n * (means - y.mean()) ** 2).sum() / (k - 1)
    inside = ((y - means[code]) ** 2).sum() / (total - k)
    size = (total - (n**2).sum() / total) / (k - 1)
    return float((between - inside) / (between + (size - 1) * inside)), k, int(total)
