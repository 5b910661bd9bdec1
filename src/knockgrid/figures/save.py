"""save: a figure as PDF, SVG and PNG, the same bytes each time."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from knockgrid._errors import unknown
from knockgrid._parquet import whole_file

# dates and random ids are all that differs between two runs
METADATA = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}, ".png": {}}
SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "knockgrid",
    "svg.fonttype": "path",  # looks the same where the font is not installed
    "pdf.fonttype": 42,  # whole fonts, as journals ask
}


def save(figure: Figure | Axes, path: str | os.PathLike) -> tuple[Path, ...]:
    """Write the figure to `path`, by its suffix .pdf, .svg or .png, or as all three without one.

    Example:
        >>> import tempfile
        >>> from matplotlib.figure import Figure
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [path.name for path in save(Figure().subplots(), f"{folder}/figures/flow")]
        ['flow.pdf', 'flow.svg', 'flow.png']

    The same figure gives the same bytes each time (with the same matplotlib and fonts). The folder
    is created, and a file is there whole or not at all. PNG has 300 dots per inch.

    Raises:
        InputError: another suffix.
    """
    target = Path(path)
    if target.suffix and target.suffix not in METADATA:
        raise unknown("suffix", target.suffix, METADATA)
    suffixes = [target.suffix] if target.suffix else list(METADATA)
    # by way of the canvas, because the Axes of a subfigure would give only that
    whole = (figure.figure if isinstance(figure, Axes) else figure).canvas.figure
    return tuple(_write(whole, target.with_suffix(suffix)) for suffix in suffixes)


def _write(figure: Figure, path: Path) -> Path:
    kind = path.suffix
    with matplotlib.rc_context(SETTINGS), _in_place(figure), whole_file(path) as file:
        figure.savefig(file, format=kind[1:], dpi=300, metadata=METADATA[kind], bbox_inches="tight")
    return path


@contextmanager
def _in_place(figure: Figure) -> Iterator[None]:
    """Undo what drawing does to the layout, which starts from where the last one ended."""
    kept = [(ax, ax.get_position(True).frozen(), ax.get_in_layout()) for ax in figure.axes]
    try:
        yield
    finally:
        for ax, place, in_layout in kept:
            ax.set_position(place, which="both")
            ax.set_in_layout(in_layout)  # `set_position` takes it out
