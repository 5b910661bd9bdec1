"""Payload: what the page's script is given of a run, within a budget of bytes."""

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import to_hex

from knockgrid._table import metadata_of
from knockgrid.edge.report.cells import Cells, cells_of, rows_of, summary, told_metrics
from knockgrid.edge.report.opened import Opened
from knockgrid.edge.report.packing import coded, digits, packed

FOR_TOKENS, FOR_NUMBERS = 900_000, 450_000
"""Bytes of a page that the tokens and the numbers of single prompts may take."""
DEPTHS = (10, 5, 3, 1)
"""So many tokens of every row are in a page: the first that fits."""
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
    return {**found, **_prompts(run), "statuses": _statuses(cells), "tops": tops_of(run, cells)}


def ramp(name: str) -> list[str]:
    """A colour map of the figures, from low to high."""
    return [to_hex(matplotlib.colormaps[name](i / (STEPS - 1))) for i in range(STEPS)]


def _layers(table: pd.DataFrame) -> list[int]:
    seen = dict.fromkeys(int(one) for one in table["layer"])
    wanted = metadata_of(table).get("layer_order", [])
    return list(dict.fromkeys([one for one in wanted if one in seen] + list(seen)))


def _prompts(run: Opened) -> dict[str, Any]:
    """The side entries, with the clean run's most probable tokens by text."""
    sides = []
    for side in run.prompts:
        lists = zip(side.get("top_tokens", []), side.get("top_logp", []), strict=True)
        clean = [
            [
                [run.texts.get(str(i), f"[{i}]"), digits(np.exp(logp), 3)]
                for i, logp in zip(ids, logps, strict=True)
            ]
            for ids, logps in lists
        ]
        told = {name: side.get(name) for name in SIDE}
        sides.append({**told, "swap": (side.get("swap") or {}).get("text"), "clean": clean})
    return {"prompts": sides}


def _statuses(cells: Cells) -> dict[str, Any]:
    """Why a prompt has no value in a cell: the reasons, and which one holds where."""
    given = cells.table["status"].fillna("ok").astype(str)
    codes, names = pd.factorize(given)
    names = list(map(str, names))[:254]
    where = np.full((len(cells.prompts), len(cells.labels)), 255, dtype="u1")
    where[cells.who, cells.place] = np.minimum(codes, 254)
    return {"names": names, "data": packed(where)}


def tops_of(run: Opened, cells: Cells) -> Mapping[str, Any] | None:
    """The most probable tokens of every prompt in every cell, as many as there is room for."""
    if "top_tokens" not in run.tops or run.tops["top_tokens"].isna().all():
        return None
    kept = int(run.tops["top_tokens"].dropna().map(len).max())
    for depth in dict.fromkeys(min(kept, one) for one in (kept, *DEPTHS)):
        if depth > DEPTHS[0]:
            continue
        found = _tops(run, cells, depth)
        if len(found["ids"]) + len(found["p"]) + sum(map(len, found["texts"])) <= FOR_TOKENS:
            return {**found, "kept": kept}
    return {"depth": 0, "kept": kept}


def _tops(run: Opened, cells: Cells, depth: int) -> dict[str, Any]:
    n = len(run.tops)
    ids, p = np.full((n, depth), -1), np.zeros((n, depth))
    pairs = zip(run.tops["top_tokens"], run.tops["top_logp"], strict=True)
    for i, (some, logp) in enumerate(pairs):
        if isinstance(some, np.ndarray):
            ids[i, : len(some)], p[i, : len(some)] = some[:depth], np.exp(logp[:depth])
    known, place = np.unique(ids, return_inverse=True)
    kind = "<u2" if len(known) < 2**16 else "<u4"
    shape = (len(cells.prompts), len(cells.labels), depth)
    nothing = int(np.searchsorted(known, -1)) if -1 in known else 0
    where, share = np.full(shape, nothing, dtype=kind), np.zeros(shape, dtype="u1")
    where[cells.who, cells.place] = place.reshape(n, depth)
    # the cube root, so that small probabilities keep a digit, too
    share[cells.who, cells.place] = np.round(255 * np.cbrt(p))
    texts = ["" if one < 0 else run.texts.get(str(one), f"[{one}]") for one in known]
    return {
        "depth": depth,
        "wide": kind == "<u4",
        "texts": texts,
        "ids": packed(where),
        "p": packed(share),
    }
