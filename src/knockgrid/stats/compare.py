"""compare: whether two interventions, groups or models differ, cell by cell."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import false_discovery_control

from knockgrid.errors import InputError
from knockgrid.stats.clusters import By, clusters, counted, fewest
from knockgrid.stats.flips import PValues, flip_test, permute_test
from knockgrid.stats.resample import mean_of, sums_by
from knockgrid.stats.sides import Sides, Tables, differences, sides
from knockgrid.table.by_prompt import missing
from knockgrid.table.table import KEY, metadata_of

P = Float[np.ndarray, " cell"]


def compare(
    table: Tables,
    one: str,
    other: str | float | None,
    metric: str = "js",
    by: By = "auto",
    *,
    of: str | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Test in every cell whether `one` differs from `other`, by signs flipped or labels permuted.

    Example:
        >>> from knockgrid.table.table import build
        >>> rows = [
        ...     {"prompt": f"{p}", "intervention": name, "layer": 0, "js": p / 30 + more}
        ...     for p in range(6) for name, more in [("subject", 0.2), ("control", 0.0)]
        ... ]
        >>> found = compare(build(rows, {"unit": "nats"}), "subject", "control")
        >>> found[["layer", "estimate", "p", "smallest_p", "test"]].round(3).values.tolist()
        [[0, 0.2, 0.031, 0.031, 'signs flipped by 6 prompts']]

    `one` and `other` are two interventions of the table, two of its groups, or, where `table` is a
    mapping from names to two tables (models, sources), two of these names; `of` says which if a
    name fits several. Returns one row per cell: `estimate` (one minus other, in the metric's
    unit), `p` (two-sided), and three that know how many cells there are: `p_max`, against the
    largest t over all cells, `p_holm` and `p_bh`; `smallest_p`, the least p that so many clusters
    can give at all, `n_prompts`, `n_clusters`, `test`, `note`. With few clusters Holm cannot reject
    over many layers, whatever the data: take `p_max`.

    Interventions and tables are paired by prompt. Signs of whole clusters are flipped: all patterns
    up to 14 clusters, else 9999 random ones, counted with the data's own. Where clusters cross, the
    dimension with fewer is flipped, and the null widened by two-way over one-way spread. Groups are
    compared within the clusters that have both (difference of means per cluster, each of equal
    weight, signs flipped); where no cluster has both, group labels are permuted among clusters,
    with a cluster-robust t; of crossed clusters only the dimension with fewer counts there.

    Raises:
        InputError: a test against 0 or nothing (divergences are never negative: the null has to be
            a control), unknown names, cells or prompts that differ (named), units that differ, a
            group of fewer than two prompts or clusters, infinite values, or NaN under status "ok".

    Source: Westfall, Young 1993 (`p_max`); Holm 1979; Benjamini, Hochberg 1995; Fisher 1935 and
        Pitman 1937 (randomisation); Phipson, Smyth 2010 (random patterns); Janssen 1997
        (studentised permutation).
    Limit: flips are exact where the clusters' differences are symmetric around 0; with crossed
        clusters they err on the side of too large a p (docs/statistics.md has the rates).
    """
    made = sides(table, one, other, metric, of)
    if made.kind == "group" and isinstance(table, pd.DataFrame):
        found = _groups(made, table, (one, str(other)), by, seed)
    else:
        values, groups = differences(made), clusters(made.table, by)
        words = f"signs flipped by {counted(min(groups.counts), fewest(groups))}"
        if len(groups.counts) > 1:
            words += f", widened for {groups.words}"
        codes, lacking = groups.codes(), missing(made.one.prompts, values)
        found = _rows(made, values, flip_test(values, codes, seed), codes, words, lacking)
    p = found["p"].to_numpy(float)
    found = found.assign(p_bh=benjamini_hochberg(p), p_holm=holm(p))
    first = [*made.cells, "estimate", "p", "p_max", "p_bh", "p_holm", "smallest_p"]
    found = found[[*first, *(name for name in found if name not in first)]]
    contrast = {"metric": metric, "contrast": f"{one} − {other}"}
    found.attrs = {KEY: {**metadata_of(made.table), **contrast}}
    return found


