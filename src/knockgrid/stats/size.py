"""size: whether a row moves the output enough for its shape to say anything."""

from typing import Any

import numpy as np
import pandas as pd

from knockgrid.stats.clusters import By, clusters
from knockgrid.stats.mean_interval import check_level, check_share, interval, why_no_interval
from knockgrid.stats.resample import RESAMPLES, resample
from knockgrid.table.by_prompt import by_prompt
from knockgrid.table.floor import highest_floors
from knockgrid.table.measures import measure_of
from knockgrid.table.table import KEY, metadata_of, with_layers

SHARE = 0.1
"""Of the total effect of a corruption: what a row must reach before its shape is spoken of."""
LEAST = 0.01
"""Of the largest value of a divergence (ln 2 for JS), or of a nat where it has none: what a row
must reach in any case, as a share of a corruption that does nothing is nothing."""


def size(
    table: pd.DataFrame,
    metric: str = "js",
    by: By = "auto",
    *,
    share: float = SHARE,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """Per row: whether its largest mean is a share of what its corruption does as a whole.

    Example:
        >>> from knockgrid.table.table import build
        >>> curves = {"subject": [0.4, 0.5, 0.0], "attention": [0.0, 0.001, 0.0]}
        >>> rows = [
        ...     {"prompt": f"{p}", "intervention": name, "layer": i, "js": js * (1 + p % 3 / 9)}
        ...     for p in range(9) for name, curve in curves.items() for i, js in enumerate(curve)
        ... ]
        >>> found = size(build(rows, {"unit": "nats"}))
        >>> found[["intervention", "layer", "matters"]].values.tolist()
        [['subject', 1, 'yes'], ['attention', 1, 'no']]

    Columns: the row's labels, `layer` of the largest mean, `maximum` with its interval `low` and
    `high`, `total`, `needed` (in the metric's unit), `matters`, `n_clusters`, `note`. `total` is
    the mean of JS(clean, corrupted) over the prompts for the row's corruption; for a row without
    one the largest of the table's; for another metric, or a table that does not hold it, the
    largest mean of any row. `needed` is the largest of `share` of it, 1 % of what the metric can
    reach at all (of a nat, where it has no bound) and the noise floor. `matters` is "yes" where
    `low` is above that, "no" where `high` is below it, else "undecided".

    Raises:
        InputError: a share that is not between 0 and 1; and as `mean_interval`.

    Source: ours; docs/truth.md has the false and the missed claims at the default share.
    """
    check_share("share", share, "0.1 for a tenth of the total effect")
    check_level(level)
    made, groups = by_prompt(with_layers(table), metric), clusters(table, by)
    drawn = resample(made.values, groups.codes(), resamples, seed)
    ends = interval(drawn, made.bands, level)
    totals, floors = _totals(table, metric), highest_floors(table, metric)
    highest = float(np.nanmax(drawn.mean, initial=0.0))
    lines: list[dict[str, Any]] = []
    for labels, row in made.rows():
        here = np.flatnonzero(row)
        name = str(made.cells["intervention"][here[0]])
        at = here[np.where(np.isnan(drawn.mean[here]), -np.inf, drawn.mean[here]).argmax()]
        total = totals.get(name, max(totals.values(), default=highest))
        needed = max(share * total, LEAST * _most(table, metric), floors.get(name, 0.0))
        low, high, n = float(ends.low[at]), float(ends.high[at]), int(drawn.n_clusters[at])
        matters = "yes" if low > needed else "no" if high < needed else "undecided"
        told = {"layer": made.cells["layer"][at], "maximum": float(drawn.mean[at])}
        told |= {"low": low, "high": high, "total": total, "needed": needed, "matters": matters}
        lines.append({**labels, **told, "n_clusters": n, "note": why_no_interval(groups, n)})
    found = pd.DataFrame(lines)
    found.attrs = {KEY: {**metadata_of(table), "metric": metric, "level": level, "share": share}}
    return found


def _most(table: pd.DataFrame, metric: str) -> float:
    """The largest value of a metric, 1 where it has none."""
    most = measure_of(table, metric).bounds(str(metadata_of(table).get("unit")))[1]
    return float(most) if np.isfinite(most) else 1.0


def _totals(table: pd.DataFrame, metric: str) -> dict[str, float]:
    """The total effect of the corruption of every row that has one and whose table holds it."""
    if metric != "js":
        return {}
    metadata, prompts = metadata_of(table), set(table["prompt"].astype(str))
    described = metadata.get("interventions", [])
    controls = {one["name"] for one in described if one.get("role", "treatment") != "treatment"}
    found = dict[str, list[float]]()
    for side in metadata.get("prompts", []):
        for name, moved in (side.get("js_corrupted") or {}).items():
            if moved is not None and str(side["id"]) in prompts and name not in controls:
                found.setdefault(name, []).append(float(moved))
    return {name: float(np.mean(moved)) for name, moved in found.items()}
