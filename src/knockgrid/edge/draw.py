"""Figures of a run folder, drawn from its table alone."""

import re
from pathlib import Path

import pandas as pd

from knockgrid._errors import unknown
from knockgrid._table import metadata_of
from knockgrid.edge.store import FIGURES
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
    target = folder / FIGURES / f"layer_{kind}_{metric}"
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
        written += save(ax, folder / FIGURES / f"token_heatmap_{_as_file(name)}_{metric}")
    return tuple(written)


def _as_file(name: str) -> str:
    """An intervention's name as a part of a file name."""
    return re.sub(r"[^\w.@-]+", "_", name)


def treatments(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its corruption as the group, attention rows repeated in every group.

    A run with several sources names its rows `subject noise`, `subject swap`, ...; side by side
    each source is a panel of its own, and rows without a source belong to all of them.
    """
    names = [str(one["name"]) for one in metadata_of(table)["interventions"]]
    sources = list(dict.fromkeys(n.split(" ", 1)[1] for n in names if n.startswith("subject ")))
    parts = []
    for source in sources:
        mine = [n for n in names if n.endswith(f" {source}") or n.startswith("attention")]
        parts.append(table[table["intervention"].isin(mine)].assign(group=source))
    joined = pd.concat(parts, ignore_index=True)
    joined["intervention"] = joined["intervention"].replace(
        {f"{row} {source}": row for row in ("subject", "last") for source in sources}
    )
    metadata = dict(metadata_of(table))
    metadata["intervention_order"] = list(dict.fromkeys(_plain(n, sources) for n in names))
    metadata["labels"] = {_plain(n, sources): text for n, text in metadata["labels"].items()}
    joined.attrs = {**table.attrs, "knockgrid": metadata}
    return joined


def _plain(name: str, sources: list[str]) -> str:
    return next((name.removesuffix(f" {s}") for s in sources if name.endswith(f" {s}")), name)
