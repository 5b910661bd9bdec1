"""What a figure is drawn on: its Axes, their size and lettering, and the room that texts have."""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text
from matplotlib.transforms import ScaledTranslation

from knockgrid.errors import InputError

Size = Sequence[float | int]
FREE = "may grow"
"""Label of a figure whose size nobody asked for: `save` adds what its labels need."""
BUSY = "not settled"
"""Label of a figure whose texts are fitted later, or that is only a sketch."""
NARROW, SMALL = 5.0, 7.0
"""Axes that have less width for them, in inches, have letters of so many points."""
WORD = re.compile(r"(?:\$[^$]*\$|\([^()]*\)|\S)+")
"""What no line break divides: a formula, what stands in brackets, or a word."""
LEAST = 5.0
"""Points under which no text is made smaller."""


def new_figure(
    width: float, height: float, figsize: Size | None = None, shown_by_its_axes: bool = False
) -> Figure:
    """A figure of `figsize`, else of `width` × `height` inches, that leaves no trace in pyplot.

    In a notebook, a cell that ends with an Axes shows only figures that are pyplot's; a whole
    figure it shows itself, once pyplot has made any.
    """
    size, make = checked_size(figsize) or (width, height), Figure
    if "ipykernel" in sys.modules:
        import matplotlib.pyplot as plt

        if shown_by_its_axes:
            make = plt.figure
        else:
            plt.close(plt.figure())
    whole = make(figsize=size, layout="constrained")
    whole.set_label(FREE if figsize is None else "")
    return whole


def checked_size(figsize: Size | None) -> tuple[float, float] | None:
    """Width and height, once they are two positive numbers."""
    if figsize is None:
        return None
    found = tuple(map(float, figsize)) if np.ndim(figsize) == 1 else ()
    if len(found) != 2 or not all(np.isfinite(found)) or min(found) <= 0:
        raise InputError(f"figsize is {figsize!r}; give (width, height) in inches, as (3.25, 1.2)")
    return found[0], found[1]


def _one_size(ax: Any, figsize: Size | None) -> None:
    if ax is not None and figsize is not None:
        raise InputError("give ax= or figsize=, not both; the figure of ax has its size already")


def sketch_axes() -> Axes:
    """Axes that are drawn on to be measured, and never seen."""
    whole = Figure()
    whole.set_label(BUSY)
    return whole.subplots()


def root(drawn: Axes | Figure) -> Figure:
    """The whole figure that something is drawn on, a subfigure's as well."""
    return (drawn.figure if isinstance(drawn, Axes) else drawn).canvas.figure


@contextmanager
def drawing(
    width: float,
    height: float,
    ax: Axes | None = None,
    figsize: Size | None = None,
    fontsize: float | None = None,
) -> Iterator[Axes]:
    """The Axes to draw one figure on, in its lettering; its texts are fitted at the end."""
    _one_size(ax, figsize)
    if ax is None:
        ax = new_figure(width, height, figsize, shown_by_its_axes=True).subplots()
    with lettering(ax, fontsize):
        letter(ax)
        yield ax
    fit([ax])


@contextmanager
def several(
    rows: int,
    columns: int,
    count: int,
    size: tuple[float, float],
    ax: Any = None,
    figsize: Size | None = None,
    fontsize: float | None = None,
    **subplots: Any,
) -> Iterator[tuple[Figure, list[Axes]]]:
    """As `drawing`, for `count` panels on a grid of Axes, or on the Axes that are given."""
    _one_size(ax, figsize)
    if ax is None:
        whole = new_figure(*size, figsize)
        places = list(whole.subplots(rows, columns, squeeze=False, **subplots).ravel())
        for spare in places[count:]:
            spare.remove()
    else:
        places = list(np.ravel(np.asarray(ax, dtype=object)))
        if len(places) != count:
            raise InputError(f"ax holds {len(places)} Axes for {count} panels; give one for each")
        whole = root(places[0])
    label = whole.get_label()
    with lettering(places[0], fontsize):
        whole.set_label(BUSY)
        for place in places[:count]:
            letter(place)
        try:
            yield whole, places[:count]
        finally:
            whole.set_label(label)
    fit(whole.axes if ax is None else places)


@contextmanager
def lettering(ax: Axes, fontsize: float | None = None) -> Iterator[None]:
    """Letters of `fontsize` points; else small ones on narrow Axes, unless rcParams differ."""
    if fontsize is not None and not (isinstance(fontsize, int | float) and fontsize > 0):
        raise InputError(f"fontsize is {fontsize!r}; give points, such as 7")
    points = fontsize or matplotlib.rcParams["font.size"]
    own = fontsize or points != matplotlib.rcParamsDefault["font.size"]
    if not own and root(ax).get_label() == "" and width_of(ax) < NARROW:
        points = SMALL
    with matplotlib.rc_context({"font.size": points}):
        yield


def letter(ax: Axes) -> None:
    """Give an Axes, which may be older, the size of letters that holds now."""
    for axis in (ax.xaxis, ax.yaxis):
        kind: Any = f"{axis.axis_name}tick.labelsize"
        axis.label.set_fontsize(matplotlib.rcParams["axes.labelsize"])
        # in points, as tick labels are made later, under another size
        size = FontProperties(size=matplotlib.rcParams[kind]).get_size_in_points()
        axis.set_tick_params(labelsize=size)


def scale() -> float:
    """How large letters are, in units of matplotlib's."""
    return matplotlib.rcParams["font.size"] / matplotlib.rcParamsDefault["font.size"]


