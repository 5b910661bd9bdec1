"""confirmed: each kind of claim, found on one half of the prompts and held against the other."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from knockgrid.stats.clusters import By, clusters
from knockgrid.stats.flips import flip_test
from knockgrid.stats.onset import falling, onset, rising
from knockgrid.stats.peak import peak
from knockgrid.stats.resample import mean_of, resample
from knockgrid.stats.sides import differences, sides
from knockgrid.stats.size import size
from knockgrid.table.by_prompt import by_prompt
from knockgrid.table.summary import ranges
from knockgrid.table.table import numbers
from knockgrid.table.treatments import Treatment, only_rows, with_all

ROWS = ("subject", "attention", "last")
PATHS = ("direct", "between", "both")
TOLERANCE = 1.0
SHARP, ONE_RISE = 2.0, 0.25
"""Layers from 10 to 90 % of the maximum, and the share of it that is a rise of its own."""
ALPHA = 0.05
SURE = 0.95
MOST = 0.8
"""Of the effect of both ways: what one of them alone does where it is the way."""
NOBODY = "no prompt has them all on this half"
SMALL = "too small to say"
Line = dict[str, object]


def line(value: str, confirmed: str, outcome: str, note: str = "") -> Line:
    """What a claim says on either half, and what comes of it."""
    return {"value": value, "confirmed": confirmed, "outcome": outcome, "note": note}


@dataclass(frozen=True, eq=False)
class Halves:
    """The half that claims are found on, and the one that they are confirmed on."""

    one: pd.DataFrame
    other: pd.DataFrame
    metric: str
    by: By
    share: float
    seed: int

    def of(self, names: Sequence[str]) -> list[pd.DataFrame]:
        """Some rows of both halves, on the prompts that have them all."""
        return [with_all(half, names, self.metric) for half in (self.one, self.other)]

    def each(self, find: Callable[..., pd.DataFrame], name: str, resamples: int) -> list[pd.Series]:
        """What is found of one row on both halves."""
        how: dict[str, Any] = {"seed": self.seed, "resamples": resamples}
        rows = [only_rows(half, [name]) for half in (self.one, self.other)]
        return [find(row, self.metric, self.by, **how).iloc[0] for row in rows]

    @cached_property
    def sizes(self) -> list[dict[str, dict[Any, Any]]]:
        """The size of every row, by its name, on both halves."""
        how: dict[str, Any] = {"share": self.share, "seed": self.seed, "resamples": 499}
        found = [size(half, self.metric, self.by, **how) for half in (self.one, self.other)]
        return [
            {str(one["intervention"]): one for one in half.to_dict("records")} for half in found
        ]

    def small(self, names: Sequence[str]) -> Line | None:
        """Why nothing is said of the shape of some rows, None where their size lets one."""
        for name in names:
            for half in self.sizes:
                if (one := half[name])["matters"] == "yes":
                    continue
                if one["note"]:
                    return line("", "", "undecided", one["note"])
                most, needed = (f"{one[key]:.2g}" for key in ("maximum", "needed"))
                return line("", "", SMALL, f"{name}: {most} where {needed} is needed")
        return None


def crosses(made: Halves, name: str, which: str) -> Line:
    """A layer at which a curve crosses half of its maximum."""
    lines = made.each(onset, name, 199)
    value, other = (float(one[which]) for one in lines)
    if np.isnan(value):
        return line("", "", "not found", str(lines[0]["note"]))
    if np.isnan(other):
        return line(f"{value:.1f}", "", "failed", str(lines[1]["note"]))
    outcome = "held" if abs(value - other) <= TOLERANCE else "failed"
    return line(f"{value:.1f}", f"{other:.1f}", outcome)


def is_sharp(made: Halves, name: str, which: str) -> Line:
    """From 10 to 90 % of the maximum within two layers, in one rise, and not as a ramp."""
    value, other = (float(one[which]) for one in made.each(onset, name, 1))
    rises = [_rises(half, made.metric, which) for half in made.of([name])]
    first, second = map(_width, (value, other), rises)
    if not value <= SHARP or len(rises[0]) > 1:
        return line(first, "", "not found")
    return line(first, second, "held" if other <= SHARP and len(rises[1]) == 1 else "failed")


def _width(width: float, rises: Sequence[int]) -> str:
    if np.isnan(width):
        return ""
    more = f" in {len(rises)} rises, at {ranges(list(rises))}" if len(rises) > 1 else ""
    return f"{width:.1f} wide{more}"


def _rises(row: pd.DataFrame, metric: str, which: str) -> list[int]:
    """The layers at which a curve rises (or falls) by a quarter of its maximum or more."""
    cells = by_prompt(row, metric)
    curve, layers = mean_of(cells.values), cells.cells["layer"].to_numpy(int)
    steps = np.diff(curve) * (1 if which == "rise_width" else -1)
    return layers[1:][steps >= ONE_RISE * np.nanmax(curve)].tolist()


def peaks(made: Halves, name: str) -> Line:
    """The layers among which the highest mean lies; one layer, where one is enough."""
    found = made.each(peak, name, 399)
    sets = [one["confidence_set"] for one in found]
    if None in sets:
        return line("", "", "undecided", next(one["note"] for one in found if one["note"]))
    first, second = map(_either, sets)
    n_layers = made.one.loc[made.one["intervention"] == name, "layer"].nunique()
    if (most := max(map(len, sets))) > n_layers / 2:
        return line(first, second, "undecided", f"{most} of {n_layers} layers could be the peak")
    if not set(sets[0]) & set(sets[1]):
        return line(first, second, "failed")
    return line(first, second, "held" if set(sets[1]) <= set(sets[0]) else "undecided")


def _either(layers: Sequence[int]) -> str:
    *some, last = map(str, sorted(layers))
    return f"{', '.join(some)} or {last}" if some else last


def are_ordered(made: Halves, rows: Sequence[Treatment]) -> Line:
    """The subject's step ends at the attention, and there the last token's begins."""
    parts = made.of([one.name for one in rows])
    (first, *_), (second, *draws) = (_places(made, part, rows) for part in parts)
    value, other = (", ".join(f"{one:.1f}" for one in at[:3]) for at in (first, second))
    if not first[3]:
        return line(value, "", "not found")
    groups = clusters(parts[1], made.by)
    if groups.too_few:
        return line(value, other, "undecided", f"only {groups.words}")
    share = float(np.mean([one[3] for one in draws]))
    outcome = "held" if share >= SURE else "failed" if share <= 1 - SURE else "undecided"
    return line(value, other, outcome, f"in {100 * share:.0f} % of resamples")


def _places(made: Halves, part: pd.DataFrame, rows: Sequence[Treatment]) -> np.ndarray:
    """Where the subject ends, attention is, the last token begins; do they fit? `[draw, 4]`.

    All rows stand on the same prompts, and a resample draws the same clusters for all of them; the
    first is no resample.
    """
    cells = by_prompt(part, made.metric)
    drawn = resample(cells.values, clusters(part, made.by).codes(), 499, made.seed)
    curves = np.nan_to_num(np.concatenate([drawn.mean[None], drawn.means]))
    layers = np.unique(cells.cells["layer"].to_numpy(float))
    index = np.arange(len(layers), dtype=float)
    subject, attention, last = (
        curves[:, (cells.cells["intervention"] == one.name).to_numpy(bool)] for one in rows
    )
    ends, begins = falling(subject, index, 0.5), rising(last, index, 0.5)
    middle = _middle(attention, index, rows[1].window)
    fit = (ends <= middle) & (middle <= begins + 1)
    at = [np.interp(one, index, layers) for one in (ends, middle, begins)]
    return np.stack([*at, fit.astype(float)], axis=1)


def _middle(curves: np.ndarray, index: np.ndarray, window: int | str) -> np.ndarray:
    """The layer that a window's curve is about: a window is seen from half of it on both sides."""
    most = curves.max(1, keepdims=True)
    if not isinstance(window, int):
        high = np.where(curves >= most / 2, curves, 0.0)
        return (high * index).sum(1) / np.where(most[:, 0] > 0, high.sum(1), np.nan)
    up, down = (cross(curves, index, 0.5) for cross in (rising, falling))
    up, down = up + window / 2, down - window / 2
    has_up, has_down = curves[:, 0] < most[:, 0] / 2, curves[:, -1] < most[:, 0] / 2
    only = np.where(has_up, up, np.where(has_down, down, index.mean()))
    return np.where(has_up & has_down, (up + down) / 2, only)


