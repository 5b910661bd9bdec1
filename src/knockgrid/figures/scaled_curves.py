"""scaled_curves: one row under several sources, each on the scale of its own largest mean."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Whole

from knockgrid.errors import InputError, unknown
from knockgrid.figures.canvas import Size, several
from knockgrid.figures.figure import Figure
from knockgrid.figures.layer_curve import MARKERS, look_of
from knockgrid.figures.ticks import name_layers
from knockgrid.figures.words import ROWS, metric_label, plain
from knockgrid.table.table import grid
from knockgrid.table.treatments import Treatment, only_rows, treatments


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
        >>> described = [
        ...     {"name": f"subject {by}", "row": "subject", "corruption": f"{by}()", "window": 1}
        ...     for by in ("swap", "zero")
        ... ]
        >>> cells = [
        ...     {"prompt": "rome", "intervention": one["name"], "layer": i, "js": 0.5 - 0.1 * i}
        ...     for one in described
        ...     for i in range(3)
        ... ]
        >>> figure = scaled_curves(build(cells, {"unit": "nats", "interventions": described}))
        >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        ['swap(): 0.50 at most', 'zero(): 0.50 at most']

    The legend gives what 1 stands for, in the metric's unit. A rank correlation of such curves can
    be 0.99 while a step turns into a ramp, so look at where they rise and fall, and how steeply.
    `figsize`, `fontsize` and `ax` are as in `panels`, `ticks` as in `layer_heatmap`.

    Raises:
        InputError: as `grid`, an unknown row, or a table in which no row has a source.
    """
    found = [one for one in treatments(table) if one.source is not None]
    names = list(dict.fromkeys(one.row for one in found))
    if not found:
        raise InputError("no row of this table has a source; sweep patches from several sources")
    for row in rows or ():
        if row not in names:
            raise unknown("row", row, names)
    wanted = list(rows or names)
    n = len(wanted)
    with several(1, n, n, (4.6 * n, 3.2), ax, figsize, fontsize, sharey=True) as (whole, places):
        for row, place in zip(wanted, places, strict=True):
            _panel(place, table, metric, [one for one in found if one.row == row], ticks)
            place.set_title(ROWS.get(row, plain(row)), fontsize="medium")
        places[0].set_ylabel("share of the largest mean")
        if title != "" and ax is None:
            whole.suptitle(title or metric_label(table, metric), fontsize="medium")
    return whole


def _panel(
    ax: Axes, table: pd.DataFrame, metric: str, found: Sequence[Treatment], ticks: Any
) -> None:
    values = grid(only_rows(table, [one.name for one in found]), metric)
    layers = list(map(int, values.columns))
    for i, one in enumerate(found):
        curve = values.loc[one.name].to_numpy(float)
        top = np.nanmax(curve)
        text = f"{plain(one.source)}: {top:.2f} at most"
        marker = {"marker": MARKERS[i % len(MARKERS)], "markersize": 3}
        ax.plot(curve / top, label=text, linewidth=1.3, **marker, **look_of(i))
    name_layers(ax.xaxis, range(len(layers)), layers, ticks, 4)
    ax.axhline(0.5, color="0.8", linewidth=0.8, zorder=0)
    ax.set(xlabel="Layer", ylim=(0, 1.05))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize="x-small")
