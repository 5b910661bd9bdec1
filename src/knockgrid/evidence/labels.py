"""labels: FA-high, FA-low, AH and UH at one threshold on reliance."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from knockgrid.errors import InputError, unknown
from knockgrid.table.table import KEY, metadata_of

LABELS = ("FA-high", "FA-low", "AH", "UH")
RULES = ("mean_fa", "median_fa")
COLUMNS = ("prompt", "relation", "correct", "reliance", "entropy")


def labels(frame: pd.DataFrame, threshold: str | float = "mean_fa") -> pd.DataFrame:
    """Name every prompt by whether it was answered right and whether it relies on its subject.

    Example:
        >>> frame = pd.DataFrame({
        ...     "prompt": ["a", "b", "c", "d"], "relation": "city",
        ...     "correct": [True, True, False, False], "reliance": [0.5, 0.3, 0.45, 0.1],
        ...     "entropy": 1.0,
        ... })
        >>> made = labels(frame)
        >>> made.label.tolist(), made.attrs["knockgrid"]["threshold"]
        (['FA-high', 'FA-low', 'AH', 'UH'], 0.4)

    Factual associations (FA) were answered right, associated (AH) and unassociated hallucinations
    (UH) wrong. Reliance above the threshold makes AH, and FA-high; at or below it, UH and FA-low.
    `threshold` is the mean reliance of the FAs (`"mean_fa"`), their median, or a number in nats.

    Returns:
        The frame with a column `label`. A prompt whose reliance is NaN has label NA; `note` says
        why. Its metadata hold `threshold`, `counts` by label (0 and 1 are counted too, and listed
        in `too_small`), and `unlabelled`, prompt ids with reasons.

    Raises:
        InputError: not a frame of `reliance`, a prompt twice, no FA or a single one for a rule, or
            a number outside the data.

    Source: Cheang et al. 2025 (arXiv 2510.09033), with one label FA; the split of the FAs is ours.

    Limits: about half of the *correct* facts lie below the mean of their own reliance, so UH does
    not mean that the subject plays no part: read UH against FA-low and AH against FA-high. Reliance
    falls with the output's entropy and rises with the Subj. row of a sweep; `diagnostics` says how
    much, `threshold_sensitivity` what hangs on the threshold. Plot reliance itself first.
    """
    check_reliance(frame)
    value = threshold_of(frame, threshold)
    label = assign_labels(frame, value)
    notes = _notes(frame)
    made = frame.assign(label=label, note=notes)
    counts = {name: int((label == name).sum()) for name in LABELS}
    made.attrs = {
        KEY: {
            **metadata_of(frame),
            "threshold": value,
            "threshold_rule": threshold if isinstance(threshold, str) else "number",
            "counts": counts,
            "too_small": [name for name, count in counts.items() if count < 2],
            "unlabelled": {
                str(made["prompt"].iloc[i]): str(notes.iloc[i])
                for i in np.flatnonzero(label.isna().to_numpy(bool))
            },
        }
    }
    return made


def assign_labels(frame: pd.DataFrame, value: float) -> pd.Series:
    """The label of every row at a threshold in nats; NA where reliance is NaN."""
    correct, amount = frame["correct"].to_numpy(bool), frame["reliance"].to_numpy(float)
    high = amount > value
    names = np.where(
        correct, np.where(high, "FA-high", "FA-low"), np.where(high, "AH", "UH")
    ).astype(object)
    names[np.isnan(amount)] = None
    return pd.Series(names, index=frame.index, dtype="string")


def threshold_of(frame: pd.DataFrame, threshold: str | float) -> float:
    """A threshold in nats from a rule or a number.

    Raises:
        InputError: an unknown rule, too few FAs for it, or a number outside the data.
    """
    if isinstance(threshold, str):
        if threshold not in RULES:
            raise unknown("threshold", threshold, RULES)
        known = frame.loc[frame["correct"].to_numpy(bool), "reliance"].dropna()
        if len(known) < 2:
            have = "is 1" if len(known) == 1 else "are none"
            raise InputError(
                f"threshold {threshold!r} needs at least two correct prompts with a reliance, and "
                f"there {have} among {len(frame)}; add prompts that the model knows, or give a "
                "number"
            )
        return float(known.mean() if threshold == "mean_fa" else known.median())
    if isinstance(threshold, bool) or not isinstance(threshold, int | float | np.number):
        raise InputError(f"threshold is {threshold!r}; give {', '.join(RULES)} or a number of nats")
    check_inside(frame, [float(threshold)])
    return float(threshold)


def check_inside(frame: pd.DataFrame, values: Sequence[float]) -> None:
    """Refuse thresholds that would put every prompt on one side.

    Raises:
        InputError: one outside the data.
    """
    low, high = frame["reliance"].min(), frame["reliance"].max()
    for value in values:
        if not low <= value < high:  # NaN is outside as well
            raise InputError(
                f"threshold {value:g} lies outside the data, so all prompts would be on one side; "
                f"reliance runs from {low:.4g} to {high:.4g} nats"
            )


def check_reliance(frame: pd.DataFrame) -> None:
    """Refuse a frame that `reliance` has not made.

    Raises:
        InputError: a column is missing, there are no rows, a prompt stands twice, or correctness
            or reliance is not what it should be.
    """
    missing = [name for name in COLUMNS if name not in frame]
    if missing:
        raise InputError(f"this is no frame of reliance: it has no column {missing[0]!r}")
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
    """Refuse a frame without labels.

    Raises:
        InputError: it does not come from `labels`.
    """
    check_reliance(frame)
    if "label" not in frame:
        raise InputError("the frame has no column 'label'; make it with labels(frame)")


def _notes(frame: pd.DataFrame) -> pd.Series:
    """Every NaN has a reason, also where a frame came without."""
    given = frame["note"] if "note" in frame else pd.Series(None, index=frame.index, dtype="string")
    unsaid = frame["reliance"].isna() & given.isna()
    return given.astype("string").mask(unsaid, "reliance is NaN")
