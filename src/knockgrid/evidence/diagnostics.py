"""diagnostics: what a label is made of besides what its name says."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from knockgrid.errors import InputError
from knockgrid.evidence.frames import described
from knockgrid.evidence.labels import RULES, check_reliance, threshold_of
from knockgrid.table.table import numbers


def diagnostics(frame: pd.DataFrame, table: pd.DataFrame | None = None) -> pd.DataFrame:
    """How far reliance is a matter of relation, entropy and the Subj. row, in numbers.

    Example:
        >>> given = {"prompt": list("abcdef"), "correct": [True] * 4 + [False] * 2, "entropy": 1.0}
        >>> given |= {"relation": ["x", "y"] * 3, "reliance": [0.5, 0.1, 0.6, 0.2, 0.3, 0.4]}
        >>> diagnostics(pd.DataFrame(given)).head(1).values
        array([['share below mean_fa', 'FA', 0.5, 4]], dtype=object)

    Columns: `what`, `among` (FA, or wrong for AH and UH together, or all), `value`, and `n`, the
    number of prompts behind it:

    - `share below mean_fa`, `share below median_fa`: the share of correct prompts at or below their
      own threshold. It is about a half by construction: a low reliance is no sign of an error.
    - `spearman with entropy`: with the entropy of the clean next token.
    - `icc of relation`: the share of reliance's variance that lies between relations, ICC(1) of a
      one-way analysis of variance (below 0 counts as none). Near 1, a label names a relation.
    - `spearman with Subj.`: with `table`, the sweep that the labels shall explain: the prompt's
      mean JS divergence over the layers of its row `subject`. Near 1, panels by label repeat the
      label.

    A number that cannot be had (too few prompts, or all values equal) is NaN.

    Raises:
        InputError: not a frame of `reliance`, or a table without a row `subject` for its prompts.
    """
    check_reliance(frame)
    frame = frame[frame["reliance"].notna()]
    correct = frame["correct"].to_numpy(bool)
    parts = {"FA": frame[correct], "wrong": frame[~correct], "all": frame}
    ways: dict[str, Callable[[pd.DataFrame], tuple[float, int]]] = {
        "spearman with entropy": lambda part: _rank(part["reliance"], part["entropy"]),
        "icc of relation": lambda part: icc(part["reliance"], part["relation"]),
    }
    if table is not None:
        row = _subject_row(table)
        ways["spearman with Subj."] = lambda part: _rank(
            part["reliance"], part["prompt"].astype(str).map(row)
        )
    rows = [(f"share below {rule}", "FA", *_below(parts["FA"], rule)) for rule in RULES]
    rows += [(what, name, *way(part)) for what, way in ways.items() for name, part in parts.items()]
    return described(pd.DataFrame(rows, columns=["what", "among", "value", "n"]), frame)


def _subject_row(table: pd.DataFrame) -> pd.Series:
    """The mean JS divergence of every prompt over the layers of the row `subject`."""
    rows = table[table["intervention"] == "subject"]
    if rows.empty or "js" not in rows:
        raise InputError("the table has no row 'subject' with a JS; sweep information_flow()")
    return rows.assign(value=numbers(rows, "js")).groupby("prompt")["value"].mean()


def icc(values: pd.Series, groups: pd.Series) -> tuple[float, int]:
    """ICC(1) of a one-way analysis of variance with unequal groups, and the number of values.

    Source: Shrout and Fleiss 1979, Psychological Bulletin 86, case 1, with the mean group size of
    Snedecor and Cochran for groups of unequal size. Values without a group are left out.
    """
    kept = values.notna() & groups.notna()
    by = values[kept].groupby(groups[kept])
    sizes, means, n = by.size().to_numpy(float), by.mean().to_numpy(float), int(kept.sum())
    k = len(sizes)
    if k < 2 or n <= k:
        return float("nan"), n
    between = float((sizes * (means - values[kept].mean()) ** 2).sum()) / (k - 1)
    within = float(((values[kept] - by.transform("mean")) ** 2).sum()) / (n - k)
    size = (n - (sizes**2).sum() / n) / (k - 1)
    total = between + (size - 1) * within
    return (float("nan") if total == 0 else float((between - within) / total)), n


def _below(known: pd.DataFrame, rule: str) -> tuple[float, int]:
    if len(known) < 2:
        return float("nan"), len(known)
    return float((known["reliance"] <= threshold_of(known, rule)).mean()), len(known)


def _rank(one: pd.Series, other: pd.Series) -> tuple[float, int]:
    kept = one.notna() & other.notna()
    x, y = one[kept].to_numpy(float), other[kept].to_numpy(float)
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan"), len(x)
    found: Any = spearmanr(x, y)
    return float(found.statistic), len(x)