def _groups(
    made: Sides, table: pd.DataFrame, names: tuple[str, str], by: By, seed: int
) -> pd.DataFrame:
    for name, side in zip(names, (made.one, made.other), strict=True):
        if len(side.prompts) < 2:
            n = counted(len(side.prompts), "prompt")
            raise InputError(f"group {name!r} has {n}; a comparison needs two or more in each")
    shared_prompts = sorted(set(made.one.prompts) & set(made.other.prompts))
    if shared_prompts:
        raise InputError(f"prompt {shared_prompts[0]!r} is in both groups; keep it in one")
    groups = clusters(table[table["group"].isin(names).to_numpy(bool)], by)
    dimension = fewest(groups)
    label = dict(zip(groups.prompts, groups.labels[dimension], strict=True))
    parts = [[label[prompt] for prompt in side.prompts] for side in (made.one, made.other)]
    shared = [one for one in dict.fromkeys(parts[0]) if one in parts[1]]
    if shared:
        return _within(made, parts, shared, dimension, seed)
    return _between(made, parts, names, dimension, seed)


def _within(
    made: Sides, parts: list[list[str]], shared: list[str], dimension: str, seed: int
) -> pd.DataFrame:
    """Differences of the groups' means inside the clusters that have both."""
    means, n_prompts = [], 0
    for side, labels in zip((made.one, made.other), parts, strict=True):
        kept = np.array([label in shared for label in labels])
        codes = np.array([shared.index(label) for label in labels if label in shared])
        sums, counts = sums_by(side.values[kept], codes)
        means.append(sums / np.where(counts > 0, counts, np.nan))
        n_prompts = n_prompts + counts.sum(0).astype(int)
    values, alone = means[0] - means[1], [np.arange(len(shared))]
    left = sorted((set(parts[0]) | set(parts[1])) - set(shared))
    note = f"left out, in one group only: {', '.join(left)}" if left else ""
    words = f"signs flipped by {counted(len(shared), dimension)} that have both groups"
    found = _rows(made, values, flip_test(values, alone, seed), alone, words, note)
    return found.assign(n_prompts=n_prompts)


def _between(
    made: Sides, parts: list[list[str]], names: tuple[str, str], dimension: str, seed: int
) -> pd.DataFrame:
    """Difference of the groups' means, with whole clusters permuted between the groups."""
    for name, labels in zip(names, parts, strict=True):
        if len(set(labels)) < 2:
            raise InputError(
                f"group {name!r} lies in 1 {dimension} and shares none with the other group, so "
                f"the groups cannot be told from two {dimension}s; give both groups prompts of the "
                f"same {dimension}s"
            )
    codes, known = pd.factorize(np.array(parts[0] + parts[1], dtype=object))
    values = np.concatenate([made.one.values, made.other.values])
    tested = permute_test(values, codes, np.isin(known, parts[0]), seed)
    words = f"{counted(len(known), dimension)} permuted between the groups"
    lacking = missing(made.one.prompts + made.other.prompts, values)
    found = _rows(made, values, tested, [codes], words, lacking)
    return found.assign(estimate=mean_of(made.one.values) - mean_of(made.other.values))


def _rows(
    made: Sides,
    values: np.ndarray,
    tested: PValues,
    codes: Sequence[np.ndarray],
    words: str,
    lacking: str,
) -> pd.DataFrame:
    n = np.minimum.reduce([(sums_by(values, one)[1] > 0).sum(0) for one in codes])
    few = [
        f"p cannot be below {one:.2g} with {k} clusters" if one > 0.05 else ""
        for one, k in zip(tested.smallest, n, strict=True)
    ]
    return made.cells.assign(
        estimate=mean_of(values),
        p=tested.p,
        p_max=tested.p_max,
        smallest_p=tested.smallest,
        n_prompts=(~np.isnan(values)).sum(0),
        n_clusters=n,
        test=words,
        note=["; ".join(filter(None, (one, lacking))) for one in few],
    )


def benjamini_hochberg(p: P) -> P:
    """Adjusted p that bound the false discovery rate; NaN stays NaN and is not counted.

    Source: Benjamini, Hochberg 1995, "Controlling the False Discovery Rate".
    """
    found, known = p.copy(), ~np.isnan(p)
    if known.any():
        found[known] = false_discovery_control(p[known])
    return found


def holm(p: P) -> P:
    """Adjusted p that bound the probability of any false positive; NaN is not counted.

    Source: Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure".
    """
    found, known = p.copy(), ~np.isnan(p)
    order = np.argsort(p[known])
    steps = np.arange(known.sum(), 0, -1)
    adjusted = np.maximum.accumulate(steps * p[known][order])
    found[np.flatnonzero(known)[order]] = np.minimum(adjusted, 1.0)
    return found