def is_indirect(
    made: Halves, subject: Treatment, attention: Treatment, last: Treatment
) -> Line | None:
    """Whether a subject that matters reaches the last token by other ways than direct attention."""
    matters = [[half[one.name]["matters"] for half in made.sizes] for one in (subject, last)]
    if any(said != "yes" for half in matters for said in half):
        return None
    blocked = [half[attention.name] for half in made.sizes]
    if any(one["matters"] != "no" for one in blocked):
        return None
    parts = made.of(PATHS)
    if any(part.empty for part in parts):
        note = "blocked attention does hardly anything: sweep paths() too, to tell from spare heads"
        return line("", "", "undecided", note)
    ways = [_ways(part, made.metric) for part in parts]
    words = [f"{between:.2f} of both ways, direct {direct:.2f}" for direct, between in ways]
    held = [between >= MOST and direct <= 1 - MOST for direct, between in ways]
    outcome = "not found" if not held[0] else "held" if held[1] else "failed"
    return line(words[0], words[1], outcome)


def _ways(part: pd.DataFrame, metric: str) -> tuple[float, float]:
    """The shares of the direct way and of that through tokens between, from the first layer on."""
    first = part[part["layer"] == part["layer"].min()]
    values = pd.Series(numbers(first, metric)).groupby(first["intervention"].to_numpy()).mean()
    direct, between, both = (float(values[name]) for name in PATHS)
    return direct / both, between / both


