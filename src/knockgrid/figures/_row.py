"""Panels side by side: those on a shared scale, and one on a scale of its own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

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
    whole = Figure(figsize=(min(width * len(panels), 24.0), height), layout="constrained")
    places = whole.subplots(1, len(panels), squeeze=False)[0]
    for (name, part, more), ax in zip(panels, places, strict=True):
        figure(part, metric, ax=ax, title=name, **more)
        if set(part["prompt"]) <= {"difference", "interval"}:
            ax.set_title(name, fontsize="medium")
    return whole
