"""probe_beside_effect: what a probe can read beside what the model uses."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from knockgrid.errors import InputError
from knockgrid.figures.canvas import Size, heatmap_size, several
from knockgrid.figures.heatmaps import position_heatmap
from knockgrid.figures.panels import inner_names_away, mesh_of
from knockgrid.table.table import build

CHANCE = 0.5


def probe_beside_effect(
    probes: pd.DataFrame,
    table: pd.DataFrame,
    apart: pd.DataFrame | None = None,
    *,
    metric: str = "js",
    diverging: bool = False,
    ax: Any = None,
    figsize: Size | None = None,
    fontsize: float | int | None = None,
    title: str | None = None,
    **style: Any,
) -> Figure:
    """Draw probe AUC, its shuffled control and the divergence on the same layers and positions.

    `probes` comes from `probe_auc()`, `table` from a sweep over `per_position()` of the same
    places, `apart` from `readable_not_used()`: with it a fourth panel shows what is readable but
    not used. The AUC runs from 0.5 to 1 in the published Blues; cells below 0.5 carry a minus sign,
    or, with `diverging`, a colour of their own around 0.5. `figsize`, `fontsize` and `ax` are as in
    `panels`, `title` stands above all panels, other options are those of `layer_heatmap`.

    Example:
        >>> from knockgrid.table.table import build
        >>> row = {"intervention": "a", "position": "last_q", "layer": 0}
        >>> probes = build([{"prompt": "seed 0", **row, "auc": 0.7, "auc_shuffled": 0.5}], {})
        >>> table = build([{"prompt": "rome", **row, "js": 0.1}], {"unit": "nats"})
        >>> [ax.get_title() for ax in probe_beside_effect(probes, table).axes if ax.get_title()]
        ['probe (1 seed)', 'shuffled labels (1 seed)', 'divergence (n = 1 prompt)']

    Raises:
        InputError: a table without positions or AUCs.

    Source: Orgad et al. 2024, arXiv 2410.02707, figure 2 (the AUC).
    Limit: prompts answered wrong are few in a well-known relation, so an AUC can be chance.
    """
    if "auc" not in probes:
        raise InputError("the first table has no column 'auc'; make it with probe_auc()")
    count, columns = (3, 3) if apart is None else (4, 2)
    rows = -(-count // columns)
    width, height = heatmap_size(probes["layer"].nunique(), probes["position"].nunique(), 4)
    size = (min(width * columns, 26.0), (height + 1.6) * rows)
    seeds = probes["prompt"].nunique()
    auc = {**style, **({"cmap": "RdBu_r"} if diverging else {})}
    auc["limits"] = (0.0 if diverging else CHANCE, 1.0)
    with several(rows, columns, count, size, ax, figsize, fontsize) as (whole, places):
        for place, name, words in zip(
            places, ("auc", "auc_shuffled"), ("probe", "shuffled labels"), strict=False
        ):
            position_heatmap(probes, name, ax=place, **auc)
            place.set_title(f"{words} ({seeds} seed{'s' * (seeds > 1)})", fontsize="medium")
            _mark_below_chance(place)
        position_heatmap(table, metric, ax=places[2], title="divergence", **style)
        if apart is not None:
            _difference(apart, places[3])
        inner_names_away(places)
        if title:
            whole.suptitle(title, fontsize="medium")
    return whole


def _mark_below_chance(ax: Axes) -> None:
    mesh = mesh_of(ax)
    assert mesh is not None
    for y, x in np.argwhere(np.asarray(mesh.get_array()) < CHANCE):
        ax.text(x + 0.5, y + 0.5, "−", ha="center", va="center", gid="below chance")


def _difference(apart: pd.DataFrame, ax: Axes) -> None:
    """Red: a probe can read it and the model does not use it; blue: the reverse."""
    found = apart.rename_axis(index="layer", columns="position").stack(future_stack=True)
    rows = found.rename("share").reset_index().assign(prompt="difference", intervention="all")
    rows["status"] = np.where(rows["share"].notna(), "ok", "NA: no value in one of the two")
    label = "readable − used (shares, −1 … 1)"
    look = {"cmap": "RdBu_r", "limits": (-1.0, 1.0), "colorbar": label}
    position_heatmap(build(rows.to_dict("records"), {}), "share", ax=ax, **look)
    ax.set_title("readable but not used", fontsize="medium")
