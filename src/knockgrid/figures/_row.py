"""Panels side by side: those on a shared scale, and one on a scale of its own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from knockgrid.figures._canvas import new_figure
from knockgrid.figures._scale import common, size_of

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
    sketches = [figure(part, metric, ax=Figure().subplots(), **options) for _, part, _ in shared]
    scale = {"limits": common(sketches), **options}
    panels = [(name, part, {**scale, **more}) for name, part, more in shared]
    if own is not None:
        panels.append((own[0], own[1], {**options, **own[2]}))
    width, height = size_of(sketches)
    n = len(panels)
    flat = width > 1.5 * height  # wide grids lie under each other, so that layers line up
    size = (width, height * n) if flat else (min(width * n, 24.0), height)
    whole = new_figure(*size)
    places = whole.subplots(n if flat else 1, 1 if flat else n, squeeze=False).ravel()
    for (name, part, more), ax in zip(panels, places, strict=True):
        figure(part, metric, ax=ax, title=name, **more)
        if set(part["prompt"]) <= {"difference", "interval"}:
            ax.set_title(name, fontsize="medium")
    return whole
