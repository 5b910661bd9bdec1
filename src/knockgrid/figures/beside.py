"""Panels of different things beside each other: two tables, an interval, a probe and an effect."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from knockgrid.errors import InputError
from knockgrid.figures.canvas import Size, checked_size, heatmap_size, several, sketch_axes
from knockgrid.figures.heatmaps import layer_heatmap, position_heatmap
from knockgrid.figures.panels import (
    inner_names_away,
    limits_of_all,
    mesh_of,
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
        >>> row = {"intervention": "last", "layer": 0}
        >>> rows = [{**row, "prompt": f"{p}", "js": p / 30} for p in range(12)]
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


CHANCE = 0.5


def probe_beside_effect(
    probes: pd.DataFrame,
    table: pd.DataFrame,
    apart: pd.DataFrame | None = None,
    *,
    metric: str = "js",
    diverging: bool = False,
    ax: Any = None,
    figsize: Size | None = None,
    fontsize: float | int | None = None,
    title: str | None = None,
    **style: Any,
) -> Figure:
    """Draw probe AUC, its shuffled control and the divergence on the same layers and positions.

    `probes` comes from `probe_auc()`, `table` from a sweep over `per_position()` of the same
    places, `apart` from `readable_not_used()`: with it a fourth panel shows what is readable but
    not used. The AUC runs from 0.5 to 1 in the published Blues; cells below 0.5 carry a minus sign,
    or, with `diverging`, a colour of their own around 0.5. `figsize`, `fontsize` and `ax` are as in
    `panels`, `title` stands above all panels, other options are those of `layer_heatmap`.

    Example:
        >>> from knockgrid.table.table import build
        >>> row = {"intervention": "a", "position": "last_q", "layer": 0}
        >>> probes = build([{"prompt": "seed 0", **row, "auc": 0.7, "auc_shuffled": 0.5}], {})
        >>> table = build([{"prompt": "rome", **row, "js": 0.1}], {"unit": "nats"})
        >>> [ax.get_title() for ax in probe_beside_effect(probes, table).axes if ax.get_title()]
        ['probe (1 seed)', 'shuffled labels (1 seed)', 'divergence (n = 1 prompt)']

    Raises:
        InputError: a table without positions or AUCs.

    Source: Orgad et al. 2024, arXiv 2410.02707, figure 2 (the AUC).
    Limit: prompts answered wrong are few in a well-known relation, so an AUC can be chance.
    """
    if "auc" not in probes:
        raise InputError("the first table has no column 'auc'; make it with probe_auc()")
    count, columns = (3, 3) if apart is None else (4, 2)
    rows = -(-count // columns)
    width, height = heatmap_size(probes["layer"].nunique(), probes["position"].nunique(), 4)
    size = (min(width * columns, 26.0), (height + 1.6) * rows)
    seeds = probes["prompt"].nunique()
    auc = {**style, **({"cmap": "RdBu_r"} if diverging else {})}
    auc["limits"] = (0.0 if diverging else CHANCE, 1.0)
    with several(rows, columns, count, size, ax, figsize, fontsize) as (whole, places):
        for place, name, words in zip(
            places, ("auc", "auc_shuffled"), ("probe", "shuffled labels"), strict=False
        ):
            position_heatmap(probes, name, ax=place, **auc)
            place.set_title(f"{words} ({seeds} seed{'s' * (seeds > 1)})", fontsize="medium")
            _mark_below_chance(place)
        position_heatmap(table, metric, ax=places[2], title="divergence", **style)
        if apart is not None:
            _difference(apart, places[3])
        inner_names_away(places)
        if title:
            whole.suptitle(title, fontsize="medium")
    return whole


def _mark_below_chance(ax: Axes) -> None:
    mesh = mesh_of(ax)
    assert mesh is not None
    for y, x in np.argwhere(np.asarray(mesh.get_array()) < CHANCE):
        ax.text(x + 0.5, y + 0.5, "−", ha="center", va="center", gid="below chance")


def _difference(apart: pd.DataFrame, ax: Axes) -> None:
    """Red: a probe can read it and the model does not use it; blue: the reverse."""
    found: Any = apart.rename_axis(index="layer", columns="position").stack(future_stack=True)
    rows = found.rename("share").reset_index().assign(prompt="difference", intervention="all")
    rows["status"] = np.where(rows["share"].notna(), "ok", "NA: no value in one of the two")
    label = "readable − used (shares, −1 … 1)"
    look = {"cmap": "RdBu_r", "limits": (-1.0, 1.0), "colorbar": label}
    position_heatmap(build(rows.to_dict("records"), {}), "share", ax=ax, **look)
    ax.set_title("readable but not used", fontsize="medium")
