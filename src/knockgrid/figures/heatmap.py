"""The heatmap that all grid figures are made of."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.ticker import MaxNLocator

from knockgrid.errors import InputError, unknown
from knockgrid.figures.canvas import (
    LEAST,
    Size,
    bars_of,
    drawing,
    heatmap_size,
    letter,
    scale,
    width_of,
)
from knockgrid.figures.marks import mark
from knockgrid.figures.ticks import Shown, chosen, name_layers, relabelled
from knockgrid.figures.words import metric_label, prompt_count, set_title
from knockgrid.table.floor import floor_grid
from knockgrid.table.measures import is_signed
from knockgrid.table.table import cells, grid, with_layers

Limits = tuple[float | int, float | int]
# Blue and orange are told apart by readers who are colour-blind; white is the middle.
DIVERGING = LinearSegmentedColormap.from_list(
    "blue_white_orange", ["#2166ac", "#92c5de", "#ffffff", "#fdb863", "#e66101"]
)


@dataclass(frozen=True)
class Style:
    """The options that all heatmaps have, see `layer_heatmap`."""

    ax: Axes | None = None
    figsize: Size | None = None
    fontsize: float | int | None = None
    row_order: Shown | None = None
    column_order: Shown | None = None
    ticks: int | Iterable[Any] | None = None
    limits: Limits | None = None
    cmap: str | Colormap | None = None
    diverging: bool = False
    colorbar: bool | str = True
    annotate: bool = False
    title: str | None = None


@dataclass(frozen=True)
class Side:
    """One side of a heatmap: the column that stands along it, its label, and what names its cells.

    Without `names` these are layers, of which every `step`th is named, or fewer that have room.
    """

    column: str
    label: str = ""
    names: Callable[[pd.DataFrame, list], list[str]] | None = None
    step: int = 2
    slanted: bool = False

    def names_of(self, table: pd.DataFrame, there: list, wanted: Shown | None) -> list[str]:
        """The names of the cells; those that the user gives may hold a formula."""
        names = self.names(table, there) if self.names else [str(int(layer)) for layer in there]
        return relabelled(there, names, wanted)


@dataclass(frozen=True)
class Heatmap:
    """What one kind of heatmap has and the others have not.

    `sorted` puts the rows in increasing order, `upward` the first one at the bottom, `words` makes
    the title, `more` adds marks.
    """

    rows: Side
    columns: Side
    cmap: str = "Blues"
    sorted: bool = False
    upward: bool = False
    words: Callable[[pd.DataFrame, str, str | None], str] | None = None
    more: Callable[[Axes, pd.DataFrame, pd.DataFrame], object] | None = None


def heatmap(kind: Heatmap, table: pd.DataFrame, metric: str, options: Mapping[str, Any]) -> Axes:
    """Draw a table as one kind of heatmap, with its colour bar, marks, ticks and prompt count."""
    signed = is_signed(table, metric)
    style = _style(options, DIVERGING if signed else kind.cmap)
    down, along = kind.rows.column, kind.columns.column
    table = with_layers(table) if "layer" in (down, along) else table
    values, parts = grid(table, metric, down, along), cells(table, metric, down, along)
    index = chosen(down, list(values.index), style.row_order)
    if kind.sorted and style.row_order is None:
        index = sorted(index)
    names = chosen(along, list(values.columns), style.column_order)
    values = values.loc[index, names]
    floor = floor_grid(table, metric, values, parts)
    parts = parts[parts["row"].isin(index) & parts["column"].isin(names)]
    columns = kind.columns.names_of(table, names, style.column_order)
    rows = kind.rows.names_of(table, index, style.row_order)
    size = heatmap_size(len(rows), len(columns), max(map(len, rows)))
    drop = 0.6 + 0.05 * max(map(len, columns)) if kind.columns.slanted else 0.5
    drop += 0.22 * max(name.count("\n") for name in columns)  # a second line of tick labels
    with drawing(size[0], size[1], style.ax, style.figsize, style.fontsize) as ax:
        _cells(ax, values, style, metric_label(table, metric), signed)
        slanted = {"rotation": 40, "ha": "right"} if kind.columns.slanted else {}
        _ticks(ax.xaxis, names, columns, kind.columns, style, **slanted)
        _ticks(ax.yaxis, index, rows, kind.rows, style, rotation=0)
        ax.set(xlabel=kind.columns.label, ylabel=kind.rows.label)
        mark(ax, values, parts, floor, drop)
        if kind.upward:
            ax.invert_yaxis()
        if kind.more is not None:
            kind.more(ax, table, values)
        words = kind.words(table, metric, style.title) if kind.words else style.title
        set_title(ax, "" if style.title == "" else words, prompt_count(parts))
    return ax


def _style(options: Mapping[str, Any], cmap: str | Colormap) -> Style:
    for name in options:
        if name not in Style.__dataclass_fields__:
            raise unknown("option", name, Style.__dataclass_fields__)
    style = Style(**options)
    own = DIVERGING if style.diverging else cmap
    return style if style.cmap is not None else replace(style, cmap=own)


def _cells(ax: Axes, grid: pd.DataFrame, style: Style, label: str, signed: bool) -> None:
    values = grid.to_numpy(float)
    low, high = limits_of(values, style.limits, style.diverging, signed)
    finite = values[np.isfinite(values)]
    under, over = finite.min(initial=low) < low, finite.max(initial=high) > high
    bar = {
        "label": style.colorbar if isinstance(style.colorbar, str) else label,
        "ticks": MaxNLocator(5, steps=[1, 2, 5, 10]),
        "pad": 0.02,
        "extend": {(1, 0): "min", (0, 1): "max", (1, 1): "both"}.get((under, over), "neither"),
    }
    sns.heatmap(
        grid,
        ax=ax,
        vmin=low,
        vmax=high,
        cmap=style.cmap,
        annot=grid.map(short).to_numpy() if style.annotate else False,
        fmt="",
        annot_kws={"fontsize": max(LEAST, 6 * scale())},
        linewidths=0.4 * min(1.0, 5 * width_of(ax) / grid.shape[1]),
        cbar=bool(style.colorbar),
        cbar_kws=bar,
        xticklabels=False,
        yticklabels=False,
    )
    for beside in bars_of(ax):
        letter(beside)


def _ticks(axis: Any, there: list, names: list[str], side: Side, style: Style, **text: Any) -> None:
    """Name cells in their middle: all that have names of their own, some of the layers."""
    at = [place + 0.5 for place in range(len(names))]
    if side.names is not None:
        axis.set_ticks(at, names, **text)
    else:
        name_layers(axis, at, list(map(int, there)), style.ticks, side.step, names)
        axis.set_tick_params(**text)
    axis.set_tick_params(length=2 if scale() >= 1 else 1.5)


def limits_of(
    values: np.ndarray, given: Limits | None, diverging: bool = False, signed: bool = False
) -> Limits:
    """The ends of the colour scale: as given, else from 0, or without the outermost cells.

    A diverging scale leaves out two cells at each end, or 2 % of them, which would bleach the rest.
    Of a signed measure both ends are as far from 0, which the middle of the colours stands for.
    """
    if signed and given is None:
        most = max(map(abs, limits_of(values, None, diverging)))
        return -most, most
    if given is not None:
        if not (len(given) == 2 and all(map(math.isfinite, given)) and given[0] < given[1]):
            raise InputError(f"limits {given!r} are not (low, high) with low < high")
        return given
    finite = np.sort(values[np.isfinite(values)])
    if diverging and finite.size:
        out = max(2, math.ceil(0.02 * finite.size)) if finite.size >= 20 else 0
        inner = finite[out : finite.size - out]
        inner = inner if inner[0] < inner[-1] else finite
        return (inner[0], inner[-1]) if inner[0] < inner[-1] else (0.0, 1.0)
    # 0 is "no effect": a scale that starts elsewhere makes noise look like one
    low = finite.min(initial=0.0)
    high = finite.max() if low < 0 else finite.max(initial=0.0)
    return (low, high) if low < high else (low, low + 1.0)


def short(value: float) -> str:
    """A number that fits into a cell, to two decimals; "~0" is not quite 0."""
    if value == 0:
        return "0"
    if abs(value) < 0.005:
        return "~0"
    if abs(value) >= 10:
        return f"{value:.0f}"
    return f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 0.995 else f"{value:.2f}"
