"""threshold_sensitivity: what hangs on the threshold between the labels."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from knockgrid.evidence.labels import (
    LABELS,
    RULES,
    assign_labels,
    check_inside,
    check_reliance,
    threshold_of,
)
from knockgrid.table.table import KEY, metadata_of


def threshold_sensitivity(
    frame: pd.DataFrame, thresholds: Sequence[float] | None = None
) -> pd.DataFrame:
    """How many prompts each label has, and how many keep theirs, as the threshold moves.

    Example:
        >>> frame = pd.DataFrame({
        ...     "prompt": ["a", "b", "c", "d"], "relation": "city",
        ...     "correct": [True, True, False, False], "reliance": [0.5, 0.3, 0.45, 0.1],
        ...     "entropy": 1.0,
        ... })
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
    check_inside(frame, thresholds)
    default = assign_labels(frame, marks["mean_fa"])
    correct = frame["correct"].to_numpy(bool) & frame["reliance"].notna().to_numpy(bool)
    rows = []
    for value in thresholds:
        label = assign_labels(frame, value)
        rows.append(
            {
                "threshold": float(value),
                **{name: int((label == name).sum()) for name in LABELS},
                "fa_above": float((frame["reliance"].to_numpy(float)[correct] > value).mean()),
                "agreement": float((label == default)[label.notna()].mean()),
            }
        )
    found = pd.DataFrame(rows)
    found.attrs = {KEY: {**metadata_of(frame), "marks": marks, "unit": "nats"}}
    return found
