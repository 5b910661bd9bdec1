"""Left out: which rows lack which prompts or values, and why, said once for a whole table."""

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from knockgrid.table.table import metadata_of

SHOWN = 4
"""Names or reasons that one sentence repeats."""


class LeftOut(UserWarning):
    """Some prompts have no value in some rows, so that rows average over different prompts."""


def left_out(table: pd.DataFrame) -> Iterator[str]:
    """A sentence for every row, or several rows alike, that lacks prompts or values.

    Example:
        >>> table = pd.DataFrame({"prompt": ["a", "b"], "intervention": ["last", "last"]})
        >>> table.attrs = {"knockgrid": {"dropped": {"subject": {"a": "no partner"}}}}
        >>> list(left_out(table))
        ["row 'subject': 1 of 2 prompts took no part (no partner)"]
    """
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


def said(reasons: Any) -> str:
    """Reasons of (prompt, reason) pairs with their counts; those alike but for the prompt as one.

    Example:
        >>> said([("a", "prompt 'a' is odd"), ("b", "prompt 'b' is odd"), ("c", "no partner")])
        "2 such as: prompt 'a' is odd; 1: no partner"
    """
    kinds: Counter[str] = Counter()
    first: dict[str, str] = {}
    for prompt, reason in reasons:
        kind = str(reason).replace(repr(str(prompt)), "")
        first.setdefault(kind, str(reason))
        kinds[kind] += 1
    if len(kinds) == 1:
        return next(iter(first.values()))
    told = [
        f"{n}{' such as' * (first[kind] != kind and n > 1)}: {first[kind]}"
        for kind, n in kinds.most_common()
    ]
    return some_of(told, "; ")


def some_of(parts: Sequence[str], between: str) -> str:
    """The first parts of a list, and how many follow."""
    more = f" and {len(parts) - SHOWN} more" if len(parts) > SHOWN else ""
    return between.join(parts[:SHOWN]) + more


def warn_left_out(table: pd.DataFrame) -> pd.DataFrame:
    """The table, after one warning of all that is left out of it; the caller's caller is blamed."""
    lines = list(left_out(table))
    if lines:
        told = "\n  ".join([*lines[:SHOWN], *lines[SHOWN:][:1]])
        more = f"\n  and {len(lines) - SHOWN - 1} more" if len(lines) > SHOWN + 1 else ""
        warnings.warn(f"left out of this table:\n  {told}{more}", LeftOut, stacklevel=3)
    return table
