"""Cells of a report: every cell of every row with its mean, interval and floor, nothing mixed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped

from knockgrid.errors import InputError
from knockgrid.figures.words import metric_label, row_labels
from knockgrid.reports.packing import digits
from knockgrid.stats.mean_interval import mean_interval
from knockgrid.table.by_prompt import cell_labels
from knockgrid.table.floor import floor_of
from knockgrid.table.measures import is_signed
from knockgrid.table.table import metadata_of, metrics, numbers

ROW = ("intervention", "head", "module", "position", "span", "alpha", "measured")
"""What tells rows of a grid apart; within one row there are layers and measured tokens."""
TOLD = ("kind", "window", "source", "corruption", "role", "of")
"""What is said of a row's intervention."""


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of a table; `who` and `place` are the prompt and the cell of each of its rows.

    `labels` has one line per cell, in the order in which `mean_interval` gives them.
    """

    table: pd.DataFrame
    labels: pd.DataFrame
    prompts: tuple[str, ...]
    who: Int[np.ndarray, " rows"]
    place: Int[np.ndarray, " rows"]

    def spread(
        self, values: Shaped[np.ndarray, "rows ..."], fill: float, dtype: Any
    ) -> Shaped[np.ndarray, "prompt cell ..."]:
        """What the rows hold, by prompt and cell; `fill` where there is no row."""
        shape = (len(self.prompts), len(self.labels), *values.shape[1:])
        found = np.full(shape, fill, dtype=dtype)
        found[self.who, self.place] = values
        return found

    def values(self, metric: str) -> Float[np.ndarray, "prompt cell"]:
        """The values of a metric, NaN where there is none."""
        return self.spread(numbers(self.table, metric), np.nan, float)


def cells_of(table: pd.DataFrame, prompts: Sequence[str]) -> Cells:
    """The cells of a table, with prompts in the order of the plan."""
    labels = cell_labels(table)
    keys = pd.Series(list(labels.itertuples(index=False, name=None)), dtype=object)
    place, known = pd.factorize(keys)
    who = table["prompt"].astype(object).map({id: i for i, id in enumerate(prompts)}).to_numpy(int)
    cells = pd.DataFrame(list(known), columns=labels.columns, dtype=object)
    return Cells(table, cells, tuple(prompts), who, place)


def rows_of(cells: Cells) -> tuple[list[dict[str, Any]], list[int]]:
    """The rows of the grid, and the row of every cell."""
    metadata = metadata_of(cells.table)
    described = {one["name"]: one for one in metadata.get("interventions", [])}
    order = {name: i for i, name in enumerate(metadata.get("intervention_order", []))}
    keys = list(cells.labels[list(ROW)].itertuples(index=False, name=None))
    rows = sorted(dict.fromkeys(keys), key=lambda key: order.get(key[0], len(order)))
    one_each = len({key[0] for key in rows})
    several = [i for i in range(1, len(ROW)) if len({(key[0], key[i]) for key in rows}) > one_each]
    found = []
    for key in rows:
        more = [f"{ROW[i]} {key[i]}" for i in several if key[i] is not None]
        told = described.get(str(key[0]), {})
        row = {name: _plain(value) for name, value in zip(ROW, key, strict=True)}
        row["label"] = " ".join([row_labels(cells.table, [key[0]])[0], *more])
        found.append(row | {name: told.get(name) for name in TOLD})
    # rows of several sources share a label: add the source, or else the row's own name
    for row in _alike(found):
        row["label"] += f" {row['corruption'] or row['intervention']}"
    for row in _alike(found):
        row["label"] += f" ({row['intervention']})"
    place = {key: i for i, key in enumerate(rows)}
    return found, [place[key] for key in keys]


def _alike(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows that share their label with another one."""
    count = Counter(row["label"] for row in rows)
    return [row for row in rows if count[row["label"]] > 1]


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def told_metrics(table: pd.DataFrame) -> list[str]:
    """The metrics that have a value anywhere, and that no other one says already."""
    found = [name for name in metrics(table) if not np.isnan(numbers(table, name)).all()]
    one_sample = metadata_of(table).get("samples") == 1
    return [name for name in found if not (name == "js_mean_dist" and one_sample)]


def summary(cells: Cells, metric: str) -> Mapping[str, Any]:
    """Per cell: mean over prompts, the interval of that cell alone, noise floor, prompts."""
    values = cells.values(metric)
    n = (~np.isnan(values)).sum(0)
    with np.errstate(invalid="ignore"):
        mean = np.nansum(values, axis=0) / np.where(n > 0, n, np.nan)
    found: dict[str, Any] = {
        "name": metric,
        "label": metric_label(cells.table, metric),
        "signed": is_signed(cells.table, metric),
        "mean": [digits(one) for one in mean],
        "n": n.tolist(),
        "low": None,
        "high": None,
        "floor": _floor(cells, metric),
        "clusters": "",
        "note": "",
    }
    try:
        made = mean_interval(cells.table, metric)
    except InputError as error:
        return {**found, "note": f"no interval: {error}"}
    if made["low"].notna().any():
        found |= {end: [digits(one) for one in made[end]] for end in ("low", "high")}
    found["clusters"] = str(made["cluster"].iloc[0])
    found["note"] = next((note for note in made["note"] if note.startswith("only")), "")
    return found


def _floor(cells: Cells, metric: str) -> list[Any] | None:
    """The highest noise floor of the rows that a cell is made of."""
    floor = floor_of(cells.table, metric)
    if floor is None:
        return None
    highest = pd.Series(floor).groupby(cells.place).max()
    return [digits(highest.get(i)) for i in range(len(cells.labels))]
