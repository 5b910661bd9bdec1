"""side_by_side: two tables on one scale, and their difference."""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from knockgrid.errors import InputError
from knockgrid.figures.layer_heatmap import layer_heatmap
from knockgrid.figures.row import in_a_row, symmetric
from knockgrid.figures.words import plain
from knockgrid.stats.clusters import clusters
from knockgrid.stats.contrast import bounds, difference
from knockgrid.stats.mean_interval import per_cluster
from knockgrid.table.by_prompt import CELL
from knockgrid.table.table import build, metadata_of


def side_by_side(
    tables: Mapping[str, pd.DataFrame],
    figure: Callable[..., Axes] = layer_heatmap,
    *,
    metric: str = "js",
    **options: Any,
) -> Figure:
    """Draw `figure` for two tables on a shared scale, and their difference on a diverging one.

    Example:
        >>> from knockgrid.table.table import build
        >>> row = {"prompt": "rome", "intervention": "last", "layer": 0}
        >>> tables = {n: build([{**row, "js": js}], {}) for n, js in [("A", 0.1), ("B", 0.3)]}
        >>> [ax.get_title() for ax in side_by_side(tables).axes if ax.get_title()]
        ['A (n = 1 prompt)', 'B (n = 1 prompt)', 'B − A (means)']

    The tables are two groups, two models with the same layers, or two treatments. The third panel
    is the second minus the first: cell by cell over the prompts that both have, or of their means
    where they share none. Works with every grid figure, whose options are passed on; `figsize`,
    `fontsize` and `ax` are as in `panels`.

    Raises:
        InputError: not two tables, or what `difference` and `figure` refuse.
    """
    if len(tables) != 2:
        raise InputError(f"side_by_side() compares two tables; got {len(tables)}")
    (first, one), (second, other) = tables.items()
    first, second = plain(first), plain(second)
    apart = difference(one, other, metric)
    how = "paired" if metadata_of(apart)["paired"] and one["prompt"].nunique() > 1 else "means"
    return in_a_row(
        figure,
        [(first, one, {}), (second, other, {})],
        (f"{second} − {first} ({how})", apart, symmetric(apart, metric)),
        metric,
        options,
    )


def with_interval(
    table: pd.DataFrame,
    figure: Callable[..., Axes] = layer_heatmap,
    *,
    metric: str = "js",
    level: float = 0.95,
    seed: int = 0,
    **options: Any,
) -> Figure:
    """Draw the lower end, the mean and the upper end of every cell's interval on one scale.

    Example:
        >>> from knockgrid.table.table import build
        >>> rows = [
        ...     {"prompt": f"{p}", "intervention": "last", "layer": 0, "js": p / 30}
        ...     for p in range(12)
        ... ]
        >>> [ax.get_title() for ax in with_interval(build(rows, {})).axes if ax.get_title()]
        ['lower end (95 %, 12 prompts)', 'mean (n = 12 prompts)', 'upper end (95 %, 12 prompts)']

    The interval is that of `mean_interval`: it resamples whole clusters, and the titles name them.
    With fewer than six clusters there is none; the lowest and the highest mean of a cluster stand
    in its place.

    Raises:
        InputError: as `bounds` and `figure`.

    Limit: each end holds for its own cell, not for all cells at once.
    """
    low, high = bounds(table, metric, level, seed)
    groups = clusters(table)
    names = [f"{end} end ({100 * level:g} %, {groups.words})" for end in ("lower", "upper")]
    if groups.too_few:
        low, high = _extremes(table, metric)
        names = [f"{end} of {groups.words}" for end in ("lowest", "highest")]
    shared = [(names[0], low, {}), ("mean", table, {}), (names[1], high, {})]
    return in_a_row(figure, shared, None, metric, options)


def _extremes(table: pd.DataFrame, metric: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables with the lowest and the highest mean of a cluster, cell by cell."""
    found = per_cluster(table, metric)
    names = [name for name in CELL if name in found]
    means = found.groupby(names, sort=False, dropna=False)["mean"].agg(["min", "max"])
    means = means.reset_index().to_dict("records")
    low, high = (
        [
            {**{name: row[name] for name in names}, "prompt": "interval", metric: row[end]}
            | {"status": "ok" if row[end] == row[end] else "NA: no prompt has a value"}
            for row in means
        ]
        for end in ("min", "max")
    )
    return build(low, metadata_of(table)), build(high, metadata_of(table))
