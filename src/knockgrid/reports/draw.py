"""Figures of a run folder, drawn from its table alone."""

from pathlib import Path
from typing import Any

import pandas as pd

from knockgrid.display.escape import file_name
from knockgrid.errors import unknown
from knockgrid.figures import (
    dose_heatmap,
    head_heatmap,
    layer_curve,
    layer_heatmap,
    module_heatmap,
    panels,
    position_heatmap,
    save,
    token_heatmap,
)
from knockgrid.runs.run_folder import FIGURES
from knockgrid.table import treatments as _treatments
from knockgrid.table.table import metadata_of

KINDS = {
    "heatmap": layer_heatmap,
    "curve": layer_curve,
    "positions": position_heatmap,
    "modules": module_heatmap,
    "heads": head_heatmap,
    "doses": dose_heatmap,
}
TOKENS = "tokens"
TREATMENT = "treatment"


def draw(
    table: pd.DataFrame, folder: Path, *, kind: str = "heatmap", metric: str = "js", by: str | None
) -> tuple[Path, ...]:
    """Draw one figure of a table into the folder's `figures/`, as SVG, PDF and PNG.

    Raises:
        InputError: an unknown figure, metric or column.
    """
    if kind == TOKENS:
        return draw_tokens(table, folder, metric)
    if kind not in KINDS:
        raise unknown("figure", kind, [*KINDS, TOKENS])
    target = folder / FIGURES / f"layer_{kind}_{file_name(metric)}"
    if by == TREATMENT:
        return save(panels(treatments(table), KINDS[kind], by="group", metric=metric), target)
    if by is not None:
        return save(panels(table, KINDS[kind], by=by, metric=metric), target)
    return save(KINDS[kind](table, metric=metric), target)


def draw_tokens(table: pd.DataFrame, folder: Path, metric: str) -> tuple[Path, ...]:
    """One layer × token figure per intervention, named after it."""
    written: list[Path] = []
    for name in table["intervention"].unique():
        ax = token_heatmap(table, metric, intervention=name)
        target = f"token_heatmap_{file_name(name)}_{file_name(metric)}"
        written += save(ax, folder / FIGURES / target)
    return tuple(written)


def treatments(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its corruption as the group, attention rows repeated in every group.

    A run with several sources names its rows `subject noise`, `subject swap`, ...; side by side
    each source is a panel of its own, and rows without a source belong to all of them.
    """
    found = _treatments.treatments(table)
    sources = dict.fromkeys(one.source for one in found if one.source is not None)
    plain = {one.name: one.name if one.source is None else one.row for one in found}
    parts = []
    for source in sources:
        mine = {one.name: one.source for one in found if one.source in (source, None)}
        panel = next(n.split(" ", 1)[-1] for n, of in mine.items() if of == source)
        parts.append(table[table["intervention"].isin(mine)].assign(group=panel))
    joined = pd.concat(parts, ignore_index=True)
    joined["intervention"] = joined["intervention"].replace(plain)
    metadata = dict(metadata_of(table))
    metadata["intervention_order"] = list(dict.fromkeys(plain.values()))
    metadata["labels"] = {plain.get(n, n): text for n, text in metadata["labels"].items()}
    if isinstance(metadata.get("noise_floor"), dict):
        metadata["noise_floor"] = {
            m: _renamed(f, plain) for m, f in metadata["noise_floor"].items()
        }
    joined.attrs = {**table.attrs, "knockgrid": metadata}
    return joined


def _renamed(floor: Any, plain: dict[str, str]) -> Any:
    """A noise floor under the rows' plain names; sources share the site, and so its floor."""
    if not isinstance(floor, dict):
        return floor
    cells = {plain.get(name, name): cells for name, cells in floor.get("cells", {}).items()}
    return {**floor, "cells": cells}
