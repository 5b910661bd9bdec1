"""Marks on heatmap cells that have no colour of their own, or whose colour must not be trusted."""

import re
import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from knockgrid.figures.canvas import NARROW, below, scale, width_of
from knockgrid.figures.words import SENTENCE, plain
from knockgrid.table.floor import floor_text

HATCH = {"facecolor": "0.93", "edgecolor": "0.6", "hatch": "/////", "linewidth": 0.0}
BELOW = {"facecolor": "none", "edgecolor": "0.55", "hatch": "....", "linewidth": 0.0}


def mark(
    ax: Axes,
    grid: pd.DataFrame,
    cells: pd.DataFrame,
    floor: pd.DataFrame | None,
    drop: float = 0.5,
) -> None:
    """Hatch the cells without a value and those below the noise floor, write ∞, and say so below.

    A cell without a value is grey under strokes; one below the floor keeps its colour under a fine
    hatch of dots. A difference counts by its size, whatever its sign.
    """
    values = grid.to_numpy(float)
    notes = _hatch(ax, grid, cells)
    for y, x in np.argwhere(np.isinf(values)):
        sign = "∞" if values[y, x] > 0 else "−∞"
        ax.text(x + 0.5, y + 0.5, sign, ha="center", va="center", color="0.15", gid="infinite")
    if floor is not None:
        floors = floor.to_numpy(float)
        under = np.abs(values) < floors
        for y, x in np.argwhere(under):
            ax.add_patch(Rectangle((x, y), 1, 1, gid="floor", **BELOW))
        if under.any():
            notes.append(Patch(label=floor_text(floors[under]), **BELOW))
    if notes:
        _legend(ax, notes, drop)


def add_note(ax: Axes, note: Line2D) -> None:
    """Add a line to the legend below a heatmap whose tick labels have two lines."""
    legend = ax.get_legend()
    _legend(ax, [*(legend.legend_handles if legend else []), note], 0.72)


def _legend(ax: Axes, notes: list, drop: float) -> None:
    if width_of(ax) < NARROW:
        letters = int(13 * width_of(ax) / scale())
        for note in notes:
            note.set_label(textwrap.fill(str(note.get_label()), letters))
    place = {"bbox_to_anchor": (0, 0), "bbox_transform": below(ax, drop), "borderaxespad": 0}
    ax.legend(handles=notes, loc="upper left", frameon=False, fontsize="small", **place)


def _hatch(ax: Axes, grid: pd.DataFrame, cells: pd.DataFrame) -> list:
    kinds: dict[str, list[str]] = {}  # reasons that differ only in their numbers are told once
    for y, x in np.argwhere(grid.isna().to_numpy()):
        ax.add_patch(Rectangle((x, y), 1, 1, gid="missing", **HATCH))
        reason = _reason(cells, grid.index[y], grid.columns[x])
        kinds.setdefault(re.sub(r"\d+", "#", reason), []).append(reason)
    alike = [(same[0], len(set(same)) - 1) for same in kinds.values()]
    said = [first + (f" (and {more} alike)" if more else "") for first, more in alike]
    return [Patch(label=plain(text, SENTENCE), **HATCH) for text in said]


def _reason(cells: pd.DataFrame, row: object, column: object) -> str:
    here = list(cells["status"][(cells["row"] == row) & (cells["column"] == column)])
    if here and here[0] == "ok":
        return "NA: not defined there (no answer, foil or source run, or one without effect)"
    return str(here[0]) if here else "NA: not measured"
