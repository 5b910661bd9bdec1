"""Measures: what is true of every number that a sweep gives: label, unit, bounds, what it needs.

The drawer of divergences adds the formulas. The facts of a measure of the user's own travel in the
metadata of its table.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from knockgrid.table.metadata import KEY

PER_NAT = {"nats": 1.0, "bits": 1 / math.log(2)}
LOG2 = math.log(2)


@dataclass(frozen=True)
class Measure:
    """A column of numbers: its label on an axis, its unit, its bounds and what it needs.

    `unit` is "information" (nats or bits, as the table says), "fraction", "rank" or "" for none;
    `lower` and `upper` are in nats where it is information. `needs` is "answer" or "source" where
    rows without one have no value, although nothing is wrong with them.
    """

    name: str
    label: str
    unit: str = "information"
    lower: float | None = 0.0
    upper: float | None = None
    needs: str = ""

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
        Measure("kl_between", "KL between answers and rest", needs="answer"),
        Measure("kl_within_answers", "KL within answers", needs="answer"),
        Measure("kl_within_rest", "KL within rest", needs="answer"),
        Measure("kl_reverse", "KL divergence intervened‖clean"),
        Measure("tv", "total variation", "fraction", upper=1.0),
        Measure("logp_clean", "log-probability of the clean argmax", lower=None, upper=0.0),
        Measure("rank_clean", "rank of the clean argmax", "rank"),
        Measure(
            "logp_answer", "log-probability of the answer", lower=None, upper=0.0, needs="answer"
        ),
        Measure("rank_answer", "rank of the answer", "rank", needs="answer"),
        Measure("js_mean_dist", "JS divergence of the mean distribution", upper=LOG2),
        Measure("js_to_source", "JS divergence to the source run", upper=LOG2, needs="source"),
    )
}
DISTANCES = tuple(
    n for n, m in MEASURES.items() if m.lower == 0 and m.unit != "rank" and not m.needs
)
"""Measures of how far a distribution moved: 0 where nothing did."""


def measure_of(table: pd.DataFrame, name: str) -> Measure:
    """What is true of a column, as the table's sweep said or as knockgrid knows; else its name."""
    said: Mapping[str, Any] = table.attrs.get(KEY, {}).get("measures", {})
    if name in said:
        return Measure(**said[name])
    return MEASURES.get(name) or Measure(name, name, "", None)


def as_metadata(measures: Any) -> dict[str, dict[str, Any]]:
    """The facts of measures that knockgrid does not know, as a table's metadata hold them."""
    return {one.name: asdict(one) for one in measures if MEASURES.get(one.name) != one}
