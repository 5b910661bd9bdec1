"""Treatments: which rows of a table do the same thing with another source or window."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from knockgrid.errors import InputError
from knockgrid.table.metadata import shared
from knockgrid.table.table import KEY, metadata_of, numbers

ROLES = ("treatment", "null", "contrast")
"""What a row is for: what is measured, what should do nothing, more than what it should do."""


class Treatment(NamedTuple):
    """One intervention of a table that is neither a null nor a contrast.

    `row` is what the figures call it (subject, attention, last), whatever its source; `source` is
    the source's label without `corrupted_run()` around it, None for a knockout.
    """

    name: str
    row: str
    source: str | None
    window: int | str


def treatments(table: pd.DataFrame) -> list[Treatment]:
    """The treatments of a table, in its order."""
    described = metadata_of(table).get("interventions")
    if not described:
        raise InputError(
            "the table does not say what its interventions are (metadata 'interventions'); take a "
            "table that sweep made, with its attrs"
        )
    swept = set(table["intervention"]) if "intervention" in table else set()
    return [
        Treatment(
            one["name"],
            one.get("row", one["name"]),
            one.get("corruption", one.get("source")),
            one["window"],
        )
        for one in described
        if one.get("role", "treatment") == "treatment"
        and ("intervention" not in table or one["name"] in swept)  # every prompt may be dropped
    ]


def only_rows(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The rows of some interventions, under metadata that names no others."""
    kept = table[table["intervention"].isin(list(names))].copy()
    metadata = metadata_of(table)
    listed = [one for one in metadata.get("interventions", []) if one["name"] in names]
    order = [name for name in metadata.get("intervention_order", []) if name in names]
    told = {**metadata, "interventions": listed, "intervention_order": order}
    kept.attrs = {**table.attrs, KEY: told}
    return kept


def with_all(table: pd.DataFrame, names: Sequence[str], metric: str) -> pd.DataFrame:
    """The rows of some interventions on the prompts that have a value of every one of them."""
    part = only_rows(table, names)
    valued = part[~np.isnan(numbers(part, metric))]
    has = [set(valued.loc[valued["intervention"] == name, "prompt"]) for name in names]
    return only_prompts(part, sorted(set.intersection(*has)))


def only_prompts(table: pd.DataFrame, prompts: Sequence[str]) -> pd.DataFrame:
    """The rows of some prompts, under metadata that names no others."""
    wanted = set(prompts)
    kept = table[table["prompt"].isin(wanted)].copy()
    metadata = metadata_of(table)
    sides = [side for side in metadata.get("prompts", []) if side["id"] in wanted]
    kept.attrs = {**table.attrs, KEY: {**metadata, **shared({"prompts": sides})}}
    return kept
