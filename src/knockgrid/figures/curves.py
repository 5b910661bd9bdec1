"""Curves over the layers: of interventions, of one row's sources, of treatments and contrasts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure as Whole

from knockgrid.errors import InputError, unknown
from knockgrid.figures.canvas import Size, below, drawing, legend_beside, scale, several
from knockgrid.figures.figure import Figure
from knockgrid.figures.panels import parts_by
from knockgrid.figures.ticks import Shown, chosen, name_layers, relabelled
from knockgrid.figures.words import (
    ROWS,
    metric_label,
    plain,
    prompt_count,
    row_labels,
    set_title,
)
from knockgrid.stats.clusters import Clusters, clusters, counted, fewest
from knockgrid.stats.mean_interval import check_level, mean_interval, per_cluster
from knockgrid.table.floor import floor_grid, floor_of
from knockgrid.table.measures import is_signed
from knockgrid.table.table import cells, grid, metadata_of, with_layers
from knockgrid.table.treatments import only_rows, treatments

# Okabe and Ito's palette, told apart also by readers who are colour-blind; yellow is too pale
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLES = ("-", "--", "-.", ":")
VISIBLE = 0.005  # of the largest mean: a noise floor below that lies on the axis


def _look(i: int, points: float | None = None) -> dict[str, Any]:
    """The colour and dashes of the i-th line of a figure, and its marker of so many points."""
    look = {"color": COLOURS[i % len(COLOURS)], "linestyle": STYLES[i % len(STYLES)]}
    marker = {"marker": MARKERS[i % len(MARKERS)], "markersize": points}
    return look if points is None else {**look, **marker}


def _along_layers(ax: Axes, at: Any, layers: Any, ticks: Any, step: int = 2) -> None:
    name_layers(ax.xaxis, at, list(map(int, layers)), ticks, step)
    ax.spines[["top", "right"]].set_visible(False)


def _band(ax: Axes, x: Any, mine: pd.DataFrame, colour: str) -> None:
    low, high = mine[["band_low", "band_high"]].to_numpy(float).T
    ax.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)


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
        >>> row = {"prompt": "rome", "intervention": "last"}
        >>> rows = [{**row, "layer": layer, "js": layer / 10} for layer in range(3)]
        >>> layer_curve(build(rows, {"unit": "nats"})).get_ylabel()
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
    table = with_layers(table)
    means = grid(table, metric)
    rows = chosen("intervention", list(means.index), row_order)
    table = table[table["intervention"].isin(rows)]
    means = means.loc[rows]
    parts = cells(table, metric, "intervention", "layer")
    names = relabelled(rows, row_labels(table, rows), row_order)
    colours = {name: _look(i)["color"] for i, name in enumerate(rows)}
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
            for name, mine in found.groupby("intervention", sort=False):
                _band(ax, x, mine.reindex(layers), colours[name])
        elif len(finite) and min(groups.counts) > 1:
            found = per_cluster(finite, metric)
            found = found[found["dimension"] == fewest(groups)]
            for name, mine in found.groupby("intervention", sort=False):
                wide = mine.pivot(index="layer", columns="cluster", values="mean").reindex(layers)
                lines = [np.column_stack([x, wide[one].to_numpy(float)]) for one in wide]
                look = {"colors": colours[name], "linewidths": 0.6, "alpha": 0.6}
                ax.add_collection(LineCollection(lines, **look))
        _floor(ax, x, means, floor_grid(table, metric, means, parts))
        _along_layers(ax, x.tolist(), layers, ticks)
        ax.set(xlabel="Layer", ylabel=metric_label(table, metric))
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
    look = _look(i, 3.5 * scale())
    drawn = np.where(np.isinf(y), np.nan, y)
    ax.plot(x, drawn, linewidth=1.4 * scale(), label=label + note, **look)


def _floor(ax: Axes, x: np.ndarray, means: pd.DataFrame, floor: pd.DataFrame | None) -> None:
    """A thin dotted line per noise floor, where it would be seen on the scale of the means."""
    highest = np.nanmax(np.abs(means.replace([np.inf, -np.inf], np.nan).to_numpy(float)), initial=0)
    if floor is None or not floor.max(axis=None) > VISIBLE * highest:
        return
    rows = floor.to_numpy(float)
    alike = bool((rows == rows[:1]).all())
    for i, row in enumerate(rows[:1] if alike else rows):
        colour = "0.35" if alike else _look(i)["color"]
        label = "noise floor" if i == 0 else "_"
        ax.plot(x, row, label=label, gid="floor", color=colour, linestyle=":", linewidth=0.8)


def _band_text(parts: pd.DataFrame, groups: Clusters, level: float) -> str:
    if parts.groupby(["row", "column"])["value"].count().max() < 2:
        return "one prompt: no band"
    if groups.too_few:
        few = counted(min(groups.counts), fewest(groups))
        return f"only {few}: no band" + (", a thin line each" if min(groups.counts) > 1 else "")
    return f"band: {100 * level:g} % simultaneous over layers,\n{groups.words}"


@Figure.of(by="no")
def scaled_curves(
    table: pd.DataFrame,
    metric: str = "js",
    *,
    rows: Sequence[str] | None = None,
    ticks: Any = None,
    ax: Any = None,
    figsize: Size | None = None,
    fontsize: float | int | None = None,
    title: str | None = None,
) -> Whole:
    """Draw one panel per row of the figure with one line per source, each divided by its largest.

    Example:
        >>> from knockgrid.table.table import build
        >>> one = {"row": "subject", "window": 1}
        >>> described = [{**one, "name": by, "corruption": f"{by}()"} for by in ("swap", "zero")]
        >>> row = {"prompt": "rome", "layer": 0, "js": 0.5}
        >>> rows = [{**row, "intervention": by} for by in ("swap", "zero")]
        >>> figure = scaled_curves(build(rows, {"unit": "nats", "interventions": described}))
        >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        ['swap(): 0.50 at most', 'zero(): 0.50 at most']

    The legend gives what 1 stands for, in the metric's unit. A rank correlation of such curves can
    be 0.99 while a step turns into a ramp, so look at where they rise and fall, and how steeply.
    `figsize`, `fontsize` and `ax` are as in `panels`, `ticks` as in `layer_heatmap`.

    Raises:
        InputError: as `grid`, an unknown row, or a table in which no row has a source.
    """
    table = with_layers(table)
    sources: dict[str, dict[str, str]] = {}
    for one in treatments(table):
        if one.source is not None:
            sources.setdefault(one.row, {})[one.name] = plain(one.source)
    if not sources:
        raise InputError("no row of this table has a source; sweep patches from several sources")
    for row in rows or ():
        if row not in sources:
            raise unknown("row", row, sources)
    wanted = list(rows or sources)
    n = len(wanted)
    with several(1, n, n, (4.6 * n, 3.2), ax, figsize, fontsize, sharey=True) as (whole, places):
        for row, place in zip(wanted, places, strict=True):
            values = grid(only_rows(table, list(sources[row])), metric)
            for i, (name, source) in enumerate(sources[row].items()):
                curve = values.loc[name].to_numpy(float)
                top = np.nanmax(curve)
                label = f"{source}: {top:.2f} at most"
                place.plot(curve / top, label=label, linewidth=1.3, **_look(i, 3))
            _along_layers(place, range(values.shape[1]), values.columns, ticks, 4)
            place.axhline(0.5, color="0.8", linewidth=0.8, zorder=0)
            place.set(xlabel="Layer", ylim=(0, 1.05))
            place.legend(frameon=False, fontsize="x-small")
            place.set_title(ROWS.get(row, plain(row)), fontsize="medium")
        places[0].set_ylabel("share of the largest mean")
        if title != "" and ax is None:
            whole.suptitle(title or metric_label(table, metric), fontsize="medium")
    return whole


@Figure.of(by="itself")
def contrast_curves(
    table: pd.DataFrame,
    metric: str = "js",
    *,
    by: str | None = None,
    order: Sequence[str] | None = None,
    level: float = 0.95,
    seed: int = 0,
    ticks: Any = None,
    ax: Any = None,
    figsize: Size | None = None,
    fontsize: float | int | None = None,
    title: str | None = None,
) -> Whole:
    """Draw treatments (columns) with their contrasts over the layers, one row of panels per group.

    Example:
        >>> from knockgrid.table.table import build
        >>> described = [
        ...     {"name": "subject", "role": "treatment", "of": None},
        ...     {"name": "subject | bos", "role": "contrast", "of": "subject"},
        ... ]
        >>> row = {"prompt": "rome", "layer": 0, "js": 0.1}
        >>> rows = [{**row, "intervention": one["name"]} for one in described]
        >>> figure = contrast_curves(build(rows, {"unit": "nats", "interventions": described}))
        >>> [line.get_label() for line in figure.axes[0].lines]
        ['Subj.', 'bos']

    The treatment is the thick line; its band holds for all layers at once and knows the clusters
    (`mean_interval`), and there is none with fewer than six of them. Contrasts are drawn without
    bands: whether a difference is more than chance is for `exceeds` to say, which pairs them. The
    largest noise floor of the panel is a dotted line where the axis shows it. All panels share
    their axes; `by` is a column such as "group", `order` its values in order. `figsize`, `fontsize`
    and `ax` are as in `panels`, `ticks` as in `layer_heatmap`.

    Raises:
        InputError: a table without contrasts, an unknown column or value, and as `mean_interval`.
    """
    table, columns = with_layers(table), dict[str, list[str]]()
    for one in metadata_of(table).get("interventions", []):
        if one.get("role") == "contrast":
            columns.setdefault(str(one["of"]), [str(one["of"])]).append(str(one["name"]))
    if not columns:
        raise InputError("the table has no contrasts; sweep treatments together with contrasts()")
    groups = [("", table)]
    if by is not None:
        told = table[table[by].notna()] if by in table else table
        groups = [(f"{plain(v)}, ", part) for v, part in parts_by(told, by, order or None)]
    shape = len(groups), len(columns)
    size = 3.6 * shape[1], 2.3 * shape[0] + 1.2
    same = {"sharex": True, "sharey": True}
    count = shape[0] * shape[1]
    with several(*shape, count, size, ax, figsize, fontsize, **same) as (whole, flat):
        places = np.reshape(np.array(flat, dtype=object), shape)
        for (name, part), row in zip(groups, places, strict=True):
            for names, place in zip(columns.values(), row, strict=True):
                rows = only_rows(part, names)
                found = mean_interval(rows, metric, level=level, seed=seed)
                _panel(place, rows, metric, names, found, ticks)
                said = f"{name}n = {part['prompt'].nunique()}"
                place.set_title(said, fontsize="small", loc="left")
        if not is_signed(table, metric):  # shared, once all bands are there
            places[0, 0].set_ylim(0.0, places[0, 0].get_ylim()[1])
        for place in places[-1]:
            place.set_xlabel("Layer")
            under = {"bbox_to_anchor": (0.0, 0.0), "bbox_transform": below(place, 0.52)}
            under |= {"loc": "upper left", "borderaxespad": 0, "ncols": 2}
            place.legend(frameon=False, fontsize="x-small", **under)
        whole.supylabel(metric_label(table, metric), fontsize="medium")
        if title:
            whole.suptitle(title, fontsize="medium")
    return whole


def _panel(
    ax: Axes,
    table: pd.DataFrame,
    metric: str,
    names: list[str],
    found: pd.DataFrame,
    ticks: Any,
) -> None:
    """Draw a treatment, which is the first of the names, and its contrasts."""
    layers = list(dict.fromkeys(found["layer"]))
    x = range(len(layers))
    for i, (name, label) in enumerate(zip(names, row_labels(table, names), strict=True)):
        mine = found[found["intervention"] == name].set_index("layer").reindex(layers)
        width = 1.8 if i == 0 else 1.0
        ax.plot(x, mine["mean"], label=label.split(" | ")[-1], linewidth=width, **_look(i))
        if i == 0:
            _band(ax, x, mine, COLOURS[0])
    floors = floor_of(only_rows(table, names[:1]), metric)
    floor = 0.0 if floors is None else float(np.nanmax(floors))
    if floor > VISIBLE * float(np.nanmax(found["mean"])):
        ax.axhline(floor, color="0.3", linewidth=0.9, linestyle=":", label="noise floor")
    _along_layers(ax, x, layers, ticks, 5)
