"""claims: what a run says, found on one half of its prompts and confirmed on the other."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from knockgrid.errors import InputError
from knockgrid.stats.clusters import By, clusters
from knockgrid.stats.compare import compare
from knockgrid.stats.halves import halves
from knockgrid.stats.onset import onset
from knockgrid.stats.peak import peak
from knockgrid.stats.resample import resample
from knockgrid.table.by_prompt import by_prompt
from knockgrid.table.summary import ranges
from knockgrid.table.table import KEY, build, metadata_of, numbers
from knockgrid.table.treatments import Treatment, only_rows, treatments, with_all

ROWS = ("subject", "attention", "last")
COLUMNS = ("claim", "form", "corruption", "window", "value", "confirmed", "outcome", "note")
TOLERANCE = 1.0
SHARP = 2.0
ALPHA = 0.05
SURE = 0.95
NOBODY = "no prompt has them all on this half"
Line = dict[str, object]


@dataclass(frozen=True, eq=False)
class Halves:
    """The half that claims are found on, and the one that they are confirmed on."""

    one: pd.DataFrame
    other: pd.DataFrame
    metric: str
    by: By
    seed: int

    def of(self, names: list[str]) -> list[pd.DataFrame]:
        """Some rows of both halves, on the prompts that have them all."""
        return [with_all(half, names, self.metric) for half in (self.one, self.other)]

    def each(self, find: Callable[..., pd.DataFrame], name: str, resamples: int) -> list[pd.Series]:
        """What is found of one row on both halves."""
        how: dict[str, Any] = {"seed": self.seed, "resamples": resamples}
        rows = [only_rows(half, [name]) for half in (self.one, self.other)]
        return [find(row, self.metric, self.by, **how).iloc[0] for row in rows]


def claims(
    tables: Mapping[str, pd.DataFrame],
    metric: str = "js",
    by: By = "auto",
    *,
    seed: int = 0,
) -> pd.DataFrame:
    """Every claim of a run under every corruption, window and form, found and then confirmed.

    Example:
        >>> from knockgrid.table.table import build
        >>> rows = {"subject": [0.5, 0.4, 0.0], "last": [0, 0.2, 0.5]}
        >>> described = [{"name": name, "source": "swap()", "window": 1} for name in rows]
        >>> cells = [
        ...     {"prompt": f"{p}", "intervention": n, "layer": i, "js": js * (1 + p % 5 / 9)}
        ...     for p in range(16) for n, curve in rows.items() for i, js in enumerate(curve)
        ... ]
        >>> made = claims({"plain": build(cells, {"unit": "nats", "interventions": described})})
        >>> made[["claim", "outcome"]].values.tolist()[:2]
        [['subject: the step ends', 'held'], ['last: the step begins', 'held']]

    `tables` hold a sweep by the name of its form (plain prompts, no BOS, another template, chat);
    `metric` is a number column of theirs, `by` the clusters, as for `mean_interval`, and `seed`
    that of the halves and of resampling.

    One line per claim and condition: `claim`, `form`, `corruption`, `window`; `value` on the half
    it was found on, `confirmed`, the value on the other half; `outcome` and `note`. Claims, and
    when they hold on the other half:

    - the step of the subject row ends, that of the last row begins, at layer x (half of the
      maximum): its own x is within one layer;
    - that step is sharp, from 10 to 90 % of the maximum within two layers: so it is there;
    - the attention row peaks at layer x: x is in its 95 % confidence set, unless the set is more
      than half of the layers (undecided);
    - subject before attention before last, by the centroids of the curves: true in 95 % of the
      cluster resamples (failed: in 5 % or fewer);
    - a row exceeds a contrast at the layers where p < 0.05 for all layers at once: the mean
      difference over these layers is positive with p < 0.05 (failed: it is not positive).

    "not found" is a claim that the first half does not make.

    Raises:
        InputError: no tables, or tables without subject, attention or last rows.

    Limit: both halves come from the same relations and the same model.
    """
    if not tables:
        raise InputError("no tables given; pass {'plain': table}, and other forms by their names")
    lines: list[Line] = []
    for form, table in tables.items():
        made = Halves(*halves(table, seed), metric, by, seed)
        lines += [{"form": form, **line} for line in _of_form(made, treatments(table))]
    if not lines:
        raise InputError("the tables have no rows named subject, attention or last")
    found = pd.DataFrame(lines)[list(COLUMNS)].astype("string")
    first = metadata_of(next(iter(tables.values())))
    kept = {name: first[name] for name in ("unit", "model", "versions") if name in first}
    found.attrs = {KEY: {**kept, "metric": metric, "forms": list(tables), "seed": seed}}
    return found


def _of_form(made: Halves, found: list[Treatment]) -> Iterator[Line]:
    rows = {name: [one for one in found if one.row == name] for name in ROWS}
    ways: list[tuple[str, str, Callable[[Halves, str], Line]]] = [
        ("subject", "the step ends", partial(_crosses, which="offset")),
        ("last", "the step begins", partial(_crosses, which="onset")),
        ("subject", "the step is sharp", partial(_is_sharp, which="fall_width")),
        ("last", "the step is sharp", partial(_is_sharp, which="rise_width")),
        ("attention", "the peak", _peaks),
    ]
    for row, what, check in ways:
        for one in rows[row]:
            absent = any(half.empty for half in made.of([one.name]))
            line = _line("", "", "undecided", NOBODY) if absent else check(made, one.name)
            yield {"claim": f"{row}: {what}", **_condition(one), **line}
    for subject in rows["subject"]:
        last = next((one for one in rows["last"] if one.source == subject.source), None)
        for attention in rows["attention"] if last is not None else ():
            names = [one.name for one in (subject, attention, last) if one is not None]
            condition = {"corruption": subject.source, "window": str(attention.window)}
            yield {"claim": ", ".join(ROWS), **condition, **_are_ordered(made, names)}
    labels = metadata_of(made.one).get("labels", {})
    present = set(made.one["intervention"])  # every prompt may lack the place of a contrast
    for one in found:
        for told in metadata_of(made.one).get("interventions", []):
            name = told["name"]
            if (told.get("role"), told.get("of")) == ("contrast", one.name) and name in present:
                said = str(labels.get(name, name)).split(" | ")[-1]
                line = _exceeds(made, [one.name, name])
                yield {"claim": f"{one.row} exceeds {said}", **_condition(one), **line}


def _condition(one: Treatment) -> Line:
    window = str(one.window) if one.source is None else None
    return {"corruption": one.source, "window": window}


def _crosses(made: Halves, name: str, which: str) -> Line:
    """A layer at which a curve crosses half of its maximum."""
    lines = made.each(onset, name, 199)
    value, other = (float(line[which]) for line in lines)
    if np.isnan(value):
        return _line("", "", "not found", str(lines[0]["note"]))
    if np.isnan(other):
        return _line(f"{value:.1f}", "", "failed", str(lines[1]["note"]))
    outcome = "held" if abs(value - other) <= TOLERANCE else "failed"
    return _line(f"{value:.1f}", f"{other:.1f}", outcome)


def _is_sharp(made: Halves, name: str, which: str) -> Line:
    """From 10 to 90 % of the maximum within two layers, and not as a ramp."""
    value, other = (float(line[which]) for line in made.each(onset, name, 1))
    first, second = ("" if np.isnan(one) else f"{one:.1f} wide" for one in (value, other))
    if not value <= SHARP:
        return _line(first, "", "not found")
    return _line(first, second, "held" if other <= SHARP else "failed")


def _peaks(made: Halves, name: str) -> Line:
    one, other = made.each(peak, name, 399)
    kept, at, there = other["confidence_set"], str(one["peak"]), str(other["peak"])
    if kept is None:
        return _line(at, there, "undecided", str(other["note"]))
    n_layers = made.other.loc[made.other["intervention"] == name, "layer"].nunique()
    if len(kept) > n_layers / 2:
        return _line(at, there, "undecided", f"{len(kept)} of {n_layers} layers could be the peak")
    span = f"{min(kept)}" if len(kept) == 1 else f"{min(kept)}–{max(kept)}"
    return _line(at, span, "held" if one["peak"] in kept else "failed")


def _are_ordered(made: Halves, names: list[str]) -> Line:
    """Centroids of three curves in increasing order, in what share of the resamples."""
    parts = made.of(names)
    if any(part.empty for part in parts):
        return _line("", "", "undecided", NOBODY)
    (first, *_), (second, *draws) = (_centroids(made, part, names) for part in parts)
    value, other = (" < ".join(f"{one:.1f}" for one in centroids) for centroids in (first, second))
    if not (np.diff(first) > 0).all():
        return _line(value, "", "not found")
    groups = clusters(parts[1], made.by)
    if groups.too_few:
        return _line(value, other, "undecided", f"only {groups.words}")
    share = float((np.diff(draws, axis=1) > 0).all(1).mean())
    outcome = "held" if share >= SURE else "failed" if share <= 1 - SURE else "undecided"
    return _line(value, other, outcome, f"in {100 * share:.0f} % of resamples")


def _centroids(made: Halves, part: pd.DataFrame, names: list[str]) -> np.ndarray:
    """The mean layer of every row, weighted by its values `[draw, row]`; the first is no resample.

    All rows stand on the same prompts, and a resample draws the same clusters for all of them. A
    curve of zeros has none.
    """
    cells = by_prompt(part, made.metric)
    drawn = resample(cells.values, clusters(part, made.by).codes(), 499, made.seed)
    curves = np.nan_to_num(np.concatenate([drawn.mean[None], drawn.means]))
    layers = cells.cells["layer"].to_numpy(float)
    own = cells.cells["intervention"].to_numpy(object)[:, None] == np.array(names, dtype=object)
    total = curves @ own
    return (curves * layers) @ own / np.where(total > 0, total, np.nan)


def _exceeds(made: Halves, pair: list[str]) -> Line:
    part = with_all(made.one, pair, made.metric)
    if part.empty:
        return _line("", "", "undecided", NOBODY)
    treatment, contrast = pair
    one = compare(part, treatment, contrast, made.metric, made.by, seed=made.seed)
    if (one["smallest_p"] > ALPHA).all():
        return _line("", "", "undecided", str(one["note"].iloc[0]))
    clear = one[(one["p_max"] < ALPHA) & (one["estimate"] > 0)]
    layers = [int(layer) for layer in clear["layer"]]
    if not layers:
        return _line("at no layer", "", "not found")
    said, mean = f"at {ranges(layers)}", averaged(made.other, pair, layers, made.metric)
    if mean is None:
        return _line(said, "", "undecided", NOBODY)
    other = compare(mean, treatment, contrast, made.metric, made.by, seed=made.seed).iloc[0]
    apart, p = float(other["estimate"]), float(other["p"])
    outcome = "failed" if apart <= 0 else "held" if p < ALPHA else "undecided"
    return _line(said, f"{apart:+.3f}", outcome, f"p = {p:.2g}")


def averaged(
    table: pd.DataFrame, names: list[str], layers: list[int], metric: str
) -> pd.DataFrame | None:
    """A table with one cell per prompt and row: the mean over some layers; None without a prompt.

    Prompts that lack a value in one of these cells are left out, as the rows are paired.
    """
    part = table[table["intervention"].isin(names) & table["layer"].isin(layers)]
    part = part.assign(value=numbers(part, metric))
    wide = part.pivot(index="prompt", columns=["intervention", "layer"], values="value")
    full = wide.reindex(columns=[(name, layer) for name in names for layer in layers]).dropna()
    rows = [
        {"prompt": prompt, "intervention": name, "layer": 0, metric: float(values[name].mean())}
        for prompt, values in full.iterrows()
        for name in names
    ]
    return build(rows, metadata_of(table)) if rows else None


def _line(value: str, confirmed: str, outcome: str, note: str = "") -> Line:
    return {"value": value, "confirmed": confirmed, "outcome": outcome, "note": note}
