"""Left out: which rows lack which prompts or values, and why, said once for a whole table."""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from knockgrid.errors import some_of
from knockgrid.table.table import metadata_of

SHOWN = 4  # lines, before the last, that a warning repeats


class LeftOut(UserWarning):
    """Some prompts have no value in some rows, so that rows average over different prompts."""


def left_out(table: pd.DataFrame) -> Iterator[str]:
    """A sentence for every row, or several rows alike, that lacks prompts or values."""
    dropped: Mapping[str, Mapping[str, str]] = metadata_of(table).get("dropped") or {}
    n = len({*table["prompt"], *(id for reasons in dropped.values() for id in reasons)})
    alike: dict[str, list[str]] = {}
    for row, reasons in dropped.items():
        if reasons:
            why = said(reasons.items())
            some = f": {len(reasons)} of {n} prompts took no part ({why})"
            none = f" skipped: no usable prompt among {n} ({why})"
            alike.setdefault(some if len(reasons) < n else none, []).append(row)
    for row, cells in table.groupby("intervention", sort=False) if "status" in table else ():
        gone = cells[cells["status"].str.startswith("NA").fillna(False).astype(bool)]
        if len(gone):
            pairs = zip(gone["prompt"], gone["status"].str.removeprefix("NA: "), strict=True)
            alike.setdefault(
                f": {len(gone)} of {len(cells)} values are missing, in {gone['prompt'].nunique()} "
                f"of {n} prompts ({said(pairs)})",
                [],
            ).append(str(row))
    for what, rows in alike.items():
        yield f"row{'s' * (len(rows) > 1)} {some_of([repr(row) for row in rows], ', ')}{what}"


def said(reasons: Iterable[tuple[Any, Any]]) -> str:
    """Reasons of prompts with their counts; those alike but for the prompt as one."""
    alike: dict[str, list[str]] = {}
    for prompt, reason in reasons:
        alike.setdefault(str(reason).replace(repr(str(prompt)), ""), []).append(str(reason))
    if len(alike) == 1:
        return next(iter(alike.values()))[0]
    told = [
        f"{len(one)}{' such as' * (one[0] != kind and len(one) > 1)}: {one[0]}"
        for kind, one in sorted(alike.items(), key=lambda pair: -len(pair[1]))
    ]
    return some_of(told, "; ")


def warn_left_out(table: pd.DataFrame) -> pd.DataFrame:
    """The table, after one warning of all that is left out of it; the caller's caller is blamed."""
    lines = list(left_out(table))
    if lines:
        told = "\n  ".join(lines[: SHOWN + 1])
        more = f"\n  and {len(lines) - SHOWN - 1} more" if len(lines) > SHOWN + 1 else ""
        warnings.warn(f"left out of this table:\n  {told}{more}", LeftOut, stacklevel=3)
    return table
