"""contrast_curves: each treatment beside its contrasts, in a panel per group."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Whole

from knockgrid.errors import InputError, unknown
from knockgrid.figures.canvas import Size, below, several
from knockgrid.figures.figure import Figure
from knockgrid.figures.layer_curve import COLOURS, VISIBLE, look_of
from knockgrid.figures.ticks import name_layers
from knockgrid.figures.words import metric_label, plain, row_labels
from knockgrid.stats.mean_interval import mean_interval
from knockgrid.table.floor import floor_of
from knockgrid.table.table import metadata_of
from knockgrid.table.treatments import only_prompts, only_rows


@Figure.of(by="itself")
def contrast_curves(
    table: pd.DataFrame,
    metric: str = "js",
    *,
    by: str | None = None,
    order: Sequence[str] | None = None,
    level: float = 0.95,
    seed: int = 0,
    ticks: Any = None,
    ax: Any = None,
    figsize: Size | None = None,
    fontsize: float | int | None = None,
    title: str | None = None,
) -> Whole:
    """Draw treatments (columns) with their contrasts over the layers, one row of panels per group.

    Example:
        >>> from knockgrid.table.table import build
        >>> described = [
        ...     {"name": "subject", "role": "treatment", "of": None},
        ...     {"name": "subject | bos", "role": "contrast", "of": "subject"},
        ... ]
        >>> cells = [
        ...     {"prompt": p, "intervention": one["name"], "layer": i, "js": 0.1 * i}
        ...     for p in "ab" for one in described for i in range(3)
        ... ]
        >>> figure = contrast_curves(build(cells, {"unit": "nats", "interventions": described}))
        >>> [line.get_label() for line in figure.axes[0].lines]
        ['Subj.', 'bos']

    The treatment is the thick line; its band holds for all layers at once and knows the clusters
    (`mean_interval`), and there is none with fewer than six of them. Contrasts are drawn without
    bands: whether a difference is more than chance is for `exceeds` to say, which pairs them. The
    largest noise floor of the panel is a dotted line where the axis shows it. All panels share
    their axes; `by` is a column such as "group", `order` its values in order. `figsize`, `fontsize`
    and `ax` are as in `panels`, `ticks` as in `layer_heatmap`.

    Raises:
        InputError: a table without contrasts, an unknown column or value, and as `mean_interval`.
    """
    columns: dict[str, list[str]] = {}
    for one in metadata_of(table).get("interventions", []):
        if one.get("role") == "contrast":
            columns.setdefault(str(one["of"]), [str(one["of"])]).append(str(one["name"]))
    if not columns:
        raise InputError("the table has no contrasts; sweep treatments together with contrasts()")
    groups = _groups(table, by, order)
    shape = len(groups), len(columns)
    size = 3.6 * shape[1], 2.3 * shape[0] + 1.2
    drawing = several(
        *shape, shape[0] * shape[1], size, ax, figsize, fontsize, sharex=True, sharey=True
    )
    with drawing as (whole, flat):
        places = np.reshape(np.array(flat, dtype=object), shape)
        for (name, part), row in zip(groups, places, strict=True):
            for names, place in zip(columns.values(), row, strict=True):
                rows = only_rows(part, names)
                found = mean_interval(rows, metric, level=level, seed=seed)
                _panel(place, rows, metric, names, found, ticks)
                said = f"{name}n = {part['prompt'].nunique()}"
                place.set_title(said, fontsize="small", loc="left")
        places[0, 0].set_ylim(0.0, places[0, 0].get_ylim()[1])  # shared, once all bands are there
        for place in places[-1]:
            place.set_xlabel("Layer")
            under = {"bbox_to_anchor": (0.0, 0.0), "bbox_transform": below(place, 0.52)}
            under |= {"loc": "upper left", "borderaxespad": 0, "ncols": 2}
            place.legend(frameon=False, fontsize="x-small", **under)
        whole.supylabel(metric_label(table, metric), fontsize="medium")
        if title:
            whole.suptitle(title, fontsize="medium")
    return whole


def _groups(
    table: pd.DataFrame, by: str | None, order: Sequence[str] | None
) -> list[tuple[str, pd.DataFrame]]:
    """What stands before the number of prompts, and the prompts, of every row of panels."""
    if by is None:
        return [("", table)]
    if by not in table:
        raise unknown("column", by, table.columns)
    seen = [str(value) for value in dict.fromkeys(table[by].dropna())]
    wanted = order or [v for v in metadata_of(table).get(f"{by}_order", seen) if v in seen]
    for value in wanted:
        if value not in seen:
            raise unknown(by, value, seen)
    members = {v: list(dict.fromkeys(table.loc[table[by] == v, "prompt"])) for v in wanted}
    return [(f"{plain(value)}, ", only_prompts(table, members[value])) for value in wanted]


def _panel(
    ax: Axes,
    table: pd.DataFrame,
    metric: str,
    names: list[str],
    found: pd.DataFrame,
    ticks: Any,
) -> None:
    """Draw a treatment, which is the first of the names, and its contrasts."""
    layers = list(dict.fromkeys(found["layer"]))
    x = range(len(layers))
    for i, (name, label) in enumerate(zip(names, row_labels(table, names), strict=True)):
        mine = found[found["intervention"] == name].set_index("layer").reindex(layers)
        width = 1.8 if i == 0 else 1.0
        ax.plot(x, mine["mean"], label=label.split(" | ")[-1], linewidth=width, **look_of(i))
        if i == 0:
            ends = mine[["band_low", "band_high"]].to_numpy(float).T
            ax.fill_between(x, *ends, color=COLOURS[0], alpha=0.18, linewidth=0)
    floors = floor_of(only_rows(table, names[:1]), metric)
    floor = 0.0 if floors is None else float(np.nanmax(floors))
    if floor > VISIBLE * float(np.nanmax(found["mean"])):
        ax.axhline(floor, color="0.3", linewidth=0.9, linestyle=":", label="noise floor")
    name_layers(ax.xaxis, x, list(map(int, layers)), ticks, 5)
    ax.spines[["top", "right"]].set_visible(False)
