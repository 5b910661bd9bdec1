"""cluster_mass: where over layer × token two interventions differ, in patches of cells."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from scipy.ndimage import label
from scipy.stats import t as student

from knockgrid.errors import InputError
from knockgrid.stats.clusters import By, clusters, fewest
from knockgrid.stats.flips import crossing, mean_and_error, signs
from knockgrid.stats.mean_interval import check_share
from knockgrid.stats.resample import sums_by
from knockgrid.stats.sides import Tables, differences, sides
from knockgrid.table.by_prompt import missing
from knockgrid.table.table import KEY, metadata_of

COLUMNS = (
    *("sign", "mass", "size", "p", "smallest_p", "layers", "columns", "cells"),
    *("n_clusters", "test", "note"),
)


def cluster_mass(
    table: Tables,
    one: str,
    other: str | float | None,
    metric: str = "js",
    by: By = "auto",
    *,
    columns: str = "token",
    alpha: float = 0.05,
    seed: int = 0,
) -> pd.DataFrame:
    """Test patches of neighbouring cells over layer × token against the largest patch by chance.

    Example:
        >>> from knockgrid.table.table import build
        >>> rows = [
        ...     {"prompt": f"{p}", "intervention": name, "layer": i, "token": j,
        ...      "js": (p + i * j) % 7 / 40 + (name == "subject") * (i > 0) * (0.5 + p / 90)}
        ...     for p in range(8) for name in ("subject", "control")
        ...     for i in range(3) for j in range(2)
        ... ]
        >>> found = cluster_mass(build(rows, {"unit": "nats"}), "subject", "control")
        >>> found[["sign", "size", "layers", "columns", "p"]].round(4).values.tolist()
        [[1, 4, '1–2', '0–1', 0.0078]]

    The sides are paired by prompt, as in `compare`. Cells whose cluster-robust t exceeds the
    two-sided quantile at `alpha` form patches with neighbours of the same sign (next layer or next
    token in the table's order, not diagonally). The mass of a patch is its sum of t; `p` is the
    share of sign patterns of whole clusters whose largest mass, whatever its sign, is at least as
    large, so it already accounts for all patches. `columns` may also be "position". One row per
    patch, the heaviest first, none where no cell exceeds the threshold.

    Raises:
        InputError: as `compare`; an alpha outside (0, 1); groups; a table with several
            interventions' worth of cells per layer and column (heads, doses); one cluster.

    Source: Maris, Oostenveld 2007, "Nonparametric statistical testing of EEG- and MEG-data".
    Limit: p belongs to a patch as a whole: it says that the sides differ, not that they differ at
    each of its cells or where it ends (Sassenhagen, Draschkow 2019). Where clusters cross, the
    dimension with fewer is flipped, and each t is divided by two-way over one-way spread.
    """
    check_share("alpha", alpha, "0.05")
    made = sides(table, one, other, metric, None)
    if made.kind == "group":
        raise InputError("cluster_mass() compares paired sides; for groups take compare()")
    values = differences(made)
    place, rows, across = _layout(made.cells, columns)
    groups = clusters(made.table, by)
    lacking = missing(made.one.prompts, values)
    n = min(groups.counts)
    found = masses(values, groups.codes(), place, alpha, seed)
    for row in found:
        i, j = (np.array(one) for one in zip(*row["cells"], strict=True))
        row["layers"], row["columns"] = _span(rows, i), _span(across, j)
        row["cells"] = tuple((rows[a], across[b]) for a, b in row["cells"])
        few = f"p cannot be below {row['smallest_p']:.2g}" if row["smallest_p"] > 0.05 else ""
        row |= {"n_clusters": n, "test": f"signs flipped by {n} {fewest(groups)}s"}
        row["note"] = "; ".join(filter(None, (few, lacking)))
    result = pd.DataFrame(found, columns=list(COLUMNS))
    told = {"metric": metric, "contrast": f"{one} − {other}", "alpha": alpha}
    result.attrs = {KEY: {**metadata_of(made.table), **told}}
    return result


def masses(
    values: np.ndarray,
    codes: Sequence[np.ndarray],
    place: np.ndarray,
    alpha: float,
    seed: int = 0,
) -> list[dict]:
    """The patches of `[prompt, cell]` values, with their mass and p.

    `place` is the grid `[layer, column]` of cell numbers, -1 where there is no cell.
    """
    flipped, wider = crossing(values, codes)
    sums, counts = sums_by(values, flipped)
    n_clusters = len(sums)
    if n_clusters < 2:
        raise InputError("signs cannot be flipped by one cluster; give another `by`")
    null = signs(n_clusters, seed)
    threshold = float(student.ppf(1 - alpha / 2, n_clusters - 1))

    def grids(patterns: np.ndarray, wider: np.ndarray | float = 1.0) -> np.ndarray:
        mean, error = mean_and_error(patterns, sums, counts)
        with np.errstate(invalid="ignore", divide="ignore"):
            t = np.where(mean == 0, 0.0, mean / error) / wider
        return np.where(place >= 0, np.nan_to_num(t[:, place], nan=0.0), 0.0)

    by_chance = [
        max((np.abs(mass).max() for *_, mass in _patches(one, threshold)), default=0.0)
        for one in grids(null.patterns)
    ]
    observed = grids(np.ones((1, n_clusters)), wider)[0]
    found = []
    for sign, numbered, heavy in _patches(observed, threshold):
        for number, mass in enumerate(heavy.tolist(), start=1):
            cells = [(int(i), int(j)) for i, j in np.argwhere(numbered == number)]
            p = float(null.p(np.array([mass]), np.array(by_chance)[:, None])[0])
            told = {"sign": sign, "mass": mass, "size": len(cells), "p": p}
            found.append({**told, "smallest_p": null.smallest, "cells": cells})
    return sorted(found, key=lambda row: -abs(row["mass"]))


def _patches(t: np.ndarray, threshold: float) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Per sign: neighbouring cells `[layer, column]` under one number, and the mass of each."""
    for sign in (1, -1):
        here = sign * t > threshold
        if here.any():
            numbered = np.zeros(here.shape, dtype=np.int32)
            label(here, output=numbered)
            yield sign, numbered, np.bincount(numbered.ravel(), t.ravel())[1:]


def _layout(cells: pd.DataFrame, columns: str) -> tuple[np.ndarray, list, list]:
    if columns not in ("token", "position") or columns not in cells:
        raise InputError(
            f"columns={columns!r} is not in this comparison; give 'token' or 'position'"
        )
    twice = cells[cells.duplicated(["layer", columns])]
    if len(twice):
        raise InputError(
            f"layer {twice['layer'].iloc[0]}, {columns} {twice[columns].iloc[0]} has several "
            "cells; filter the table to one head, module, dose or intervention"
        )
    (i, rows), (j, across) = (pd.factorize(cells[name]) for name in ("layer", columns))
    place = np.full((len(rows), len(across)), -1)
    place[i, j] = np.arange(len(cells))
    return place, rows.tolist(), across.tolist()


def _span(labels: list, here: np.ndarray) -> str:
    return "–".join(dict.fromkeys(str(labels[int(end)]) for end in (here.min(), here.max())))
