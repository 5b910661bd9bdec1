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
    seen = dict.fromkeys(int(one) for one in table["layer"])
    wanted = metadata_of(table).get("layer_order", [])
    layers = list(dict.fromkeys([one for one in wanted if one in seen] + list(seen)))
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
        "metrics": [dict(summary(cells, name)) for name in told_metrics(table)],
        "colours": _ramp("Blues"),
        "diverging": _ramp("RdBu_r"),
    }
    if not prompts:
        return found
    taken = 0
    for one in found["metrics"]:
        values = coded(cells.values(one["name"]))
        taken += len(values["data"])
        one["values"] = values if taken <= FOR_NUMBERS else None
    tokens = tokens_of(run, cells)
    return {
        **found,
        "prompts": [
            {name: side.get(name) for name in SIDE}
            | {"swap": (side.get("swap") or {}).get("text"), "clean": clean}
            for side, clean in zip(run.prompts, tokens["clean"], strict=True)
        ],
        "statuses": _statuses(cells),
        "written": _written(cells),
        "words": tokens["words"],
        "tops": tokens["tops"],
    }


def _ramp(name: str) -> list[str]:
    """A colour map of the figures, from low to high."""
    return [to_hex(matplotlib.colormaps[name](share)) for share in np.linspace(0, 1, 64)]


def _written(cells: Cells) -> dict[str, Any] | None:
    """What free runs wrote, each text once, and the number of its text in every cell; 0 for none.

    None in other modes, and where the texts are more than the page has room for.
    """
    if "written" not in cells.table:
        return None
    codes, texts = pd.factorize(cells.table["written"].astype(object))
    if len(texts) > LARGEST or sum(map(len, texts)) > FOR_NUMBERS:
        return None
    return {"texts": list(map(str, texts)), "data": packed(cells.spread(codes + 1, 0, "<u2"))}


def _statuses(cells: Cells) -> dict[str, Any]:
    """Why a prompt has no value in a cell: the reasons, and which one holds where."""
    given = cells.table["status"].fillna("ok").astype(str)
    codes, names = pd.factorize(given)
    where = cells.spread(np.minimum(codes, 254), 255, "u1")
    return {"names": list(map(str, names))[:254], "data": packed(where)}
