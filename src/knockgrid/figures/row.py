"""Panels side by side: those on a shared scale, and one on a scale of its own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from knockgrid.figures.canvas import several, sketch_axes
from knockgrid.figures.scale import common, inner_names_away, one_colour_bar, size_of

Panel = tuple[str, pd.DataFrame, Mapping[str, Any]]


def symmetric(table: pd.DataFrame, metric: str) -> dict[str, Any]:
    """The options of a panel with differences: white is 0, both ends are as far from it."""
    size = float(np.nanmax(np.abs(table[metric].to_numpy(float)), initial=0.0)) or 1.0
    return {"limits": (-size, size), "cmap": "RdBu_r"}


def in_a_row(
    figure: Callable[..., Axes],
    shared: Sequence[Panel],
    own: Panel | None,
    metric: str,
    options: Mapping[str, Any],
) -> Figure:
    """Draw panels side by side; tables of a contrast count no prompts in their title."""
    whole_options = {name: options.get(name) for name in ("ax", "figsize", "fontsize")}
    options = {name: value for name, value in options.items() if name not in whole_options}
    sketches = [figure(part, metric, ax=sketch_axes(), **options) for _, part, _ in shared]
    scale = {"limits": common(sketches), **options}
    panels = [(name, part, {**scale, **more}) for name, part, more in shared]
    if own is not None:
        panels.append((own[0], own[1], {**options, **own[2]}))
    width, height = size_of(sketches)
    n = len(panels)
    flat = width > 1.5 * height  # wide grids lie under each other, so that layers line up
    if whole_options["figsize"] is not None:
        flat = whole_options["figsize"][0] < whole_options["figsize"][1]
    size = (width, height * n) if flat else (min(width * n, 24.0), height)
    rows, columns = (n, 1) if flat else (1, n)
    with several(rows, columns, n, size, **whole_options) as (whole, places):
        for (name, part, more), ax in zip(panels, places, strict=True):
            figure(part, metric, ax=ax, **{**more, "title": name})
            if set(part["prompt"]) <= {"difference", "interval"}:
                ax.set_title(name, fontsize="medium")
        inner_names_away(places)
        one_colour_bar(places[: len(shared)])
    return whole
