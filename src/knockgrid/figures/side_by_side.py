"""side_by_side: two tables on one scale, and their difference; with_interval: one and its ends."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from knockgrid.errors import InputError
from knockgrid.figures.canvas import checked_size, several, sketch_axes
from knockgrid.figures.heatmaps import layer_heatmap
from knockgrid.figures.panels import (
    inner_names_away,
    limits_of_all,
    one_colour_bar,
    size_of_each,
)
from knockgrid.figures.words import plain
from knockgrid.stats.clusters import clusters
from knockgrid.stats.contrast import difference, interval_ends
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
    (first, one), (second, other) = ((plain(name), table) for name, table in tables.items())
    apart = difference(one, other, metric)
    how = "paired" if metadata_of(apart)["paired"] and one["prompt"].nunique() > 1 else "means"
    most = float(np.nanmax(np.abs(apart[metric].to_numpy(float)), initial=0.0)) or 1.0
    look = {"limits": (-most, most), "cmap": "RdBu_r"}  # white is 0, both ends are as far from it
    own = f"{second} − {first} ({how})", apart, look
    return _in_a_row(figure, [(first, one), (second, other)], metric, options, own)


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
        InputError: as `interval_ends` and `figure`.

    Limit: each end holds for its own cell, not for all cells at once.
    """
    low, high = interval_ends(table, metric, level, seed)
    groups = clusters(table)
    names = [f"{end} end ({100 * level:g} %, {groups.words})" for end in ("lower", "upper")]
    if groups.too_few:
        low, high = _extremes(table, metric)
        names = [f"{end} of {groups.words}" for end in ("lowest", "highest")]
    shared = [(names[0], low), ("mean", table), (names[1], high)]
    return _in_a_row(figure, shared, metric, options)


def _in_a_row(
    figure: Callable[..., Axes],
    shared: Sequence[tuple[str, pd.DataFrame]],
    metric: str,
    options: dict[str, Any],
    *own: tuple[str, pd.DataFrame, Mapping[str, Any]],
) -> Figure:
    """Draw panels beside each other, those of `own` on another scale."""
    whole_options = {name: options.pop(name, None) for name in ("ax", "figsize", "fontsize")}
    sketches = [figure(part, metric, ax=sketch_axes(), **options) for _, part in shared]
    scale = {"limits": limits_of_all(sketches)}
    drawn = [(*one, {**scale, **options}) for one in shared]
    drawn += [(name, part, {**options, **look}) for name, part, look in own]
    n, (width, height) = len(drawn), size_of_each(sketches)
    given = checked_size(whole_options["figsize"])
    # wide grids lie under each other, so that layers line up
    flat = given[0] < given[1] if given else width > 1.5 * height
    size = (width, height * n) if flat else (min(width * n, 24.0), height)
    rows, columns = (n, 1) if flat else (1, n)
    with several(rows, columns, n, size, **whole_options) as (whole, places):
        for (name, part, look), ax in zip(drawn, places, strict=True):
            figure(part, metric, ax=ax, **{**look, "title": name})
            if set(part["prompt"]) <= {"difference", "interval"}:  # which are no prompts to count
                ax.set_title(name, fontsize="medium")
        inner_names_away(places)
        one_colour_bar(places[: len(shared)])
    return whole


def _extremes(table: pd.DataFrame, metric: str) -> list[pd.DataFrame]:
    """Tables with the lowest and the highest mean of a cluster, cell by cell."""
    found = per_cluster(table, metric)
    names = [name for name in CELL if name in found]
    means = found.groupby(names, sort=False, dropna=False)["mean"].agg(["min", "max"]).reset_index()
    status = np.where(means["min"].notna(), "ok", "NA: no prompt has a value")
    rows = means[names].assign(prompt="interval", status=status)
    ends = [rows.assign(**{metric: means[end]}) for end in ("min", "max")]
    return [build(end.to_dict("records"), metadata_of(table)) for end in ends]
