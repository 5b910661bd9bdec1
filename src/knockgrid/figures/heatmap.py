"""The heatmap that all grid figures are made of."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
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
from knockgrid.figures.words import metric_label, prompt_count, titled
from knockgrid.table.floor import floor_grid
from knockgrid.table.table import cells, grid

Limits = tuple[float | int, float | int]
# Blue and orange are told apart by readers who are colour-blind; white is the middle.
DIVERGING = LinearSegmentedColormap.from_list(
    "blue_white_orange", ["#2166ac", "#92c5de", "#ffffff", "#fdb863", "#e66101"]
)


@dataclass(frozen=True)
class Style:
    """How a heatmap is drawn: the options that all of them have, see `layer_heatmap`."""

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


def style_of(options: Mapping[str, Any], cmap: str = "Blues") -> Style:
    """The options of a heatmap, once their names are known to be ones.

    Example:
        >>> style_of({"figsize": (3.25, 1.2)}).cmap
        'Blues'

    Raises:
        InputError: another name.
    """
    allowed = list(Style.__dataclass_fields__)
    for name in options:
        if name not in allowed:
            raise unknown("option", name, allowed)
    style = Style(**options)
    own = DIVERGING if style.diverging else cmap
    return style if style.cmap is not None else replace(style, cmap=own)


@dataclass(frozen=True)
class Grid:
    """A grid that is ready to be drawn: values, what they are made of, and how they are named."""

    values: pd.DataFrame
    parts: pd.DataFrame
    label: str
    floor: pd.DataFrame | None


def grid_of(table: pd.DataFrame, metric: str, rows: str, columns: str, style: Style) -> Grid:
    """The grid of a table, with the rows and columns that are asked for, in that order.

    Raises:
        InputError: as `grid`, or a row or column that is not there.
    """
    values, parts = grid(table, metric, rows, columns), cells(table, metric, rows, columns)
    floor = floor_grid(table, metric, values, parts)
    if style.row_order is not None or style.column_order is not None:
        index = chosen(rows, list(values.index), style.row_order)
        names = chosen(columns, list(values.columns), style.column_order)
        values = values.loc[index, names]
        floor = None if floor is None else floor.loc[index, names]
        parts = parts[parts["row"].isin(index) & parts["column"].isin(names)]
    return Grid(values, parts, metric_label(table, metric), floor)


@dataclass(frozen=True)
class Side:
    """What stands along one side of a heatmap: names, or layers, which may be too many to name."""

    label: str
    names: Sequence[str] | None = None
    step: int = 2
    slanted: bool = False


Name = Callable[[pd.DataFrame, list], list[str]]


@dataclass(frozen=True)
class Axis:
    """One side of a heatmap before there is a table: its column, and how to name its values."""

    column: str
    label: str = ""
    names: Name | None = None
    step: int = 2
    slanted: bool = False

    def of(self, table: pd.DataFrame, values: pd.Index) -> Side:
        """This side with the names that its values have in a table."""
        names = None if self.names is None else self.names(table, list(values))
        return Side(self.label, names, self.step, self.slanted)


@dataclass(frozen=True)
class Heatmap:
    """What one kind of heatmap has and the others have not.

    `sorted` puts the rows in increasing order, `upward` the first one at the bottom, `words` makes
    the title, `more` adds marks.
    """

    rows: Axis
    columns: Axis
    cmap: str = "Blues"
    sorted: bool = False
    upward: bool = False
    words: Callable[[pd.DataFrame, str, str | None], str] | None = None
    more: Callable[..., object] | None = None


def heatmap(kind: Heatmap, table: pd.DataFrame, metric: str, options: Mapping[str, Any]) -> Axes:
    """Draw a table as one kind of heatmap.

    Raises:
        InputError: as `layer_heatmap`.
    """
    style = style_of(options, kind.cmap)
    made = grid_of(table, metric, kind.rows.column, kind.columns.column, style)
    if kind.sorted and style.row_order is None:
        values = made.values.sort_index()
        floor = None if made.floor is None else made.floor.loc[values.index]
        made = replace(made, values=values, floor=floor)
    values = made.values
    return draw(
        made,
        style,
        kind.columns.of(table, values.columns),
        kind.rows.of(table, values.index),
        upward=kind.upward,
        words=None if kind.words is None else kind.words(table, metric, style.title),
        more=None if kind.more is None else partial(kind.more, table=table, values=values),
    )


def draw(
    made: Grid,
    style: Style,
    x: Side,
    y: Side,
    *,
    upward: bool = False,
    words: str | None = None,
    more: Callable[[Axes], object] | None = None,
) -> Axes:
    """Draw a grid with its colour bar, marks, ticks and number of prompts.

    `words` are the title's, `upward` puts the first row at the bottom, `more` draws what is added.
    """
    values = made.values
    columns = _names(values.columns, x, style.column_order)
    rows = _names(values.index, y, style.row_order)
    size = heatmap_size(*values.shape, max(map(len, rows)))
    drop = 0.6 + 0.05 * max(map(len, columns)) if x.slanted else 0.5
    drop += 0.22 * max(name.count("\n") for name in columns)  # a second line of tick labels
    with drawing(*size, style.ax, style.figsize, style.fontsize) as ax:
        _cells(ax, made, style)
        slanted = {"rotation": 40, "ha": "right"} if x.slanted else {}
        _ticks(ax.xaxis, values.columns, columns, x, style, **slanted)
        _ticks(ax.yaxis, values.index, rows, y, style, rotation=0)
        ax.set(xlabel=x.label, ylabel=y.label)
        mark(ax, values, made.parts, made.floor, drop)
        if upward:
            ax.invert_yaxis()
        if more is not None:
            more(ax)
        said = titled(style.title if words is None else words, prompt_count(made.parts))
        ax.set_title("" if style.title == "" else said, fontsize="medium")
    return ax


def _cells(ax: Axes, made: Grid, style: Style) -> None:
    values = made.values.to_numpy(float)
    low, high = limits_of(values, style.limits, style.diverging)
    finite = values[np.isfinite(values)]
    under, over = finite.min(initial=low) < low, finite.max(initial=high) > high
    bar = {
        "label": style.colorbar if isinstance(style.colorbar, str) else made.label,
        "ticks": MaxNLocator(5, steps=[1, 2, 5, 10]),
        "pad": 0.02,
        "extend": {(1, 0): "min", (0, 1): "max", (1, 1): "both"}.get((under, over), "neither"),
    }
    sns.heatmap(
        made.values,
        ax=ax,
        vmin=low,
        vmax=high,
        cmap=style.cmap,
        annot=made.values.map(short).to_numpy() if style.annotate else False,
        fmt="",
        annot_kws={"fontsize": max(LEAST, 6 * scale())},
        linewidths=0.4 * min(1.0, 5 * width_of(ax) / made.values.shape[1]),
        cbar=bool(style.colorbar),
        cbar_kws=bar,
        xticklabels=False,
        yticklabels=False,
    )
    for beside in bars_of(ax):
        letter(beside)


def _names(axis: pd.Index, side: Side, wanted: Shown | None) -> list[str]:
    """The names of the cells of one side; those that the user gives may hold a formula."""
    names = [str(int(layer)) for layer in axis] if side.names is None else side.names
    return relabelled(list(axis), names, wanted)


def _ticks(
    axis: Any, of: pd.Index, names: list[str], side: Side, style: Style, **text: Any
) -> None:
    """Name cells in their middle: all that have names of their own, some of the layers."""
    if side.names is not None:
        axis.set_ticks([place + 0.5 for place in range(len(names))], names, **text)
    else:
        at = [place + 0.5 for place in range(len(names))]
        name_layers(axis, at, list(map(int, of)), style.ticks, side.step, names)
        axis.set_tick_params(**{k: v for k, v in text.items() if k == "rotation"})
    axis.set_tick_params(length=2 if scale() >= 1 else 1.5)


def limits_of(values: np.ndarray, given: tuple | None, diverging: bool = False) -> tuple:
    """The ends of the colour scale: as given, else from 0, or without the outermost cells.

    A diverging scale leaves out two cells at each end, or 2 % of them, which would bleach the rest.

    Example:
        >>> values = np.array([*range(30), 1000.0, 2000.0])
        >>> [tuple(map(int, limits_of(values, None, diverging=d))) for d in (False, True)]
        [(0, 2000), (2, 29)]
    """
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
    """A number that fits into a cell, to two decimals; "~0" is not quite 0.

    Example:
        >>> [short(value) for value in (0.4236, 0.0, 0.0004, -1.256, 31.4)]
        ['.42', '0', '~0', '-1.26', '31']
    """
    if value == 0:
        return "0"
    if abs(value) < 0.005:
        return "~0"
    if abs(value) >= 10:
        return f"{value:.0f}"
    return f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 0.995 else f"{value:.2f}"
