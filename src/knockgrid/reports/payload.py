"""Payload: what the page's script is given of a run, within a budget of bytes."""

from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from jaxtyping import Float, Int, UInt
from matplotlib.colors import to_hex

from knockgrid.reports.cells import Cells, cells_of, rows_of, summary, told_metrics
from knockgrid.reports.opened import Opened
from knockgrid.reports.packing import LARGEST, coded, packed
from knockgrid.table.table import metadata_of

FOR_NUMBERS = 450_000
"""Bytes of a page that the numbers of single prompts may take."""
FOR_TOKENS = 900_000
"""Bytes of a page that tokens may take."""
DEPTHS = (10, 5, 3, 1)
"""So many tokens of every row are in a page: the first that fits."""
STEPS = 100
"""Codes per halving of a probability: each is at most 0.35 % off."""
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
    seen = dict.fromkeys(map(_layer, table["layer"]))
    wanted = metadata_of(table).get("layer_order", [])
    layers = list(dict.fromkeys([one for one in wanted if one in seen] + list(seen)))
    found = {
        "name": run.name,
        "unit": metadata_of(table).get("unit"),
        "rows": rows,
        "layers": layers,
        "tokens": sorted({int(one or 0) for one in cells.labels["token"]}),
        "cells": {
            "row": row_of_cell,
            "layer": [layers.index(_layer(one)) for one in cells.labels["layer"]],
            "token": [int(one or 0) for one in cells.labels["token"]],
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


def _layer(layer: Any) -> int | str:
    """The layer of a cell; "own" for rows that edit layers of their own."""
    return "own" if pd.isna(layer) else int(layer)


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


def tokens_of(run: Opened, cells: Cells) -> dict[str, Any]:
    """Words, the clean run's tokens of every prompt, and as many of every row as there is room for.

    `words` has every token once, by id: ids may share a text, as pieces of a letter do. All else
    names tokens by their place in it.
    """
    if "top_tokens" not in run.tops or run.tops["top_tokens"].isna().all():
        return _with(run, cells, 0) | {"tops": None}
    kept = int(run.tops["top_tokens"].dropna().map(len).max())
    for depth in dict.fromkeys(min(kept, one) for one in DEPTHS):
        found = _with(run, cells, depth)
        tops = found["tops"]
        size = len(tops["ids"]) + len(tops["p"]) + sum(map(len, found["words"]["texts"]))
        if size <= FOR_TOKENS:
            return found | {"tops": {**tops, "kept": kept}}
    return _with(run, cells, 0) | {"tops": {"depth": 0, "kept": kept}}


def _with(run: Opened, cells: Cells, depth: int) -> dict[str, Any]:
    """Words, clean tokens and `depth` tokens of every row."""
    ids, logp = _lists(run, depth)
    clean = [
        list(zip(side.get("top_tokens", []), side.get("top_logp", []), strict=True))
        for side in run.prompts
    ]
    said = {id for of_prompt in clean for some, _ in of_prompt for id in some}
    known = sorted({*said, *np.unique(ids).tolist()} - {-1})
    place = {id: i for i, id in enumerate(known)}
    where = cells.spread(np.searchsorted(known, ids), 0, "<u2" if len(known) < 2**16 else "<u4")
    # low bytes, then high ones, rank by rank: what is alike stands together, and deflates by half
    ranks = np.moveaxis(cells.spread(codes(logp), 0, "<u2"), -1, 0)
    return {
        "words": {
            "ids": packed(np.array(known, dtype="<u4")),
            "texts": [run.texts.get(str(one), f"[{one}]") for one in known],
        },
        "clean": [
            [
                [[place[id], code] for id, code in zip(some, codes(logps).tolist(), strict=True)]
                for some, logps in of_prompt
            ]
            for of_prompt in clean
        ],
        "tops": {
            "depth": depth,
            "wide": where.dtype.itemsize == 4,
            "ids": packed(where),
            "p": packed(np.stack([ranks & 255, ranks >> 8]).astype("u1")),
        },
    }


def _lists(run: Opened, depth: int) -> tuple[Int[np.ndarray, "row k"], Float[np.ndarray, "row k"]]:
    """The first tokens of every row and their log-probabilities; -1 and NaN where there is none."""
    n = len(run.tops)
    ids, logp = np.full((n, depth), -1), np.full((n, depth), np.nan)
    if depth:
        pairs = zip(run.tops["top_tokens"], run.tops["top_logp"], strict=True)
        for i, (some, given) in enumerate(pairs):
            if isinstance(some, np.ndarray):
                ids[i, : len(some)], logp[i, : len(some)] = some[:depth], given[:depth]
    return ids, logp


def codes(logp: Any) -> UInt[np.ndarray, "..."]:
    """Log-probabilities in nats as steps of equal ratio below 1, which is 1; 0 is no token."""
    halvings = np.clip(-np.asarray(logp, dtype=float) / np.log(2), 0, (2**16 - 2) / STEPS)
    steps = 1 + np.round(halvings * STEPS)
    return np.where(np.isnan(halvings), 0, steps).astype("<u2")
