"""layer_curve: one line per intervention over the layers, with a band that knows the clusters."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from knockgrid.figures.canvas import Size, drawing, legend_beside, scale
from knockgrid.figures.figure import Figure
from knockgrid.figures.ticks import Shown, chosen, name_layers, relabelled
from knockgrid.figures.words import metric_label, prompt_count, row_labels, set_title
from knockgrid.stats.clusters import Clusters, clusters, counted, fewest
from knockgrid.stats.mean_interval import check_level, mean_interval, per_cluster
from knockgrid.table.floor import floor_grid
from knockgrid.table.table import cells, grid

# Okabe and Ito's palette, told apart also by readers who are colour-blind; yellow is too pale
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLES = ("-", "--", "-.", ":")
VISIBLE = 0.005  # of the largest mean: a noise floor below that lies on the axis


def look_of(i: int) -> dict[str, Any]:
    """The colour and dashes of the i-th line of a figure."""
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": STYLES[i % len(STYLES)]}


@Figure.of()
def layer_curve(
    table: pd.DataFrame,
    metric: str = "js",
    *,
    ax: Axes | None = None,
    figsize: Size | None = None,
    fontsize: float | int | None = None,
    row_order: Shown | None = None,
    ticks: Any = None,
    level: float = 0.95,
    seed: int = 0,
    limits: tuple[float | int, float | int] | None = None,
    title: str | None = None,
) -> Axes:
    """Draw the mean of `metric` over prompts as one line per intervention, with a band.

    Example:
        >>> from knockgrid.table.table import build
        >>> table = build(
        ...     [
        ...         {"prompt": p, "intervention": "last", "layer": layer, "js": js + layer / 10}
        ...         for p, js in [("rome", 0.1), ("oslo", 0.2)]
        ...         for layer in range(3)
        ...     ],
        ...     {"unit": "nats"},
        ... )
        >>> layer_curve(table).get_ylabel()
        'Avg. JS divergence (nats)'

    The band holds for all layers of a line at once, at `level`, and resamples whole clusters (as
    `mean_interval`; the legend says which). With fewer than six clusters there is no band: a thin
    line per cluster stands in its place, and the legend says so. A single prompt has neither.
    Layers that do not increase stand in the user's order at equal distances. Infinite means are
    not drawn, the legend counts them, and their line has no band. A noise floor in the metadata
    that can be seen on this scale is a thin dotted line, in the colour of its row where rows
    differ. `limits` bounds the axis, in the metric's unit; `figsize`, `fontsize`, `row_order` and
    `ticks` are as in `layer_heatmap`. On a narrow figure the legend stands below.

    Raises:
        InputError: as `grid`, or a level outside (0, 1).

    Limit: a band says how far the mean is known, not how far prompts or clusters differ.
    """
    check_level(level)
    means = grid(table, metric)
    rows = chosen("intervention", list(means.index), row_order)
    table = table[table["intervention"].isin(rows)]
    means = means.loc[rows]
    parts = cells(table, metric, "intervention", "layer")
    names = relabelled(rows, row_labels(table, rows), row_order)
    layers = list(means.columns)
    increase = all(a < b for a, b in zip(layers, layers[1:], strict=False))
    x = np.array(layers if increase else range(len(layers)), dtype=float)
    with drawing(7.0 + 0.06 * max(map(len, names)), 3.4, ax, figsize, fontsize) as ax:
        groups = clusters(table)
        for i, name in enumerate(rows):
            _line(ax, i, x, means.loc[name].to_numpy(float), names[i])
        infinite = [name for name, row in means.iterrows() if np.isinf(row.to_numpy(float)).any()]
        finite = table[~table["intervention"].isin(infinite)]
        if len(finite) and not groups.too_few:
            found = mean_interval(finite, metric, level=level, seed=seed).set_index("layer")
            for colour, mine in _by_row(found, rows):
                ends = mine[["band_low", "band_high"]].reindex(layers).to_numpy(float)
                ax.fill_between(x, *ends.T, color=colour, alpha=0.18, linewidth=0)
        elif len(finite) and min(groups.counts) > 1:
            found = per_cluster(finite, metric)
            for colour, mine in _by_row(found[found["dimension"] == fewest(groups)], rows):
                wide = mine.pivot(index="cluster", columns="layer", values="mean").reindex(
                    columns=layers
                )
                lines = [np.column_stack([x, row]) for row in wide.to_numpy(float)]
                ax.add_collection(LineCollection(lines, colors=colour, linewidths=0.6, alpha=0.6))
        _floor(ax, x, means, floor_grid(table, metric, means, parts))
        name_layers(ax.xaxis, x.tolist(), list(map(int, layers)), ticks)
        ax.set(xlabel="Layer", ylabel=metric_label(table, metric))
        ax.spines[["top", "right"]].set_visible(False)
        if limits is not None:
            ax.set_ylim(limits)
        elif np.nanmin(means.to_numpy(float), initial=0.0) >= 0:
            ax.set_ylim(bottom=0.0)
        set_title(ax, title, prompt_count(parts))
        legend_beside(ax, title=_band_text(parts, groups, level))
    return ax


def _line(ax: Axes, i: int, x: np.ndarray, y: np.ndarray, label: str) -> None:
    infinite = int(np.isinf(y).sum())
    note = f" (infinite at {counted(infinite, 'layer')})" if infinite else ""
    ax.plot(
        x,
        np.where(np.isinf(y), np.nan, y),
        marker=MARKERS[i % len(MARKERS)],
        markersize=3.5 * scale(),
        linewidth=1.4 * scale(),
        label=label + note,
        **look_of(i),
    )


def _by_row(found: pd.DataFrame, rows: list) -> Iterator[tuple[str, pd.DataFrame]]:
    """The colour of every row's line, and what was found of the row."""
    for name, mine in found.groupby("intervention", sort=False):
        yield look_of(rows.index(name))["color"], mine


def _floor(ax: Axes, x: np.ndarray, means: pd.DataFrame, floor: pd.DataFrame | None) -> None:
    """A thin dotted line per noise floor, where it would be seen on the scale of the means."""
    highest = np.nanmax(np.abs(means.replace([np.inf, -np.inf], np.nan).to_numpy(float)), initial=0)
    if floor is None or not floor.max(axis=None) > VISIBLE * highest:
        return
    rows = floor.to_numpy(float)
    alike = bool((rows == rows[:1]).all())
    for i, row in enumerate(rows[:1] if alike else rows):
        colour = "0.35" if alike else look_of(i)["color"]
        label = "noise floor" if i == 0 else "_"
        ax.plot(x, row, label=label, gid="floor", color=colour, linestyle=":", linewidth=0.8)


def _band_text(parts: pd.DataFrame, groups: Clusters, level: float) -> str:
    if parts.groupby(["row", "column"])["value"].count().max() < 2:
        return "one prompt: no band"
    if groups.too_few:
        few = counted(min(groups.counts), fewest(groups))
        return f"only {few}: no band" + (", a thin line each" if min(groups.counts) > 1 else "")
    return f"band: {100 * level:g} % simultaneous over layers,\n{groups.words}"
