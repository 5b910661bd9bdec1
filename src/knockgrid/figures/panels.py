"""panels: the same figure once per group, on one scale."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from knockgrid.errors import InputError, unknown
from knockgrid.figures.canvas import Size, scale, several, sketch_axes
from knockgrid.figures.layer_heatmap import layer_heatmap
from knockgrid.figures.scale import common, inner_names_away, one_colour_bar, size_of
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
        >>> table = build(
        ...     [
        ...         {"prompt": p, "group": g, "intervention": "last", "layer": layer, "js": 0.1}
        ...         for p, g in [("rome", "FA"), ("oslo", "AH")]
        ...         for layer in range(3)
        ...     ],
        ...     {"unit": "nats"},
        ... )
        >>> [ax.get_title() for ax in panels(table).axes if ax.get_title()]
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
    parts = _parts(table, by, order)
    labels = [plain(_values(part, by).iloc[0]) for part in parts]
    if isinstance(order, Mapping):
        labels = [str(label) for label in order.values()]
    sketches = [figure(part, metric, ax=sketch_axes(), **options) for part in parts]
    if shared_scale:  # limits given by hand come back from the sketches
        options = {**options, "limits": common(sketches)}
    if columns < 1:
        raise InputError(
            f"columns {columns!r} is not a number of panels side by side; give 1 or more"
        )
    columns = min(columns, len(parts))
    rows = -(-len(parts) // columns)
    each = size_of(sketches)
    size = min(each[0] * columns, max(16.0, 4.0 * columns)), each[1] * rows  # wider do not print
    with several(rows, columns, len(parts), size, ax, figsize, fontsize) as (whole, places):
        if ax is None:
            whole.set_layout_engine(ConstrainedLayoutEngine(h_pad=0.08 * scale()))
        for part, label, place in zip(parts, labels, places, strict=True):
            title = "" if options.get("title") == "" else label
            figure(part, metric, ax=place, **{**options, "title": title})
        if "limits" in options:
            inner_names_away(places)
            one_colour_bar(places)
    return whole


def _values(table: pd.DataFrame, by: str) -> pd.Series:
    labels = table[by].astype(object)
    return labels.where(labels.notna(), "none")


def _parts(table: pd.DataFrame, by: str, order: Iterable | None) -> list[pd.DataFrame]:
    if by not in table:
        raise unknown("column", by, table.columns)
    if table[by].isna().all():
        raise InputError(f"column {by!r} is empty, so there is nothing to make panels of")
    seen = list(dict.fromkeys(_values(table, by)))
    wanted = list(seen if order is None else order)
    for value in wanted:
        if value not in seen:
            raise unknown(by, value, seen)
    if not wanted:
        raise InputError(f"order is empty; it holds values of {by!r}: {', '.join(map(str, seen))}")
    if order is not None:
        return [table.loc[_values(table, by) == value, :] for value in wanted]
    first = [value for value in metadata_of(table).get(f"{by}_order", []) if value in seen]
    return [table.loc[_values(table, by) == value, :] for value in dict.fromkeys(first + seen)]
