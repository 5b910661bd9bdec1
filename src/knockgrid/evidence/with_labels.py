"""with_labels: a sweep's table with a panel per label."""

import pandas as pd

from knockgrid.errors import InputError
from knockgrid.evidence.labels import LABELS, check_labelled
from knockgrid.table.table import KEY, metadata_of

NO_LABEL = "no label"


def with_labels(table: pd.DataFrame, frame: pd.DataFrame) -> pd.DataFrame:
    """The table with the labels of its prompts in the column `group`, so that panels show them.

    Example:
        >>> from knockgrid.table.table import build
        >>> from knockgrid.evidence.labels import labels
        >>> frame = labels(pd.DataFrame({
        ...     "prompt": ["a", "b", "c", "d"], "relation": "city",
        ...     "correct": [True, True, False, False], "reliance": [0.5, 0.3, 0.45, 0.1],
        ...     "entropy": 1.0,
        ... }))
        >>> rows = [{"prompt": p, "intervention": "last", "layer": 0, "js": 0.1} for p in "abcd"]
        >>> with_labels(build(rows, {}), frame).group.tolist()
        ['FA-high', 'FA-low', 'AH', 'UH']

    Panels come in the order FA-high, FA-low, AH, UH. Prompts of the table without a label are in
    the group "no label", which is drawn last, and the metadata `unlabelled` name them with reasons.

    Raises:
        InputError: a frame without labels, or one of other prompts.
    """
    check_labelled(frame)
    given = dict(zip(frame["prompt"].astype(str), frame["label"], strict=True))
    ids = list(dict.fromkeys(table["prompt"].astype(str)))
    if not set(ids) & set(given):
        raise InputError(
            f"the labels are of other prompts: the table has {ids[0]!r}, the labels have "
            f"{next(iter(given))!r}; label the prompts of the sweep"
        )
    reasons = metadata_of(frame).get("unlabelled", {})
    group = {name: given.get(name, pd.NA) for name in ids}
    group = {name: NO_LABEL if pd.isna(label) else str(label) for name, label in group.items()}
    made = table.assign(group=table["prompt"].astype(str).map(group).astype("string"))
    present = set(group.values())
    made.attrs = {
        KEY: {
            **metadata_of(table),
            "group_order": [name for name in (*LABELS, NO_LABEL) if name in present],
            "threshold": metadata_of(frame).get("threshold"),
            "label_with": metadata_of(frame).get("label_with"),
            "unlabelled": {
                name: reasons.get(name, "not among the labelled prompts")
                for name, label in group.items()
                if label == NO_LABEL
            },
        }
    }
    return made