def exceeds(made: Halves, treatment: str, contrast: str) -> Line:
    """A row exceeds a contrast by what matters, at layers that are confirmed one by one."""
    pair = (treatment, contrast)
    parts = made.of(pair)
    if parts[0].empty:
        return line("", "", "undecided", NOBODY)
    if (groups := clusters(parts[0], made.by)).too_few:
        return line("", "", "undecided", f"only {groups.words}")
    needed = [half[treatment]["needed"] for half in made.sizes]
    some, found = (_clear(made, parts[0], pair, least, "p_max") for least in (0.0, needed[0]))
    small = sorted(set(some) - set(found))
    note = f"significant but small at {ranges(small)}" if small else ""
    if not found:
        return line("at no layer", "", SMALL if some else "not found", note)
    said = f"at {ranges(found)}"
    if parts[1].empty:
        return line(said, "", "undecided", NOBODY)
    other = parts[1][parts[1]["layer"].isin(found)]
    kept = _clear(made, other, pair, needed[1], "p")
    confirmed = f"at {ranges(kept)}" if kept else "at no layer"
    apart = mean_of(differences(sides(other, *pair, made.metric, "intervention")))
    outcome = "held" if kept == found else "failed" if (apart <= 0).any() else "undecided"
    return line(said, confirmed, outcome, note)


def _clear(
    made: Halves, part: pd.DataFrame, pair: tuple[str, str], least: float, p: str
) -> list[int]:
    """The layers at which the first row exceeds the second by more than `least`, beyond doubt."""
    both = sides(part, *pair, made.metric, "intervention")
    apart = differences(both)
    found = flip_test(apart - least, clusters(both.table, made.by).codes(), made.seed)
    clear = (getattr(found, p) < ALPHA) & (mean_of(apart) > least)
    return both.cells["layer"].to_numpy(int)[clear].tolist()
