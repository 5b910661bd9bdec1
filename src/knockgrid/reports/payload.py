"""Payload: what the page's script is given of a run, within a budget of bytes."""

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import to_hex

from knockgrid.reports.cells import Cells, cells_of, rows_of, summary, told_metrics
from knockgrid.reports.opened import Opened
from knockgrid.reports.packing import LARGEST, coded, packed
from knockgrid.reports.tokens import tokens_of
from knockgrid.table.table import metadata_of

FOR_NUMBERS = 450_000
"""Bytes of a page that the numbers of single prompts may take."""
COLOURS, DIVERGING, STEPS = "Blues", "RdBu_r", 64
SIDE = (
    *("id", "text", "subject", "relation", "group", "answers", "tokens", "subject_tokens"),
    *("generated", "rank_answer_clean"),
)


def payload(run: Opened, *, prompts: bool = True) -> dict[str, Any]:
    """What there is to show of a run; of single prompts nothing where `prompts` is False."""
    table = run.table
    if table is None:
        raise ValueError("a run without rows has no payload")
    cells = cells_of(table, [str(side["id"]) for side in run.prompts])
    rows, row_of_cell = rows_of(cells)
    layers = _layers(table)
    names = told_metrics(table)
    found = {
        "name": run.name,
        "unit": metadata_of(table).get("unit"),
        "rows": rows,
        "layers": layers,
        "tokens": sorted(int(one) for one in cells.labels["token"].unique()),
        "cells": {
            "row": row_of_cell,
            "layer": [layers.index(int(one)) for one in cells.labels["layer"]],
            "token": [int(one) for one in cells.labels["token"]],
            "layers": list(map(str, cells.labels["layers"])),
        },
        "metrics": [dict(summary(cells, name)) for name in names],
        "colours": ramp(COLOURS),
        "diverging": ramp(DIVERGING),
    }
    if not prompts:
        return found
    taken = 0
    for one in found["metrics"]:
        values = coded(cells.values(one["name"]))
        taken += len(values["data"])
        one["values"] = values if taken <= FOR_NUMBERS else None
    tokens = tokens_of(run, cells)
    found["prompts"] = _prompts(run, tokens["clean"])
    return {
        **found,
        "statuses": _statuses(cells),
        "written": _written(cells),
        "words": tokens["words"],
        "tops": tokens["tops"],
    }


def ramp(name: str) -> list[str]:
    """A colour map of the figures, from low to high."""
    return [to_hex(matplotlib.colormaps[name](i / (STEPS - 1))) for i in range(STEPS)]


def _layers(table: pd.DataFrame) -> list[int]:
    seen = dict.fromkeys(int(one) for one in table["layer"])
    wanted = metadata_of(table).get("layer_order", [])
    return list(dict.fromkeys([one for one in wanted if one in seen] + list(seen)))


def _prompts(run: Opened, clean: list[Any]) -> list[dict[str, Any]]:
    """The side entries, with the clean run's most probable tokens."""
    return [
        {name: side.get(name) for name in SIDE}
        | {"swap": (side.get("swap") or {}).get("text"), "clean": tokens}
        for side, tokens in zip(run.prompts, clean, strict=True)
    ]


def _written(cells: Cells) -> dict[str, Any] | None:
    """What free runs wrote, each text once, and the number of its text in every cell; 0 for none.

    None in other modes, and where the texts are more than the page has room for.
    """
    if "written" not in cells.table:
        return None
    codes, texts = pd.factorize(cells.table["written"].astype(object))
    if len(texts) > LARGEST or sum(map(len, texts)) > FOR_NUMBERS:
        return None
    where = np.zeros((len(cells.prompts), len(cells.labels)), dtype="<u2")
    where[cells.who, cells.place] = codes + 1
    return {"texts": list(map(str, texts)), "data": packed(where)}


def _statuses(cells: Cells) -> dict[str, Any]:
    """Why a prompt has no value in a cell: the reasons, and which one holds where."""
    given = cells.table["status"].fillna("ok").astype(str)
    codes, names = pd.factorize(given)
    names = list(map(str, names))[:254]
    where = np.full((len(cells.prompts), len(cells.labels)), 255, dtype="u1")
    where[cells.who, cells.place] = np.minimum(codes, 254)
    return {"names": names, "data": packed(where)}
