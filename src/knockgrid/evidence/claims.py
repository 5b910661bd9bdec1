"""claims: what a run says, found on one half of its prompts and confirmed on the other."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import pandas as pd

from knockgrid.errors import InputError
from knockgrid.evidence.confirmed import (
    NOBODY,
    PATHS,
    ROWS,
    Halves,
    Line,
    are_ordered,
    crosses,
    exceeds,
    is_indirect,
    is_sharp,
    line,
    peaks,
)
from knockgrid.stats.clusters import By
from knockgrid.stats.halves import halves
from knockgrid.stats.size import SHARE
from knockgrid.table.table import KEY, metadata_of
from knockgrid.table.treatments import Treatment, treatments

COLUMNS = ("claim", "form", "corruption", "window", "value", "confirmed", "outcome", "note")


def claims(
    tables: Mapping[str, pd.DataFrame],
    metric: str = "js",
    by: By = "auto",
    *,
    share: float = SHARE,
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
    it was found on, `confirmed`, the value on the other half; `outcome` and `note`. A row whose
    effect is not clearly above `share` of its corruption's total effect on both halves (`size`) has
    no shape: "too small to say". Claims, and when they hold on the other half:

    - the step of the subject row ends, that of the last row begins, at layer x (half of the
      maximum): its own x is within one layer;
    - that step is sharp, from 10 to 90 % of the maximum within two layers and in one rise (a layer
      at which a quarter of the maximum or more is won): so it is there;
    - the attention row peaks at one of some layers, its 95 % confidence set: the set of the other
      half lies within (failed: they have no layer in common), unless one is more than half of the
      layers (undecided);
    - subject, attention, last: the subject's step ends at the layers about which attention's curve
      is, and the last token's begins there: so in 95 % of the cluster resamples (failed: in 5 % or
      fewer);
    - through tokens between: subject and last token matter, and blocked attention from one to the
      other does not. It holds where `paths` was swept too and says so, else it is undecided, as
      heads that stand in for each other look the same;
    - a row exceeds a contrast by `share` of the total effect at the layers where p < 0.05 for all
      layers at once: p < 0.05 at every one of them (failed: the mean difference is not positive at
      one). Layers where it exceeds it by less are named as significant but small.

    "not found" is a claim that the first half does not make.

    Raises:
        InputError: no tables, tables without subject, attention or last rows, or a share that is
            not between 0 and 1.

    Limit: both halves come from the same relations and the same model.
    """
    if not tables:
        raise InputError("no tables given; pass {'plain': table}, and other forms by their names")
    lines: list[Line] = []
    for form, table in tables.items():
        made = Halves(*halves(table, seed), metric, by, share, seed)
        lines += [{"form": form, **line} for line in _of_form(made, treatments(table))]
    if not lines:
        raise InputError("the tables have no rows named subject, attention or last")
    found = pd.DataFrame(lines)[list(COLUMNS)].astype("string")
    first = metadata_of(next(iter(tables.values())))
    kept = {name: first[name] for name in ("unit", "model", "versions") if name in first}
    kept |= {"metric": metric, "forms": list(tables), "share": share, "seed": seed}
    found.attrs = {KEY: kept}
    return found


def _of_form(made: Halves, found: list[Treatment]) -> Iterator[Line]:
    single = [one for one in found if one.name not in PATHS]
    rows = {name: [one for one in single if one.row == name] for name in ROWS}
    ways: list[tuple[str, str, Callable[[Halves, str], Line]]] = [
        ("subject", "the step ends", partial(crosses, which="offset")),
        ("last", "the step begins", partial(crosses, which="onset")),
        ("subject", "the step is sharp", partial(is_sharp, which="fall_width")),
        ("last", "the step is sharp", partial(is_sharp, which="rise_width")),
        ("attention", "the peak", peaks),
    ]
    for row, what, check in ways:
        for one in rows[row]:
            said = _absent(made, [one]) or made.small([one.name]) or check(made, one.name)
            yield {"claim": f"{row}: {what}", **_condition(one), **said}
    for subject in rows["subject"]:
        last = next((one for one in rows["last"] if one.source == subject.source), None)
        if last is None:
            continue
        for attention in rows["attention"]:
            three = (subject, attention, last)
            condition = {"corruption": subject.source, "window": str(attention.window)}
            absent = _absent(made, three)
            said = absent or made.small([one.name for one in three]) or are_ordered(made, three)
            yield {"claim": ", ".join(ROWS), **condition, **said}
            if absent is None and (said := is_indirect(made, *three)) is not None:
                yield {"claim": "through tokens between", **condition, **said}
    labels = metadata_of(made.one).get("labels", {})
    present = set(made.one["intervention"])  # every prompt may lack the place of a contrast
    for one in found:
        for told in metadata_of(made.one).get("interventions", []):
            name = told["name"]
            if (told.get("role"), told.get("of")) == ("contrast", one.name) and name in present:
                words = str(labels.get(name, name)).split(" | ")[-1]
                said = made.small([one.name]) or exceeds(made, one.name, name)
                yield {"claim": f"{one.row} exceeds {words}", **_condition(one), **said}


def _absent(made: Halves, rows: Sequence[Treatment]) -> Line | None:
    """Undecided, where a half has no prompt with all of some rows."""
    absent = any(half.empty for half in made.of([one.name for one in rows]))
    return line("", "", "undecided", NOBODY) if absent else None


def _condition(one: Treatment) -> Line:
    window = str(one.window) if one.source is None else None
    return {"corruption": one.source, "window": window}
