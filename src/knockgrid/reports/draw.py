"""Figures of a run folder, drawn from its table alone."""

from pathlib import Path
from typing import Any

import pandas as pd

from knockgrid import figures
from knockgrid.display.escape import file_name
from knockgrid.errors import InputError, unknown
from knockgrid.figures import Figure, panels, save
from knockgrid.figures.figure import figure_names
from knockgrid.runs.run_folder import FIGURES
from knockgrid.table.table import metadata_of
from knockgrid.table.treatments import treatments


def figure_of(kind: str) -> Figure[..., Any]:
    """The figure with this name."""
    if kind not in figure_names():
        raise unknown("figure", kind, figure_names())
    return getattr(figures, kind)


def draw(
    table: pd.DataFrame,
    folder: Path,
    *,
    kind: str = "layer_heatmap",
    metric: str | None = None,
    by: str | None = None,
) -> tuple[Path, ...]:
    """Draw one figure of a table into the folder's `figures/`, as SVG, PDF and PNG.

    A figure with `each` is drawn once for each value of that column, and its files name the value.
    """
    figure = figure_of(kind)
    metric = metric or figure.metric
    if by == "treatment":
        table, by = by_source(table), "group"
    values = [None] if figure.each is None else list(table[figure.each].unique())
    written: list[Path] = []
    for value in values:
        part = table if value is None else table[table[figure.each] == value]
        named = [kind, *([] if value is None else [file_name(value)]), file_name(metric)]
        written += save(_drawn(figure, part, metric, by), folder / FIGURES / "_".join(named))
    return tuple(written)


def _drawn(figure: Figure[..., Any], table: pd.DataFrame, metric: str, by: str | None) -> Any:
    if by is None:
        return figure(table, metric)
    if figure.by == "itself":
        return figure(table, metric, by=by)
    if figure.by == "no":
        raise InputError(f"{figure.name} has no panels by a column; leave out --by")
    return panels(table, figure, by=by, metric=metric)


def by_source(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its corruption as the group, attention rows repeated in every group.

    A run with several sources names its rows `subject noise`, `subject swap`, ...; side by side
    each source is a panel of its own, and rows without a source belong to all of them.
    """
    found = treatments(table)
    plain = {one.name: one.name if one.source is None else one.row for one in found}
    parts = []
    for source in dict.fromkeys(one.source for one in found if one.source is not None):
        mine = [one.name for one in found if one.source in (source, None)]
        first = next(one.name for one in found if one.source == source)
        part = table[table["intervention"].isin(mine)]
        parts.append(part.assign(group=first.split(" ", 1)[-1]))
    if not parts:
        raise InputError("no row of this table has a source; leave out --by treatment")
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
