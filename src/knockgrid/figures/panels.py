"""panels: the same figure once per group, on one scale."""

from collections.abc import Callable, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from knockgrid._errors import InputError, unknown
from knockgrid._table import metadata_of
from knockgrid.figures._canvas import new_figure
from knockgrid.figures._scale import common, mesh_of, size_of
from knockgrid.figures._words import plain
from knockgrid.figures.layer_heatmap import layer_heatmap


def panels(
    table: pd.DataFrame,
    figure: Callable[..., Axes] = layer_heatmap,
    *,
    by: str = "group",
    metric: str = "js",
    shared_scale: bool = True,
    order: Sequence | None = None,
    columns: int = 1,
    **options,
) -> Figure:
    """Draw `figure` once for each value of the column `by`, under each other, on a shared scale.

    Example:
        >>> from knockgrid._table import build
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
    `order`, which may also leave some out, in so many `columns`; a missing value is the panel
    "none". On a shared scale all panels have the same colour limits and one colour bar (curves: the
    same axis); `limits=` sets them by hand. Other `options` go to `figure`, any function
    `(table, metric, *, ax, limits, title) -> Axes`.

    Raises:
        InputError: an unknown column or value, an empty column, or what `figure` refuses.
    """
    parts = _parts(table, by, order)
    sketches = [figure(part, metric, ax=Figure().subplots(), **options) for part in parts]
    if shared_scale:  # limits given by hand come back from the sketches
        options = {**options, "limits": common(sketches)}
    whole, places = _subplots(len(parts), columns, size_of(sketches))
    for part, ax in zip(parts, places, strict=True):
        figure(part, metric, ax=ax, title=plain(_values(part, by).iloc[0]), **options)
    if "limits" in options:
        _one_colour_bar(whole, places)
    return whole


def _values(table: pd.DataFrame, by: str) -> pd.Series:
    labels = table[by].astype(object)
    return labels.where(labels.notna(), "none")


def _parts(table: pd.DataFrame, by: str, order: Sequence | None) -> list[pd.DataFrame]:
    if by not in table:
        raise unknown("column", by, table.columns)
    if table[by].isna().all():
        raise InputError(f"column {by!r} is empty, so there is nothing to make panels of")
    seen = list(dict.fromkeys(_values(table, by)))
    for value in order or ():
        if value not in seen:
            raise unknown(by, value, seen)
    wanted = metadata_of(table).get(f"{by}_order", [])
    seen = list(dict.fromkeys([value for value in wanted if value in seen] + seen))
    return [table.loc[_values(table, by) == value, :] for value in order or seen]


def _subplots(count: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    if columns < 1:
        raise InputError(
            f"columns {columns!r} is not a number of panels side by side; give 1 or more"
        )
    columns = min(columns, count)
    rows = -(-count // columns)
    width = min(size[0] * columns, max(16.0, 4.0 * columns))  # wider ones do not print
    whole = new_figure(width, size[1] * rows)
    whole.set_layout_engine(ConstrainedLayoutEngine(h_pad=0.08))
    places = whole.subplots(rows, columns, squeeze=False).ravel()
    for spare in places[count:]:
        spare.remove()
    return whole, list(places[:count])


def _one_colour_bar(whole: Figure, places: list[Axes]) -> None:
    meshes = [mesh for mesh in map(mesh_of, places) if mesh is not None]
    bars = [mesh.colorbar for mesh in meshes if mesh.colorbar is not None]
    if len(bars) == len(places):
        label = bars[0].ax.get_ylabel()
        for bar in bars:
            bar.remove()
        aspect = 6 * whole.get_figheight()  # as wide as the bar of one panel
        shared = whole.colorbar(meshes[0], ax=places, label=label, pad=0.02, aspect=aspect)
        shared.outline.set_linewidth(0)
