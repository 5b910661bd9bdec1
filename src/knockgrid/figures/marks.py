"""Marks on heatmap cells that have no colour of their own, or whose colour must not be trusted."""

import re
import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.transforms import Transform

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

    Example:
        >>> from matplotlib.figure import Figure
        >>> ax = Figure().subplots()
        >>> lines = pd.DataFrame({"row": ["last"], "column": [3], "status": ["NA: no edge"]})
        >>> mark(ax, pd.DataFrame([[np.nan]], ["last"], [3]), lines, None)
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['NA: no edge']
    """
    values = grid.to_numpy(float)
    notes = _hatch(ax, grid, cells)
    for y, x in np.argwhere(np.isinf(values)):
        sign = "∞" if values[y, x] > 0 else "−∞"
        ax.text(x + 0.5, y + 0.5, sign, ha="center", va="center", color="0.15", gid="infinite")
    if floor is not None:
        notes += _below(ax, values, floor.to_numpy(float))
    if notes:
        _legend(ax, notes, below(ax, drop))


def add_note(ax: Axes, note: Line2D, drop: float = 0.72) -> None:
    """Add a line to the legend below the heatmap."""
    legend = ax.get_legend()
    before = list(legend.legend_handles) if legend else []
    _legend(ax, [*before, note], below(ax, drop))


def _legend(ax: Axes, notes: list, corner: Transform) -> None:
    if width_of(ax) < NARROW:
        letters = int(13 * width_of(ax) / scale())
        for note in notes:
            note.set_label(textwrap.fill(str(note.get_label()), letters))
    place = {"bbox_to_anchor": (0, 0), "bbox_transform": corner, "borderaxespad": 0}
    ax.legend(handles=notes, loc="upper left", frameon=False, fontsize="small", **place)


def _hatch(ax: Axes, grid: pd.DataFrame, cells: pd.DataFrame) -> list:
    holes = np.argwhere(grid.isna().to_numpy())
    for y, x in holes:
        ax.add_patch(Rectangle((x, y), 1, 1, gid="missing", **HATCH))
    reasons = [_reason(cells, grid.index[y], grid.columns[x]) for y, x in holes]
    return [Patch(label=plain(text, SENTENCE), **HATCH) for text in _summary(reasons)]


def _reason(cells: pd.DataFrame, row: object, column: object) -> str:
    here = list(cells["status"][(cells["row"] == row) & (cells["column"] == column)])
    if here and here[0] == "ok":
        return "NA: not defined there (no answer, or no source run)"
    return str(here[0]) if here else "NA: not measured"


def _summary(reasons: list[str]) -> list[str]:
    """One line per kind of reason: those that differ only in their numbers are told once."""
    kinds: dict[str, list[str]] = {}
    for reason in reasons:
        kinds.setdefault(re.sub(r"\d+", "#", reason), []).append(reason)
    alike = [(same[0], len(set(same)) - 1) for same in kinds.values()]
    return [first + (f" (and {more} alike)" if more else "") for first, more in alike]


def _below(ax: Axes, values: np.ndarray, floor: np.ndarray) -> list:
    under = np.abs(values) < floor
    for y, x in np.argwhere(under):
        ax.add_patch(Rectangle((x, y), 1, 1, gid="floor", **BELOW))
    return [Patch(label=floor_text(floor[under]), **BELOW)] if under.any() else []