def slot(ax: Axes) -> np.ndarray:
    """The part of the figure that an Axes with its labels has: from and to, across and up."""
    spec, whole = ax.get_subplotspec(), ax.figure
    found = np.array([[0.0, 1.0], [0.0, 1.0]])
    if spec is not None:
        spec = spec.get_topmost_subplotspec()
        rows, columns = spec.get_gridspec().get_geometry()
        across, down = spec.colspan, spec.rowspan
        found[0] = across.start / columns, across.stop / columns
        found[1] = 1 - down.stop / rows, 1 - down.start / rows
    if isinstance(whole, SubFigure):
        corner, size = np.array([whole.bbox.min, whole.bbox.size]) / root(ax).bbox.size
        found = corner[:, None] + size[:, None] * found
    return found


def width_of(ax: Axes) -> float:
    """Inches that an Axes with its labels has."""
    left, right = slot(ax)[0]
    return (right - left) * root(ax).get_figwidth()


def _room(ax: Axes, dimension: int) -> float:
    """Pixels for a text that is centred on an Axes, across (0) or up (1)."""
    low, high = slot(ax)[dimension] * root(ax).bbox.size[dimension]
    middle = ax.bbox.min[dimension] + ax.bbox.size[dimension] / 2
    return 2 * min(middle - low, high - middle)


def fit(axes: Sequence[Axes]) -> None:
    """Break titles and labels without room into lines, and shrink what still has none.

    A figure that may grow has room for all but the titles of panels beside each other.
    """
    whole: Any = root(axes[0])
    free = whole.get_label() == FREE
    beside = any(tuple(slot(ax)[0]) != (0.0, 1.0) for ax in axes)
    if whole.get_label() == BUSY or (free and not beside):
        return
    with in_place(whole):
        whole.draw_without_rendering()
        _fit_titles(axes)
        if free:
            return
        for ax in axes:
            _fit_labels(ax)
        for text in filter(None, (whole._suptitle, whole._supxlabel, whole._supylabel)):
            upright = int(text.get_rotation() == 90)
            _fit(text, whole.bbox.size[upright], upright)


def _fit_titles(axes: Sequence[Axes]) -> None:
    titles = [ax.title for ax in axes]
    said = [title.get_text() for title in titles]
    for ax in axes:
        _fit(ax.title, _room(ax, 0))
    if [title.get_text() for title in titles] != said:
        for title in titles:  # those that have room stand in lines like the others
            start, bracket, rest = title.get_text().rpartition(" (")
            if bracket and "\n" not in title.get_text():
                title.set_text(f"{start}\n({rest}")


def _fit_labels(ax: Axes) -> None:
    for one in (ax, *bars_of(ax)):
        _fit(one.yaxis.label, _room(ax, 1), 1)
    names = ax.get_yticklabels()
    widest = max((n.get_window_extent().width for n in names), default=0.0)
    most = 0.45 * width_of(ax) * root(ax).dpi
    if widest > most:
        ax.yaxis.set_tick_params(labelsize=_smaller(names[0], most / widest))


def bars_of(ax: Axes) -> list[Axes]:
    """The colour bars of an Axes."""
    bars = [getattr(item, "colorbar", None) for item in ax.collections]
    return [bar.ax for bar in bars if bar is not None]


def _fit(text: Text, room: float, dimension: int = 0) -> None:
    """Break a text between words, then shrink it, until it has room."""

    def extent() -> float:
        return text.get_window_extent().size[dimension] + 2

    words = WORD.findall(text.get_text())
    if not text.get_text() or extent() <= room:
        return
    lines = [words[0]]
    for word in words[1:]:
        text.set_text(f"{lines[-1]} {word}")
        if extent() <= room:
            lines[-1] = text.get_text()
        else:
            lines.append(word)
    text.set_text("\n".join(lines))
    text.set_fontsize(_smaller(text, room / extent()))


def _smaller(text: Text, share: float) -> float:
    points = float(text.get_fontsize())
    return min(points, max(LEAST, share * points))


@contextmanager
def in_place(figure: Figure) -> Iterator[None]:
    """Undo what drawing does to the layout, which starts from where the last one ended."""
    kept = [(ax, ax.get_position(True).frozen(), ax.get_in_layout()) for ax in figure.axes]
    try:
        yield
    finally:
        for ax, place, in_layout in kept:
            ax.set_position(place, which="both")
            ax.set_in_layout(in_layout)  # `set_position` takes it out


def legend_beside(ax: Axes, **legend: Any) -> None:
    """A legend right of an Axes, where it covers nothing; below it on a narrow one."""
    place = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), **legend}
    if width_of(ax) < NARROW and root(ax).get_label() != FREE:
        place |= {"bbox_to_anchor": (0.0, 0.0), "bbox_transform": below(ax, 0.5), "ncols": 3}
        place |= {"columnspacing": 1.0, "handlelength": 1.5}
    found = ax.legend(frameon=False, fontsize="small", borderaxespad=0, alignment="left", **place)
    found.get_title().set_fontsize("small")


def below(ax: Axes, drop: float) -> Any:
    """The lower left corner of an Axes, but `drop` inches lower at the usual size of letters.

    In inches, because the height of ticks and axis label does not grow with the Axes.
    """
    return ax.transAxes + ScaledTranslation(0, -drop * scale(), root(ax).dpi_scale_trans)


def heatmap_size(rows: int, columns: int, label: int) -> tuple[float, float]:
    """Inches for a heatmap of so many cells whose longest row label has `label` letters."""
    width = 1.4 + 0.07 * label + (0.55 if columns <= 16 else 0.24) * columns
    height = 0.55 * max(rows, 3) if rows <= 12 else 0.22 * rows
    return round(min(max(width, 4.0), 14.0), 2), round(0.95 + height, 2)
