"""The heatmap that all grid figures are made of."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.ticker import MaxNLocator

from knockgrid._errors import InputError
from knockgrid._floor import floor_grid
from knockgrid._table import cells, grid
from knockgrid.figures._canvas import heatmap_size, new_axes
from knockgrid.figures._marks import mark
from knockgrid.figures._words import metric_label, prompt_count, titled

Limits = tuple[float | int, float | int]


@dataclass(frozen=True)
class Grid:
    """A grid that is ready to be drawn: values, what they are made of, and how they are named."""

    values: pd.DataFrame
    parts: pd.DataFrame
    label: str
    floor: pd.DataFrame | None


def grid_of(table: pd.DataFrame, metric: str, rows: str, columns: str) -> Grid:
    """The grid of a table.

    Raises:
        InputError: as `grid`.
    """
    values, parts = grid(table, metric, rows, columns), cells(table, metric, rows, columns)
    floor = floor_grid(table, metric, values, parts)
    return Grid(values, parts, metric_label(table, metric), floor)


def draw(
    made: Grid,
    *,
    ax: Axes | None,
    cmap: str | Colormap,
    limits: Limits | None = None,
    centred: bool = False,
    names: list[str],
    annotate: bool = False,
    title: str | None = None,
    drop: float = 0.5,
) -> Axes:
    """Draw a grid with its colour bar, marks and number of prompts; ticks are the caller's.

    `drop` is how far below the cells the notes begin, in inches: below ticks and axis label.
    """
    values = made.values
    low, high = limits_of(values.to_numpy(float), limits, centred)
    ax = ax or new_axes(*heatmap_size(*values.shape, max(map(len, names))))
    sns.heatmap(
        values,
        ax=ax,
        vmin=low,
        vmax=high,
        cmap=cmap,
        annot=values.map(short).to_numpy() if annotate else False,
        fmt="",
        annot_kws={"fontsize": 6},
        linewidths=0.4,
        cbar_kws={
            "label": made.label,
            "ticks": MaxNLocator(5, steps=[1, 2, 5, 10]),
            "pad": 0.02,
        },
        xticklabels=False,
        yticklabels=False,
    )
    mark(ax, values, made.parts, made.floor, drop)
    ax.set_title(titled(title, prompt_count(made.parts)), fontsize="medium")
    return ax


def over_layers(made: Grid, names: list[str], **style: Any) -> Axes:
    """Draw a grid whose columns are layers, its rows under their names."""
    layers = list(map(int, made.values.columns))
    ax = draw(made, names=names, **style)
    name_ticks(ax.xaxis, tick_places(layers), list(map(str, layers)))
    name_ticks(ax.yaxis, list(range(len(names))), names, rotation=0)
    ax.set(xlabel="Layer", ylabel="")
    return ax


def layers_down(made: Grid, names: list[str], step: int = 2, **style: Any) -> Axes:
    """Draw a grid whose rows are layers, its columns under slanted names."""
    layers = list(map(int, made.values.index))
    numbers = list(map(str, layers))
    ax = draw(made, names=numbers, drop=below_slanted(names), **style)
    name_ticks(ax.xaxis, list(range(len(names))), names, rotation=40, ha="right")
    name_ticks(ax.yaxis, tick_places(layers, step), numbers, rotation=0)
    ax.set(ylabel="Layer")
    return ax


def name_ticks(axis, places: list[int], names: list[str], **text) -> None:
    """Name some cells of one axis of a heatmap, in their middle."""
    axis.set_ticks([place + 0.5 for place in places], [names[place] for place in places], **text)
    axis.set_tick_params(length=2)


def below_slanted(names: list[str]) -> float:
    """How far below the cells slanted tick labels and the axis label end, in inches."""
    return 0.6 + 0.05 * max(map(len, names))


def limits_of(values: np.ndarray, given: tuple | None, centred: bool = False) -> tuple:
    """The ends of the colour scale: as given, else from 0, or around the middle of the grid."""
    if given is not None:
        if not (len(given) == 2 and all(map(math.isfinite, given)) and given[0] < given[1]):
            raise InputError(f"limits {given!r} are not (low, high) with low < high")
        return given
    finite = values[np.isfinite(values)]
    if centred and finite.size:
        return (finite.min(), finite.max()) if finite.min() < finite.max() else (0.0, 1.0)
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


def tick_places(layers: list, step: int = 2) -> list[int]:
    """Which of the layers get a label: every second of a long consecutive run, else all of them.

    Example:
        >>> tick_places(list(range(10)))
        [0, 2, 4, 6, 8]
        >>> tick_places([0, 15, 16, 27])
        [0, 1, 2, 3]
    """
    consecutive = all(b == a + 1 for a, b in zip(layers, layers[1:], strict=False))
    # beyond 48 layers, every second label would no longer fit
    step = step * math.ceil(len(layers) / 48) if consecutive and len(layers) > 8 else 1
    return list(range(0, len(layers), step))


def only(table: pd.DataFrame, intervention: str | None, column: str) -> pd.DataFrame:
    """The rows of one intervention, or of the only family that fills a column.

    Raises:
        InputError: an unknown intervention, or a table without that column.
    """
    if column in table and table[column].isna().all():
        raise InputError(f"column {column!r} is empty in this table; sweep with per_{column}()")
    kept = table if intervention is None else table[table["intervention"] == intervention]
    if kept.empty:
        raise InputError(f"the table has no intervention {intervention!r}")
    kept = kept[kept[column].notna()] if column in kept else kept
    kept.attrs = table.attrs
    return kept
