"""save: a figure as PDF, SVG and PNG, the same bytes each time."""

import os
import warnings
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from knockgrid.errors import unknown
from knockgrid.figures.canvas import FREE, in_place, root
from knockgrid.table.parquet import whole_file

# dates and random ids are all that differs between two runs
METADATA = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}, ".png": {}}
SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "knockgrid",
    "svg.fonttype": "path",  # looks the same where the font is not installed
    "pdf.fonttype": 42,  # whole fonts, as journals ask
    "savefig.bbox": "standard",
}
SPARE = 0.02
"""Inches that may stick out: nobody sees them."""


def save(figure: Figure | Axes, path: str | os.PathLike) -> tuple[Path, ...]:
    """Write the figure to `path`, by its suffix .pdf, .svg or .png, or as all three without one.

    Example:
        >>> import tempfile
        >>> from matplotlib.figure import Figure
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [path.name for path in save(Figure().subplots(), f"{folder}/figures/flow")]
        ['flow.pdf', 'flow.svg', 'flow.png']

    A figure with `figsize=`, or of your own, is written in exactly that size, with a warning where
    something sticks out of it; others get as much room as their labels need.

    The same figure gives the same bytes each time (with the same matplotlib and fonts). The folder
    is created, and a file is there whole or not at all. PNG has 300 dots per inch.

    Raises:
        InputError: another suffix.
    """
    target = Path(path)
    if target.suffix and target.suffix not in METADATA:
        raise unknown("suffix", target.suffix, METADATA)
    suffixes = [target.suffix] if target.suffix else list(METADATA)
    whole = root(figure)
    if whole.get_label() != FREE:
        _warn_of_cuts(whole)
    paths = tuple(target.with_suffix(suffix) for suffix in suffixes)
    look = {"dpi": 300, "bbox_inches": "tight" if whole.get_label() == FREE else None}
    for path, kind in zip(paths, suffixes, strict=True):
        with matplotlib.rc_context(SETTINGS), in_place(whole), whole_file(path) as file:
            whole.savefig(file, format=kind[1:], metadata=METADATA[kind], **look)
    return paths


def _warn_of_cuts(figure: Figure) -> None:
    """Say so where something sticks out of a figure that keeps its size."""
    with in_place(figure):
        figure.draw_without_rendering()
        inner, outer = figure.bbox_inches, figure.get_tightbbox()
    over = max(inner.x0 - outer.x0, outer.x1 - inner.x1, inner.y0 - outer.y0, outer.y1 - inner.y1)
    if over > SPARE:
        width, height = figure.get_size_inches()
        warnings.warn(
            f"something sticks out of the figure of {width:g} × {height:g} inches by {over:.2f}, "
            "which is cut off; give a larger figsize or a smaller fontsize, or make your own "
            'figure with layout="constrained"',
            stacklevel=3,
        )
