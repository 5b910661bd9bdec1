"""source_comparison: what a row says under one source and still says under another."""

import numpy as np
import pandas as pd

from knockgrid.errors import InputError
from knockgrid.stats.clusters import By
from knockgrid.stats.onset import onset
from knockgrid.table.table import KEY, grid, metadata_of
from knockgrid.table.treatments import only_rows, treatments

CLAIMS = ("onset", "offset", "rise_width", "fall_width", "peak")
ENDS = ("onset_low", "onset_high", "offset_low", "offset_high")


def source_comparison(
    table: pd.DataFrame, metric: str = "js", by: By = "auto", *, seed: int = 0
) -> pd.DataFrame:
    """Where each row rises, falls and peaks under each of its sources.

    Example:
        >>> from knockgrid.table.table import build
        >>> curves = {"last noise": [0.1, 0.3, 0.5, 0.5], "last swap": [0.0, 0.0, 0.6, 0.6]}
        >>> described = [
        ...     {"name": name, "row": "last", "corruption": name.split()[1], "window": 1}
        ...     for name in curves
        ... ]
        >>> cells = [
        ...     {"prompt": p, "intervention": name, "layer": i, "js": js}
        ...     for p in "ab" for name, curve in curves.items() for i, js in enumerate(curve)
        ... ]
        >>> found = source_comparison(build(cells, {"unit": "nats", "interventions": described}))
        >>> found[["row", "source", "onset", "rise_width"]].round(2).values.tolist()
        [['last', 'noise', 0.75, 1.75], ['last', 'swap', 1.5, 0.8]]

    One line per row and source: `maximum` in the metric's unit; `onset`, `offset`, `rise_width`
    and `fall_width` in layers, as `onset` defines them, with its intervals; `peak`, the layer of
    the largest mean; `note`. What survives is for `surviving_claims` to say.

    Raises:
        InputError: a table whose rows have fewer than two sources, and as `onset`.
    """
    found = [one for one in treatments(table) if one.source is not None]
    if len({one.source for one in found}) < 2:
        raise InputError(
            "a comparison of sources needs rows from two sources or more; sweep, for example, "
            "subject and last under corrupted_run(by=noise()) and corrupted_run(by=swap())"
        )
    part = only_rows(table, [one.name for one in found])
    steps = onset(part, metric, by, seed=seed).set_index("intervention")
    tops = grid(part, metric).idxmax(axis=1)
    names = ("maximum", *CLAIMS[:-1], *ENDS, "n_clusters", "cluster", "note")
    lines = [
        {
            "row": one.row,
            "source": one.source,
            "intervention": one.name,
            **{name: steps.loc[one.name, name] for name in names},
            "peak": int(tops[one.name]),
        }
        for one in found
    ]
    result = pd.DataFrame(lines)
    result.attrs = {KEY: {**metadata_of(table), "metric": metric, "rank": _ranks(part, metric)}}
    return result


def _ranks(table: pd.DataFrame, metric: str) -> dict[str, float]:
    """The least rank correlation of two sources' curves, by row; NaN where a curve is constant."""
    rows: dict[str, list[str]] = {}
    for one in treatments(table):
        rows.setdefault(one.row, []).append(one.name)
    ranks = grid(table, metric).rank(axis=1)
    found: dict[str, float] = {}
    for row, names in rows.items():
        part = ranks.loc[names]
        if len(names) > 1:
            varied = bool((part.nunique(axis=1) > 1).all())
            found[row] = float(np.corrcoef(part).min()) if varied else float("nan")
    return found


def surviving_claims(comparison: pd.DataFrame, tolerance: float = 1.0) -> pd.DataFrame:
    """Claim by claim, whether it is the same under all sources.

    Example:
        >>> lines = {"row": "last", "source": ["noise", "swap"], "onset": [18.0, 22.5]}
        >>> rest = {"offset": None, "rise_width": [6.0, 1.0], "fall_width": None, "peak": 29}
        >>> for words in surviving_claims(pd.DataFrame({**lines, **rest})).words:
        ...     print(words)
        last onset: does not survive, 18.0 (noise) to 22.5 (swap)
        last rise_width: does not survive, 1.0 (swap) to 6.0 (noise)
        last peak: survives, 29 under 2 sources

    A claim survives when its values are at most `tolerance` layers apart and every source shows it
    (NaN: it does not); the words name a source that does not. A claim of no source is left out.

    Raises:
        InputError: not a frame of `source_comparison`, or a negative tolerance.
    """
    missing = [name for name in ("row", "source", *CLAIMS) if name not in comparison]
    if missing:
        raise InputError(f"this is no frame of source_comparison: it has no column {missing[0]!r}")
    if not tolerance >= 0:
        raise InputError(f"tolerance {tolerance!r} is not a number of layers; give 0 or more")
    lines = []
    for row, part in comparison.groupby("row", sort=False):
        for claim in CLAIMS:
            if part[claim].notna().any():
                lines.append(_survival(str(row), claim, part, tolerance))
    return pd.DataFrame(lines)


def _survival(row: str, claim: str, part: pd.DataFrame, tolerance: float) -> dict:
    values = part.set_index("source")[claim].astype(float)
    absent, known = values.index[values.isna()], values.dropna()
    low, high = known.min(), known.max()
    least, most = (f"{value:.0f}" if claim == "peak" else f"{value:.1f}" for value in (low, high))
    same = bool(high - low <= tolerance and not len(absent))
    if len(absent):
        words = f"does not survive, there is none under {', '.join(map(str, absent))}"
    elif same:
        span = " to ".join(dict.fromkeys([least, most]))
        words = f"survives, {span} under {len(known)} sources"
    else:
        words = f"does not survive, {least} ({known.idxmin()}) to {most} ({known.idxmax()})"
    told = {"row": row, "claim": claim, "survives": same, "low": low, "high": high}
    return {**told, "words": f"{row} {claim}: {words}"}
