"""compare: whether two interventions, groups or models differ, cell by cell."""

import numpy as np
import pandas as pd

from knockgrid.errors import InputError
from knockgrid.stats.clusters import By, Clusters, clusters, counted, fewest
from knockgrid.stats.flips import flip_family, flip_test, permute_family, permute_test, sums_by
from knockgrid.stats.multiplicity import benjamini_hochberg, holm
from knockgrid.stats.sides import Sides, Tables, differences, sides
from knockgrid.table.by_prompt import ByPrompt
from knockgrid.table.table import KEY, metadata_of


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
    over many layers, whatever the data (its smallest is that p times their number): take `p_max`.

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
        Pitman 1937 (randomisation tests); Phipson, Smyth 2010 (random
        patterns); Janssen 1997 (studentised permutation).
    Limit: flips are exact where the clusters' differences are symmetric around 0; with crossed
        clusters they err on the side of too large a p (docs/statistics.md has the rates).
    """
    made = sides(table, one, other, metric, of)
    if made.kind == "group" and isinstance(table, pd.DataFrame):
        found = _groups(made, table, (one, str(other)), by, seed)
    else:
        found = _paired(made, clusters(made.table, by), seed)
    found = found.assign(
        p_bh=benjamini_hochberg(found["p"].to_numpy(float)),
        p_holm=holm(found["p"].to_numpy(float)),
    )
    first = [*made.cells, "estimate", "p", "p_max", "p_bh", "p_holm", "smallest_p"]
    found = found[[*first, *(name for name in found if name not in first)]]
    contrast = {"metric": metric, "contrast": f"{one} − {other}"}
    found.attrs = {KEY: {**metadata_of(made.table), **contrast}}
    return found


def _paired(made: Sides, groups: Clusters, seed: int) -> pd.DataFrame:
    values = differences(made)
    p, least = flip_test(values, groups.codes(), seed)
    family = flip_family(values, groups.codes(), seed)
    words = counted(min(groups.counts), fewest(groups))
    if len(groups.counts) > 1:
        words += f", widened for {groups.words}"
    missing = ByPrompt(made.one.prompts, made.cells, values).missing()
    found = _rows(made, values, p, least, groups, f"signs flipped by {words}", missing)
    return found.assign(p_max=family)


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
    shared = [one for one in dict.fromkeys(parts[0]) if one in set(parts[1])]
    if shared:
        return _within(made, parts, shared, dimension, seed)
    return _between(made, parts, names, dimension, seed)


def _within(
    made: Sides, parts: list[list[str]], shared: list[str], dimension: str, seed: int
) -> pd.DataFrame:
    """Differences of the groups' means inside the clusters that have both."""
    means = []
    for side, labels in zip((made.one, made.other), parts, strict=True):
        kept = np.array([label in shared for label in labels])
        codes = np.array([shared.index(label) for label in labels if label in shared])
        sums, counts = sums_by(side.values[kept], codes)
        means.append(sums / np.where(counts > 0, counts, np.nan))
    values = means[0] - means[1]
    alone = [np.arange(len(shared))]
    p, least = flip_test(values, alone, seed)
    words = counted(len(shared), dimension)
    groups = Clusters(tuple(shared), {dimension: tuple(shared)}, words)
    left = sorted((set(parts[0]) | set(parts[1])) - set(shared))
    note = f"left out, in one group only: {', '.join(left)}" if left else ""
    test = f"signs flipped by {words} that have both groups"
    found = _rows(made, values, p, least, groups, test, note)
    used = [np.array([one in shared for one in labels]) for labels in parts]
    n = [(~np.isnan(s.values[u])).sum(0) for s, u in zip((made.one, made.other), used, strict=True)]
    return found.assign(n_prompts=n[0] + n[1], p_max=flip_family(values, alone, seed))


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
    of_one = np.array([label in set(parts[0]) for label in known])
    values = np.concatenate([made.one.values, made.other.values])
    p, least = permute_test(values, codes, of_one, seed)
    family = permute_family(values, codes, of_one, seed)
    first = np.arange(len(values)) < len(made.one.values)
    words = f"{counted(len(known), dimension)} permuted between the groups"
    groups = Clusters(tuple(map(str, codes)), {dimension: tuple(parts[0] + parts[1])}, words)
    prompts = made.one.prompts + made.other.prompts
    missing = ByPrompt(prompts, made.cells, values).missing()
    found = _rows(made, values, p, np.full(len(p), least), groups, words, missing)
    return found.assign(estimate=_mean(values[first]) - _mean(values[~first]), p_max=family)


def _mean(values: np.ndarray) -> np.ndarray:
    n = (~np.isnan(values)).sum(0)
    return np.nansum(values, axis=0) / np.where(n > 0, n, np.nan)


def _rows(
    made: Sides,
    values: np.ndarray,
    p: np.ndarray,
    least: np.ndarray,
    groups: Clusters,
    test: str,
    missing: str,
) -> pd.DataFrame:
    known = ~np.isnan(values)
    present = [sums_by(values, codes)[1] > 0 for codes in groups.codes()]
    n = np.minimum.reduce([one.sum(0) for one in present])
    few = [
        f"p cannot be below {one:.2g} with {k} clusters" if one > 0.05 else ""
        for one, k in zip(least, n, strict=True)
    ]
    return made.cells.assign(
        estimate=_mean(values),
        p=p,
        smallest_p=least,
        n_prompts=known.sum(0),
        n_clusters=n,
        test=test,
        note=["; ".join(filter(None, (one, missing))) for one in few],
    )
