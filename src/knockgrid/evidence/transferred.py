"""judge_transfer: did an edit bring the corrupted run along, or only break the clean one?"""

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from knockgrid.errors import InputError
from knockgrid.evidence.frames import described, need_columns, refuse_denoising
from knockgrid.table.table import CELL, metadata_of, numbers

FAR = 0.5  # of the way from the clean run to the corrupted one
VERDICTS = ("transferred", "broken", "neither")
MEASURED = ("js", "js_to_source", "js_corrupted")


def judge_transfer(table: pd.DataFrame) -> pd.DataFrame:
    """Per cell, how far the edited run is from the clean and the corrupted one, and a verdict.

    Example:
        >>> from knockgrid.table.table import build
        >>> cell = {"prompt": "rome", "intervention": "last"}
        >>> rows = [
        ...     {**cell, "layer": layer, "js": js, "js_to_source": to_source}
        ...     for layer, js, to_source in [(0, 0.0, 0.4), (20, 0.3, 0.3), (29, 0.4, 0.0)]
        ... ]
        >>> side = {"id": "rome", "js_corrupted": {"last": 0.4}}
        >>> judge_transfer(build(rows, {"prompts": [side]}))[["layer", "share", "verdict"]].values
        array([[0, 0.0, 'neither'],
               [20, 0.7499999999999999, 'broken'],
               [29, 1.0, 'transferred']], dtype=object)

    Columns are those that name the cell; `js` (clean, edited), `js_to_source` (corrupted, edited)
    and `js_corrupted` (clean, corrupted), means over prompts of equal weight in the table's unit;
    `share`, the ratio of the means `js / js_corrupted`; `verdict`; `n_prompts` behind the means,
    and how many have each verdict by themselves (`n_transferred`, `n_broken`, `n_neither`);
    `left_out`, the ids of prompts without a value; `status`. Only the token after the prompt is
    read, for which alone the table holds `js_corrupted`.

    The verdict is "broken" where both `js` and `js_to_source` are at least half of `js_corrupted`;
    else "transferred" where the edited run is nearer to the corrupted run than to the clean one,
    else "neither". It is NA in a cell without a source run (a knockout, `zero()`, ...).

    Raises:
        InputError: a table without these columns or its side table, or of direction "denoising".

    Source: ours. Limits: with several samples `js_corrupted` is that of the first. JS is no length:
    half of `js_corrupted` is 0.7 of the way in its square root, which is one (Endres & Schindelin
    2003), and a run that mixes the two others evenly is far from neither.
    """
    need_columns(table, ("prompt", "token", *MEASURED[:2]), "sweep() with the metric 'js'")
    refuse_denoising(table)
    sides = metadata_of(table).get("prompts")
    if not sides:
        raise InputError(
            "the table has lost its side table of prompts, which says how far each was corrupted; "
            "give it as sweep() or read_table() returned it"
        )
    first = table[table["token"].fillna(0) == 0]
    if first.empty:
        raise InputError("the table has no rows of token 0; keep those in the filter that made it")
    moved = {
        (str(side["id"]), name): float(value)
        for side in sides
        for name, value in side.get("js_corrupted", {}).items()
    }
    keys = [name for name in CELL if name in first and name not in ("token", "samples")]
    values = {name: numbers(first, name) for name in MEASURED[:2]}
    pairs = zip(first["prompt"], first["intervention"], strict=True)
    values["js_corrupted"] = np.array([moved.get(pair, math.nan) for pair in pairs], dtype=float)
    long = first[[*keys, "prompt", "status"]].assign(**values)
    rows = [
        {**dict(zip(keys, key, strict=True)), **_judged(cell)}
        for key, cell in long.groupby(keys, sort=False, dropna=False)
    ]
    return described(pd.DataFrame(rows).astype({n: table[n].dtype for n in keys}), table)


def _judged(cell: pd.DataFrame) -> Mapping[str, object]:
    """The means, the verdict and the counts of one cell; `cell` has a row per prompt."""
    whole = cell[list(MEASURED)].notna().all(axis=1)
    has, lacks = cell[whole], cell[~whole]
    alone = [_verdict(*row) for row in has[list(MEASURED)].itertuples(index=False)]
    means = {name: float(has[name].mean()) for name in MEASURED}
    far, status = means["js_corrupted"], "ok"
    if has.empty:
        # a reason that all prompts share, such as an edge that no layer sees, says more
        told = lacks["status"].fillna("ok").unique()
        shared = len(told) == 1 and str(told[0]).startswith("NA")
        status = str(told[0]) if shared else "NA: no source run, so nothing to transfer"
    elif not far:
        status = "NA: the corruption moved no prompt"
    return {
        **means,
        "share": means["js"] / far if far else math.nan,
        "verdict": _verdict(*means.values()),
        "n_prompts": len(has),
        **{f"n_{name}": alone.count(name) for name in VERDICTS},
        "left_out": ", ".join(lacks["prompt"].astype(str)),
        "status": status,
    }


def _verdict(js: float, js_to_source: float, js_corrupted: float) -> str | None:
    """Where a run lies, seen from the clean and the corrupted one; None where these are equal."""
    if not js_corrupted > 0:
        return None
    if min(js, js_to_source) >= FAR * js_corrupted:
        return "broken"
    return "transferred" if js_to_source < js else "neither"
