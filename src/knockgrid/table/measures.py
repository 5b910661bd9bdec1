"""Measures: what is true of every number that a sweep gives: label, unit, bounds, what it needs.

The drawer of divergences adds the formulas. The facts of a measure of the user's own travel in the
metadata of its table.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from knockgrid.table.metadata import KEY

PER_NAT = {"nats": 1.0, "bits": 1 / math.log(2)}
LOG2 = math.log(2)
APART = 0.1
"""Least distance, in logits, between the clean and the corrupted logit difference for `recovered`:
nearer to each other, the corruption did nothing to take or give back, and the ratio is noise."""
ANSWER = ("answer",)
NEEDS = (*ANSWER, "foil", "source")
"""What a measure may need of a row."""


@dataclass(frozen=True)
class Measure:
    """A column of numbers: its label on an axis, its unit, its bounds and what it needs.

    `unit` is "information" (nats or bits, as the table says), "fraction", "percent", "rank" or ""
    for none; `lower` and `upper` are in nats where it is information. `needs` names what rows have
    to have: "answer", "foil" or "source"; those without have no value, and nothing is wrong.
    """

    name: str
    label: str
    unit: str = "information"
    lower: float | None = 0.0
    upper: float | None = None
    needs: tuple[str, ...] = ()

    @property
    def signed(self) -> bool:
        """Whether values may lie on both sides of 0."""
        below, above = self.lower is None or self.lower < 0, self.upper is None or self.upper > 0
        return below and above

    def bounds(self, unit: str) -> tuple[float, float]:
        """The least and the largest value in nats or bits, infinite where there is none."""
        scale = PER_NAT.get(unit, math.inf) if self.unit == "information" else 1.0
        most = math.inf if self.upper is None else self.upper and self.upper * scale
        return (-math.inf if self.lower is None else self.lower), most


MEASURES = {
    one.name: one
    for one in (
        Measure("js", "JS divergence", upper=LOG2),
        Measure("kl", "KL divergence clean‖intervened"),
        Measure("kl_between", "KL between answers and rest", needs=ANSWER),
        Measure("kl_within_answers", "KL within answers", needs=ANSWER),
        Measure("kl_within_rest", "KL within rest", needs=ANSWER),
        Measure("kl_reverse", "KL divergence intervened‖clean"),
        Measure("tv", "total variation", "fraction", upper=1.0),
        Measure("logp_clean", "log-probability of the clean argmax", lower=None, upper=0.0),
        Measure("rank_clean", "rank of the clean argmax", "rank"),
        Measure(
            "logp_answer", "log-probability of the answer", lower=None, upper=0.0, needs=ANSWER
        ),
        Measure("rank_answer", "rank of the answer", "rank", needs=ANSWER),
        Measure("p_change", "change of p(answer)", "percent", lower=-100.0, needs=ANSWER),
        Measure("logit_diff", "logit difference answer − foil", "", None, needs=(*ANSWER, "foil")),
        Measure(
            "recovered", "recovered logit difference", "", None, needs=(*ANSWER, "foil", "source")
        ),
        Measure("js_mean_dist", "JS divergence of the mean distribution", upper=LOG2),
        Measure("gave_answer", "share of texts with the answer", "fraction", 0.0, 1.0, ANSWER),
        Measure("gave_answer_low", "its lower end", "fraction", 0.0, 1.0, ANSWER),
        Measure("gave_answer_high", "its upper end", "fraction", 0.0, 1.0, ANSWER),
        Measure("gave_answer_clean", "share of clean texts with it", "fraction", 0.0, 1.0, ANSWER),
        Measure("flipped", "share of texts that flip", "fraction", 0.0, 1.0, ANSWER),
        Measure("flipped_low", "its lower end", "fraction", 0.0, 1.0, ANSWER),
        Measure("flipped_high", "its upper end", "fraction", 0.0, 1.0, ANSWER),
        Measure("js_to_source", "JS divergence to the source run", upper=LOG2, needs=("source",)),
    )
}
SAMPLED = (
    *("gave_answer", "gave_answer_low", "gave_answer_high", "gave_answer_clean"),
    *("flipped", "flipped_low", "flipped_high"),
)
"""Columns of sampled runs."""
LEAST = 1e-9
"""What is added to a value before its logarithm is taken, as Thought Anchors does."""


def log_name(name: str) -> str:
    """The column with the mean logarithm of a measure."""
    return f"log_{name}"


def logarithm(values: Any) -> Any:
    """log(x + 1e-9) of the values of a distance."""
    return np.log(values + LEAST)


def log_of(measure: "Measure") -> "Measure":
    """What is true of the column with the mean logarithm of a measure."""
    return Measure(log_name(measure.name), f"log({measure.label} + {LEAST:g})", "", lower=None)


DISTANCES = tuple(
    n for n, m in MEASURES.items() if m.lower == 0 and m.unit != "rank" and not m.needs
)
"""Measures of how far a distribution moved: 0 where nothing did."""


def measure_of(table: pd.DataFrame, name: str) -> Measure:
    """What is true of a column, as the table's sweep said or as knockgrid knows; else its name."""
    said: Mapping[str, Any] = table.attrs.get(KEY, {}).get("measures", {})
    if name in said:
        needs = said[name].get("needs") or ()  # a list, and in older tables a word
        needs = (needs,) if isinstance(needs, str) else tuple(needs)
        return Measure(**{**said[name], "needs": needs})
    return MEASURES.get(name) or Measure(name, name, "", None)


def is_signed(table: pd.DataFrame, name: str) -> bool:
    """Whether a column is a measure whose values may lie on both sides of 0.

    Nothing is known of other columns, such as the statistics of modules.
    """
    known = name in MEASURES or name in table.attrs.get(KEY, {}).get("measures", {})
    return known and measure_of(table, name).signed


def as_metadata(measures: Any) -> dict[str, dict[str, Any]]:
    """The facts of measures that knockgrid does not know, as a table's metadata hold them."""
    return {one.name: asdict(one) for one in measures if MEASURES.get(one.name) != one}
