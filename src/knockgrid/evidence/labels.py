"""labels: FA-high, FA-low, AH and UH at one threshold on reliance, and what hangs on it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from knockgrid.errors import InputError, unknown
from knockgrid.evidence.frames import described, need_columns
from knockgrid.table.table import metadata_of

LABELS = ("FA-high", "FA-low", "AH", "UH")
NO_LABEL = "no label"
RULES = ("mean_fa", "median_fa")
COLUMNS = ("prompt", "relation", "correct", "reliance", "entropy")


def labels(frame: pd.DataFrame, threshold: str | float = "mean_fa") -> pd.DataFrame:
    """Name every prompt by whether it was answered right and whether it relies on its subject.

    Example:
        >>> given = {"prompt": list("abcd"), "correct": [True] * 2 + [False] * 2, "entropy": 1.0}
        >>> frame = pd.DataFrame({**given, "relation": "city", "reliance": [0.5, 0.3, 0.45, 0.1]})
        >>> made = labels(frame)
        >>> made.label.tolist(), made.attrs["knockgrid"]["threshold"]
        (['FA-high', 'FA-low', 'AH', 'UH'], 0.4)

    Factual associations (FA) were answered right, associated (AH) and unassociated hallucinations
    (UH) wrong. Reliance above the threshold makes AH, and FA-high; at or below it, UH and FA-low.
    `threshold` is the mean reliance of the FAs (`"mean_fa"`), their median (`"median_fa"`), or a
    number in nats. The column `label` is NA where reliance is NaN, and `note` says why. Metadata
    hold `threshold`, `counts` by label (those of 0 and 1 are listed in `too_small`), and
    `unlabelled`, prompt ids with reasons.

    Raises:
        InputError: not a frame of `reliance`, a prompt twice, no FA or a single one for a rule, or
            a number outside the data.

    Source: Cheang et al. 2025 (arXiv 2510.09033), with one label FA; the split of the FAs is ours.

    Limits: about half of the *correct* facts lie below the mean of their own reliance, so UH does
    not mean that the subject plays no part: read UH against FA-low and AH against FA-high. What
    else reliance goes with say `diagnostics`, what hangs on the threshold `threshold_sensitivity`.
    """
    check_reliance(frame)
    value = threshold_of(frame, threshold)
    label = _assigned(frame, value)
    given = frame["note"] if "note" in frame else pd.Series(None, index=frame.index)
    notes = given.astype("string").mask(label.isna() & given.isna(), "reliance is NaN")
    counts = {name: int((label == name).sum()) for name in LABELS}
    unlabelled = frame["prompt"].astype(str)[label.isna()]
    return described(
        frame.assign(label=label, note=notes),
        frame,
        threshold=value,
        threshold_rule=threshold if isinstance(threshold, str) else "number",
        counts=counts,
        too_small=[name for name, count in counts.items() if count < 2],
        unlabelled=dict(zip(unlabelled, notes[label.isna()].astype(str), strict=True)),
    )


def threshold_sensitivity(
    frame: pd.DataFrame, thresholds: Sequence[float] | None = None
) -> pd.DataFrame:
    """How many prompts each label has, and how many keep theirs, as the threshold moves.

    Example:
        >>> given = {"prompt": list("abcd"), "correct": [True] * 2 + [False] * 2, "entropy": 1.0}
        >>> frame = pd.DataFrame({**given, "relation": "city", "reliance": [0.5, 0.3, 0.45, 0.1]})
        >>> threshold_sensitivity(frame, [0.2, 0.4])[["threshold", "UH", "agreement"]].values
        array([[0.2 , 1.  , 0.75],
               [0.4 , 1.  , 1.  ]])

    One row per threshold (nats): the number of prompts per label, `fa_above` (share of correct
    prompts above it), and `agreement` (share of labelled prompts with the label that the mean of
    the FAs gives). By default 60 thresholds at equal distances over the data, and the mean and the
    median of the FAs, which the metadata `marks` name.

    Raises:
        InputError: as `labels`, or a threshold outside the data.
    """
    check_reliance(frame)
    marks = {rule: threshold_of(frame, rule) for rule in RULES}
    if thresholds is None:
        low, high = frame["reliance"].min(), frame["reliance"].max()
        steps = np.linspace(low, high, 61)[:-1]
        # a mean of equal numbers is no threshold that anything lies above
        inside = [value for value in marks.values() if low <= value < high]
        thresholds = sorted({*steps.tolist(), *inside})
    _check_inside(frame, thresholds)
    default = _assigned(frame, marks["mean_fa"])
    right = frame["reliance"][frame["correct"].astype(bool)].dropna()
    made = [(float(value), _assigned(frame, value)) for value in thresholds]
    found = pd.DataFrame(
        {
            "threshold": value,
            **{name: int((label == name).sum()) for name in LABELS},
            "fa_above": float((right > value).mean()),
            "agreement": float((label == default)[label.notna()].mean()),
        }
        for value, label in made
    )
    return described(found, frame, marks=marks, unit="nats")


def with_labels(table: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """A sweep's table with the labels of its prompts in the column `group`, a panel for each.

    Example:
        >>> from knockgrid.table.table import build
        >>> given = {"prompt": list("abcd"), "correct": [True] * 2 + [False] * 2, "entropy": 1.0}
        >>> frame = pd.DataFrame({**given, "relation": "city", "reliance": [0.5, 0.3, 0.45, 0.1]})
        >>> rows = [{"prompt": p, "intervention": "last", "layer": 0, "js": 0.1} for p in "abcd"]
        >>> with_labels(build(rows, {}), labels(frame)).group.tolist()
        ['FA-high', 'FA-low', 'AH', 'UH']

    Prompts of the table without a label are in the group "no label", which is drawn last; the
    metadata `unlabelled` name them with reasons.

    Raises:
        InputError: a frame without labels, or one of other prompts.
    """
    check_labelled(frame)
    given = dict(zip(frame["prompt"].astype(str), frame["label"].fillna(NO_LABEL), strict=True))
    ids = table["prompt"].astype(str)
    if not set(ids) & set(given):
        raise InputError(
            f"the labels are of other prompts: the table has {ids.iloc[0]!r}, the labels have "
            f"{next(iter(given))!r}; label the prompts of the sweep"
        )
    said = metadata_of(frame)
    group = {name: str(given.get(name, NO_LABEL)) for name in ids.unique()}
    reasons = said.get("unlabelled", {})
    missing = [name for name, label in group.items() if label == NO_LABEL]
    return described(
        table.assign(group=ids.map(group).astype("string")),
        table,
        group_order=[name for name in (*LABELS, NO_LABEL) if name in group.values()],
        threshold=said.get("threshold"),
        label_with=said.get("label_with"),
        unlabelled={n: reasons.get(n, "not among the labelled prompts") for n in missing},
    )


def _assigned(frame: pd.DataFrame, value: float) -> pd.Series:
    """The label of every row at a threshold in nats; NA where reliance is NaN."""
    correct, amount = frame["correct"].to_numpy(bool), frame["reliance"].to_numpy(float)
    names = np.array([["UH", "AH"], ["FA-low", "FA-high"]], dtype=object)
    found = names[correct.astype(int), (amount > value).astype(int)]
    return pd.Series(found, index=frame.index, dtype="string").mask(np.isnan(amount))


def threshold_of(frame: pd.DataFrame, threshold: str | float) -> float:
    """A threshold in nats from a rule or a number."""
    if isinstance(threshold, str):
        if threshold not in RULES:
            raise unknown("threshold", threshold, RULES)
        known = frame.loc[frame["correct"].to_numpy(bool), "reliance"].dropna()
        if len(known) < 2:
            have = "is 1" if len(known) == 1 else "are none"
            raise InputError(
                f"threshold {threshold!r} needs two correct prompts with a reliance, and there "
                f"{have} among {len(frame)}; add prompts that the model knows, or give a number"
            )
        return float(known.mean() if threshold == "mean_fa" else known.median())
    if isinstance(threshold, bool) or not isinstance(threshold, int | float | np.number):
        raise InputError(f"threshold is {threshold!r}; give {', '.join(RULES)} or a number of nats")
    _check_inside(frame, [float(threshold)])
    return float(threshold)


def _check_inside(frame: pd.DataFrame, values: Sequence[float]) -> None:
    """Refuse thresholds that would put every prompt on one side."""
    low, high = frame["reliance"].min(), frame["reliance"].max()
    for value in values:
        if not low <= value < high:  # NaN is outside as well
            raise InputError(
                f"threshold {value:g} lies outside the data, so all prompts would be on one side; "
                f"reliance runs from {low:.4g} to {high:.4g} nats"
            )


def check_reliance(frame: pd.DataFrame) -> None:
    """Refuse a frame that `reliance` has not made."""
    need_columns(frame, COLUMNS, "reliance()")
    if frame.empty:
        raise InputError("the frame has no prompts; give at least one to reliance")
    twice = frame.loc[frame["prompt"].duplicated(), "prompt"]
    if len(twice):
        raise InputError(f"prompt {twice.iloc[0]!r} stands twice in the frame; keep one row of it")
    if not pd.api.types.is_bool_dtype(frame["correct"]) or frame["correct"].isna().any():
        raise InputError("column 'correct' has to hold True or False in every row")
    if not pd.api.types.is_numeric_dtype(frame["reliance"]):
        raise InputError("column 'reliance' has to hold numbers (nats)")
    if frame["reliance"].isna().all():
        raise InputError("no prompt has a reliance; the column 'note' says why")


def check_labelled(frame: pd.DataFrame) -> None:
    """Refuse a frame without labels."""
    check_reliance(frame)
    need_columns(frame, ["label"], "labels()")
