"""Exact and random nulls: signs flipped by cluster, clusters permuted between groups."""

from collections.abc import Sequence
from itertools import combinations, product
from math import comb
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from knockgrid.stats.resample import sums_by, units_of

EXACT = 14  # clusters up to which all signs are listed: 2^13 patterns up to a common sign
DRAWS = 9999  # random patterns beyond that
PLAY = 1e-9  # of a statistic: patterns that tie with the data count as as extreme


class PValues(NamedTuple):
    """Of each cell: its own p, the smallest p it could have, and a p that holds for all at once."""

    p: Float[np.ndarray, " cell"]
    smallest: Float[np.ndarray, " cell"]
    p_max: Float[np.ndarray, " cell"]


class Null(NamedTuple):
    """Patterns `[pattern, cluster]`, whether they are all there are, and the smallest p."""

    patterns: Float[np.ndarray, "pattern cluster"]
    exact: bool
    smallest: float

    def p(self, observed: np.ndarray, null: np.ndarray) -> np.ndarray:
        """The share of patterns `[pattern, cell]` at least as extreme as the data `[cell]`.

        Random patterns and the data's own count together, so that p is never 0.
        """
        extreme = (np.abs(null) >= np.abs(observed) * (1 - PLAY)).sum(0)
        return (extreme + (not self.exact)) / (len(null) + (not self.exact))


def signs(n_clusters: int, seed: int = 0, draws: int = DRAWS) -> Null:
    """Signs of clusters: all patterns up to a common sign, or random ones beyond 14 clusters."""
    if n_clusters <= EXACT:
        free = np.array(list(product((1.0, -1.0), repeat=n_clusters - 1)))
        whole = np.concatenate([np.ones((len(free), 1)), free.reshape(len(free), -1)], axis=1)
        return Null(whole, True, 1 / len(whole))
    drawn = np.random.default_rng(seed).choice((1.0, -1.0), size=(draws, n_clusters))
    return Null(drawn, False, 1 / (draws + 1))


def splits(n_clusters: int, n_one: int, seed: int = 0, draws: int = DRAWS) -> Null:
    """Ways to choose the clusters of one group: all of them, or random ones if there are too many.

    Two groups of equally many clusters can be swapped without a change, which doubles the smallest
    p.
    """
    n, twice = comb(n_clusters, n_one), 2 if 2 * n_one == n_clusters else 1
    if n <= 2**EXACT:
        chosen = np.array(list(combinations(range(n_clusters), n_one)))
        drawn = np.zeros((n, n_clusters))
        np.put_along_axis(drawn, chosen, 1.0, axis=1)
        return Null(drawn, True, twice / n)
    rng = np.random.default_rng(seed)
    order = rng.permuted(np.tile(np.arange(n_clusters), (draws, 1)), axis=1)
    return Null((order < n_one).astype(float), False, 1 / (draws + 1))


def crossing(
    values: Float[np.ndarray, "prompt cell"], codes: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The dimension that is flipped, and how much wider its null is for the other one, `[cell]`.

    Signs of one dimension leave out what the other has in common. The null spread of a mean is the
    root of the summed squares of its clusters, which flips do not change: so the null is widened by
    two-way spread / one-way spread, as Cameron, Gelbach and Miller (2011) add variances, both
    taken around the null mean 0.
    """
    order = sorted(codes, key=lambda one: int(one.max()))
    if len(codes) == 1:
        return order[0], np.ones(values.shape[1])
    parts = [sums_by(values, one)[0] for one in (*order, units_of(codes)[1])]
    one, other, pairs = ((sums**2).sum(0) for sums in parts)
    both = np.maximum(one + other - pairs, np.maximum(one, other))
    ratio = both / np.where(one > 0, one, 1.0)
    return order[0], np.where(one > 0, np.sqrt(ratio), np.where(both > 0, np.inf, 1.0))


def flip_test(
    values: Float[np.ndarray, "prompt cell"], codes: Sequence[np.ndarray], seed: int = 0
) -> PValues:
    """Test mean 0 in each cell, with signs flipped by cluster, all cells alike.

    Exact where the sums of the clusters are symmetric around 0. With two dimensions in `codes` the
    one with fewer clusters is flipped, under a null widened for the other. A cell without values
    has no p.

    `p_max` compares with the largest |t| of every flip. A cell's t is the sum of its clusters by
    the root of their summed squares, which flips do not change. Cells that move together cost
    little, where Bonferroni and Holm divide by their number: 10 clusters over 30 layers can reach
    p = 0.002 here, 0.06 there.

    Source: Westfall, Young 1993, "Resampling-Based Multiple Testing" (single-step max-T).
    """
    flipped, wider = crossing(values, codes)
    sums, counts = sums_by(values, flipped)
    p, least, family = np.full((3, values.shape[1]), np.nan)
    present = counts > 0
    for pattern in np.unique(present, axis=1).T:
        here = (present == pattern[:, None]).all(0)
        if pattern.any():
            null = signs(int(pattern.sum()), seed)
            kept = sums[np.ix_(pattern, here)]
            p[here] = null.p(kept.sum(0) / wider[here], null.patterns @ kept)
            least[here] = null.smallest
    some = present.any(1)
    if some.any():
        null = signs(int(some.sum()), seed)
        spread = np.sqrt((sums**2).sum(0))
        scaled = np.divide(sums, spread, out=np.zeros_like(sums), where=spread > 0)[some]
        largest = np.abs(null.patterns @ scaled).max(1, keepdims=True)
        family = np.where(present.any(0), null.p(scaled.sum(0) / wider, largest), np.nan)
    return PValues(p, least, family)


def permute_test(
    values: Float[np.ndarray, "prompt cell"],
    codes: np.ndarray,
    of_one: np.ndarray,
    seed: int = 0,
) -> PValues:
    """Test equal means of two groups of whole clusters, with group labels permuted among them.

    `of_one` says for each cluster whether it is of the first group. The statistic is the difference
    of means by its cluster-robust standard error, so that groups of unequal spread do not pass for
    groups of unequal means.
    """
    sums, counts = sums_by(values, codes)
    null = splits(len(of_one), int(of_one.sum()), seed)

    def t(w: np.ndarray) -> np.ndarray:
        (one, error), (other, rest) = (mean_and_error(part, sums, counts) for part in (w, 1 - w))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(one == other, 0.0, (one - other) / np.hypot(error, rest))

    observed, permuted = t(of_one[None].astype(float))[0], np.abs(t(null.patterns))
    permuted = np.nan_to_num(permuted, nan=np.inf)
    p, family = null.p(observed, permuted), null.p(observed, permuted.max(1, keepdims=True))
    absent = np.isnan(observed)
    least = np.full(len(p), null.smallest)
    return PValues(np.where(absent, np.nan, p), least, np.where(absent, np.nan, family))


def mean_and_error(
    w: np.ndarray, sums: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and cluster-robust standard error `[pattern, cell]` of clusters times 1, 0 or -1."""
    chosen = np.abs(w)
    k, n = chosen.sum(1, keepdims=True), chosen @ counts
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = w @ sums / n
        rest = chosen @ sums**2 - 2 * mean * (w @ (sums * counts))
        rest = np.maximum(rest + mean**2 * (chosen @ counts**2), 0)
        return mean, np.sqrt(k / (k - 1) * rest) / n
