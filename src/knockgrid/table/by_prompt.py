"""A table as an array: one line per prompt, one column per cell."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from knockgrid.errors import InputError, some_of
from knockgrid.table.table import CELL as LABELS
from knockgrid.table.table import check, numbers, place_of, refuse_nan

CELL = tuple(name for name in LABELS if name not in ("samples", "mode", "direction"))


@dataclass(frozen=True, eq=False)
class ByPrompt:
    """The values of one metric, `[prompt, cell]`, NaN where the status says that there is none.

    `cells` has one line per cell, in the table's order, with its labels.
    """

    prompts: tuple[str, ...]
    cells: pd.DataFrame
    values: Float[np.ndarray, "prompt cell"]

    @property
    def bands(self) -> np.ndarray:
        """One number per cell, equal for the layers of one row."""
        names = [name for name in self.cells if name not in ("layer", "layers")]
        return self.cells.groupby(names, sort=False, dropna=False).ngroup().to_numpy()

    def rows(self) -> Iterator[tuple[dict, np.ndarray]]:
        """The labels of every row, and which cells are its layers."""
        labels = self.cells.drop(columns=["layer", "layers"], errors="ignore")
        labels, bands = labels.dropna(axis=1, how="all"), self.bands
        for band in range(bands.max() + 1):
            yield dict(labels[bands == band].iloc[0]), bands == band


def by_prompt(table: pd.DataFrame, metric: str) -> ByPrompt:
    """The values of `metric` as an array `[prompt, cell]`."""
    check(table, metric)
    labels = cell_labels(table)
    place, known = pd.factorize(pd.Series(list(pd.MultiIndex.from_frame(labels)), dtype=object))
    who, prompts = pd.factorize(table["prompt"].astype(object))
    value = numbers(table, metric)
    twice = pd.DataFrame({"who": who, "place": place}).duplicated().to_numpy(bool)
    if twice.any():
        raise InputError(
            f"{place_of(table, twice)} has two values of {metric!r} in one cell; keep one with a "
            "filter"
        )
    if np.isinf(value).any():
        raise InputError(
            f"{metric!r} is infinite in some cells, so its mean has no interval and no test (first "
            f"{place_of(table, np.isinf(value))}); take 'js', or filter these rows out"
        )
    refuse_nan(table, metric, value)
    values = np.full((len(prompts), len(known)), np.nan)
    values[who, place] = value
    cells = pd.DataFrame(list(known), columns=labels.columns)
    return ByPrompt(tuple(map(str, prompts)), cells, values)


def cell_labels(table: pd.DataFrame) -> pd.DataFrame:
    """What names the cell of every row, None where a label is missing.

    Positions of the answer lie at other tokens in other prompts, and belong together.
    """
    names = [name for name in CELL if name in table]
    labels = table[names].astype(object).where(table[names].notna(), None)
    if "position" in names and "token" in names:
        labels["token"] = labels["token"].mask(table["position"].notna(), 0)
    return labels


def missing(prompts: Sequence[str], values: Float[np.ndarray, "prompt cell"]) -> str:
    """The prompts that lack a value somewhere, by name; empty where none does."""
    lacking = [p for p, row in zip(prompts, values, strict=True) if np.isnan(row).any()]
    if not lacking:
        return ""
    return f"no value in some cells of {len(lacking)} prompts: {some_of(lacking)}"
