"""A table as an array: one line per prompt, one column per cell."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from knockgrid.errors import InputError, unknown
from knockgrid.table.measures import measure_of
from knockgrid.table.table import CELL as LABELS
from knockgrid.table.table import metrics, numbers

CELL = tuple(name for name in LABELS if name not in ("samples", "mode", "direction"))


@dataclass(frozen=True, eq=False)
class ByPrompt:
    """The values of one metric, `[prompt, cell]`, NaN where the status says that there is none.

    Example:
        >>> cells = pd.DataFrame({"layer": [0, 1]})
        >>> ByPrompt(("rome",), cells, np.array([[0.1, 0.2]])).values.shape
        (1, 2)

    `cells` has one line per cell, in the table's order, with its labels.
    """

    prompts: tuple[str, ...]
    cells: pd.DataFrame
    values: Float[np.ndarray, "prompt cell"]

    def missing(self, most: int = 4) -> str:
        """The prompts that lack a value somewhere, by name; empty where none does."""
        lacking = [
            p for p, row in zip(self.prompts, self.values, strict=True) if np.isnan(row).any()
        ]
        if not lacking:
            return ""
        some = ", ".join(lacking[:most]) + (", …" if len(lacking) > most else "")
        return f"no value in some cells of {len(lacking)} prompts: {some}"


def by_prompt(table: pd.DataFrame, metric: str) -> ByPrompt:
    """The values of `metric` as an array `[prompt, cell]`.

    Example:
        >>> from knockgrid.table.table import build
        >>> row = {"prompt": "rome", "intervention": "last", "layer": 0, "js": 0.4}
        >>> by_prompt(build([row], {}), "js").values.tolist()
        [[0.4]]

    A cell is an intervention, layer, layer set, head, module, position, dose and token; positions
    of the answer lie at other tokens in other prompts, and belong together.

    Raises:
        InputError: no knockgrid table, an unknown metric, a prompt with two values in a cell, an
            infinite value, or a value that is NaN although its status is "ok".
    """
    absent = [name for name in ("prompt", "intervention", "layer", "status") if name not in table]
    if absent:
        raise InputError(f"this is no knockgrid table: it has no column {absent[0]!r}")
    if table.empty:
        raise InputError("the table has no rows; look at the filter that made it")
    if metric not in metrics(table):
        raise unknown("metric", metric, metrics(table))
    names = [name for name in CELL if name in table]
    labels = table[names].astype(object).where(table[names].notna(), None)
    if "position" in names and "token" in names:
        labels["token"] = labels["token"].mask(table["position"].notna(), 0)
    keys = pd.MultiIndex.from_frame(labels)
    place, known = pd.factorize(pd.Series(list(keys), dtype=object))
    who, prompts = pd.factorize(table["prompt"].astype(object))
    value = numbers(table, metric)
    _refuse(table, metric, value, pd.DataFrame({"who": who, "place": place}))
    values = np.full((len(prompts), len(known)), np.nan)
    values[who, place] = value
    cells = pd.DataFrame([dict(zip(names, key, strict=True)) for key in known], columns=names)
    return ByPrompt(tuple(map(str, prompts)), cells, values)


def _refuse(table: pd.DataFrame, metric: str, value: np.ndarray, key: pd.DataFrame) -> None:
    def first(bad: np.ndarray) -> str:
        row = table[bad].iloc[0]
        return f"prompt {row['prompt']!r}, {row['intervention']!r}, layer {row['layer']}"

    twice = key.duplicated().to_numpy(bool)
    if twice.any():
        raise InputError(
            f"{first(twice)} has two values of {metric!r} in one cell; keep one with a filter"
        )
    if np.isinf(value).any():
        raise InputError(
            f"{metric!r} is infinite in some cells, so its mean has no interval and no test (first "
            f"{first(np.isinf(value))}); take 'js', or filter these rows out"
        )
    told = (table["status"].fillna("ok") == "ok").to_numpy(bool)
    bad = np.isnan(value) & told
    if not measure_of(table, metric).needs and bad.any():
        raise InputError(
            f"{metric!r} is NaN in {bad.sum()} rows whose status is 'ok', first at {first(bad)}; "
            "filter these rows out, or give them a status that starts with 'NA' and says why"
        )
