"""panels: the same figure once per group, on one scale; and what panels of any figure share."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from knockgrid.errors import InputError, unknown
from knockgrid.figures.canvas import (
    Size,
    heatmap_size,
    letter,
    root,
    scale,
    several,
    sketch_axes,
)
from knockgrid.figures.heatmaps import layer_heatmap
from knockgrid.figures.words import plain
from knockgrid.table.table import metadata_of


def panels(
    table: pd.DataFrame,
    figure: Callable[..., Axes] = layer_heatmap,
    *,
    by: str = "group",
    metric: str = "js",
    shared_scale: bool = True,
    order: Iterable | Mapping[Any, str] | None = None,
    columns: int = 1,
    ax: Any = None,
    figsize: Size | None = None,
    fontsize: float | int | None = None,
    **options: Any,
) -> Figure:
    """Draw `figure` once for each value of the column `by`, under each other, on a shared scale.

    Example:
        >>> from knockgrid.table.table import build
        >>> row = {"intervention": "last", "layer": 0, "js": 0.1}
        >>> rows = [{**row, "prompt": p, "group": g} for p, g in [("rome", "FA"), ("oslo", "AH")]]
        >>> figure = panels(build(rows, {"unit": "nats"}))
        >>> [ax.get_title() for ax in figure.axes if ax.get_title()]
        ['FA (n = 1 prompt)', 'AH (n = 1 prompt)']

    Panels come in the order of the metadata (`group_order`, …), else in that of appearance, or in
    `order`, which may also leave some out, or give them labels as a dict, in so many `columns`; a
    missing value is the panel "none". On a shared scale all panels have the same colour limits and
    one colour bar (curves: the same axis); `limits=` sets them by hand. `figsize` and `fontsize`
    are those of the whole figure, `ax` holds an Axes of your own for each panel. Other `options` go
    to `figure`, any function `(table, metric, *, ax, limits, title) -> Axes`.

    Raises:
        InputError: an unknown column or value, an empty column, or what `figure` refuses.
    """
    parts = parts_by(table, by, order)
    sketches = [figure(part, metric, ax=sketch_axes(), **options) for _, part in parts]
    if shared_scale:  # limits given by hand come back from the sketches
        options = {**options, "limits": limits_of_all(sketches)}
    if columns < 1:
        raise InputError(
            f"columns {columns!r} is not a number of panels side by side; give 1 or more"
        )
    columns = min(columns, len(parts))
    rows = -(-len(parts) // columns)
    each = size_of_each(sketches)
    size = min(each[0] * columns, max(16.0, 4.0 * columns)), each[1] * rows  # wider do not print
    with several(rows, columns, len(parts), size, ax, figsize, fontsize) as (whole, places):
        if ax is None:
            whole.set_layout_engine(ConstrainedLayoutEngine(h_pad=0.08 * scale()))
        for (value, part), place in zip(parts, places, strict=True):
            label = str(order[value]) if isinstance(order, Mapping) else plain(value)
            title = "" if options.get("title") == "" else label
            figure(part, metric, ax=place, **{**options, "title": title})
        if "limits" in options:
            inner_names_away(places)
            one_colour_bar(places)
    return whole


def parts_by(
    table: pd.DataFrame, by: str, order: Iterable | None
) -> list[tuple[Any, pd.DataFrame]]:
    """The rows of every value of a column, in the order of the figure."""
    if by not in table:
        raise unknown("column", by, table.columns)
    if table[by].isna().all():
        raise InputError(f"column {by!r} is empty, so there is nothing to make panels of")
    values = table[by].astype(object).where(table[by].notna(), "none")
    seen = list(dict.fromkeys(values))
    if order is None:
        first = [value for value in metadata_of(table).get(f"{by}_order", []) if value in seen]
        order = dict.fromkeys(first + seen)
    wanted = list(order)
    for value in wanted:
        if value not in seen:
            raise unknown(by, value, seen)
    if not wanted:
        raise InputError(f"order is empty; it holds values of {by!r}: {', '.join(map(str, seen))}")
    return [(value, table.loc[values == value, :]) for value in wanted]


def mesh_of(ax: Axes) -> QuadMesh | None:
    """The cells of a heatmap, None for other figures."""
    return next((item for item in ax.collections if isinstance(item, QuadMesh)), None)


def limits_of_all(sketches: list[Axes]) -> tuple[float, float]:
    """The limits that hold all panels."""
    scales = [mesh.get_clim() if (mesh := mesh_of(ax)) else ax.get_ylim() for ax in sketches]
    return min(low for low, _ in scales), max(high for _, high in scales)


def size_of_each(sketches: list[Axes]) -> tuple[float, float]:
    """Inches for one panel, the largest that any of them needs."""
    meshes = [mesh for mesh in map(mesh_of, sketches) if mesh]
    if not meshes:
        return 7.4, 3.0
    rows, columns = np.max([np.asarray(mesh.get_array()).shape for mesh in meshes], axis=0)
    labels = [label.get_text() for ax in sketches for label in ax.get_yticklabels()]
    return heatmap_size(int(rows), int(columns), max(map(len, labels), default=0))


def one_colour_bar(places: Sequence[Axes]) -> None:
    """One colour bar for heatmaps on one scale, in the place of those that each of them has."""
    meshes = [mesh for mesh in map(mesh_of, places) if mesh is not None]
    bars = [mesh.colorbar for mesh in meshes if mesh.colorbar is not None]
    if len(bars) < len(places):
        return
    label, whole = bars[0].ax.get_ylabel(), root(places[0])
    extend = {bar.extend for bar in bars} - {"neither"}
    for bar in bars:
        bar.remove()
    look = {
        "label": label,
        "pad": 0.02,
        "aspect": 6 * max(whole.get_figheight(), 2.0),  # as wide as the bar of one panel
        "extend": "neither" if not extend else extend.pop() if len(extend) == 1 else "both",
        "ticks": MaxNLocator(5, steps=[1, 2, 5, 10]),
    }
    shared = whole.colorbar(meshes[0], ax=list(places), **look)
    shared.outline.set_linewidth(0)
    letter(shared.ax)


def inner_names_away(places: Sequence[Axes]) -> None:
    """Leave out what the first panel of the same row says on its axis in the same words."""
    row: dict[object, Axes] = {}
    for ax in places:
        spec = ax.get_subplotspec()
        if spec is None:
            continue
        first = row.setdefault(spec.rowspan.start, ax)
        names = [[label.get_text() for label in one.get_yticklabels()] for one in (first, ax)]
        if ax is not first and names[0] == names[1] and first.get_ylabel() == ax.get_ylabel():
            ax.tick_params(labelleft=False)
            ax.set_ylabel("")
