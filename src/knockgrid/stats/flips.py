"""Exact and random nulls: signs flipped by cluster, clusters permuted between groups."""

from collections.abc import Sequence
from itertools import combinations, product
from math import comb
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

EXACT = 14  # clusters up to which all signs are listed: 2^13 patterns up to a common sign
DRAWS = 9999  # random patterns beyond that
PLAY = 1e-9  # of a statistic: patterns that tie with the data count as as extreme


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
        count = len(null) if self.exact else len(null) + 1
        return (extreme if self.exact else extreme + 1) / count


def signs(n_clusters: int, seed: int = 0, draws: int = DRAWS) -> Null:
    """Signs for each cluster: all patterns up to a common sign, or random ones beyond 14 clusters.

    Example:
        >>> null = signs(6)
        >>> null.patterns.shape, null.exact, null.smallest
        ((32, 6), True, 0.03125)
    """
    if n_clusters <= EXACT:
        free = np.array(list(product((1.0, -1.0), repeat=n_clusters - 1)))
        whole = np.concatenate([np.ones((len(free), 1)), free.reshape(len(free), -1)], axis=1)
        return Null(whole, True, 1 / len(whole))
    drawn = np.random.default_rng(seed).choice((1.0, -1.0), size=(draws, n_clusters))
    return Null(drawn, False, 1 / (draws + 1))


def splits(n_clusters: int, n_one: int, seed: int = 0, draws: int = DRAWS) -> Null:
    """Ways to choose the clusters of one group: all of them, or random ones if there are too many.

    Example:
        >>> splits(6, 3).patterns.shape, splits(6, 3).smallest, splits(6, 2).smallest
        ((20, 6), 0.1, 0.06666666666666667)

    Two groups of equally many clusters can be swapped without a change, which doubles the smallest
    p.
    """
    n, twice = comb(n_clusters, n_one), 2 if 2 * n_one == n_clusters else 1
    if n <= 2**EXACT:
        drawn = np.zeros((n, n_clusters))
        for row, chosen in zip(drawn, combinations(range(n_clusters), n_one), strict=True):
            row[list(chosen)] = 1.0
        return Null(drawn, True, twice / n)
    rng = np.random.default_rng(seed)
    order = rng.permuted(np.tile(np.arange(n_clusters), (draws, 1)), axis=1)
    return Null((order < n_one).astype(float), False, 1 / (draws + 1))


def sums_by(
    values: Float[np.ndarray, "prompt cell"], codes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sums and counts `[cluster, cell]` of the values that are there.

    Example:
        >>> sums_by(np.array([[1.0], [2.0], [4.0]]), np.array([0, 0, 1]))[0].tolist()
        [[3.0], [4.0]]
    """
    known = ~np.isnan(values)
    sums = np.zeros((int(codes.max()) + 1, values.shape[1]))
    counts = np.zeros_like(sums)
    np.add.at(sums, codes, np.where(known, values, 0.0))
    np.add.at(counts, codes, known)
    return sums, counts


def crossing(
    values: Float[np.ndarray, "prompt cell"], codes: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The dimension that is flipped, and how much wider its null is for the other one, `[cell]`.

    Example:
        >>> values = np.array([[1.0], [1.0], [-1.0], [-1.0]])
        >>> codes, wider = crossing(values, [np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1])])
        >>> codes.tolist(), crossing(values, [codes])[1].tolist()
        ([0, 1, 0, 1], [1.0])

    Signs of one dimension leave out what the other has in common. The null spread of a mean is the
    root of the summed squares of its clusters, which flips do not change: so the null is widened by
    two-way spread / one-way spread, as Cameron, Gelbach and Miller (2011) add variances, both
    taken around the null mean 0.
    """
    order = sorted(codes, key=lambda one: int(one.max()))
    squares = [(sums_by(values, one)[0] ** 2).sum(0) for one in order]
    if len(codes) == 1:
        return order[0], np.ones(values.shape[1])
    pairs = np.unique(np.stack(codes, axis=1), axis=0, return_inverse=True)[1].ravel()
    both = squares[0] + squares[1] - (sums_by(values, pairs)[0] ** 2).sum(0)
    both = np.maximum(both, np.maximum(*squares))
    some = squares[0] > 0
    ratio = both / np.where(some, squares[0], 1.0)
    return order[0], np.where(some, np.sqrt(ratio), np.where(both > 0, np.inf, 1.0))


def flip_test(
    values: Float[np.ndarray, "prompt cell"], codes: Sequence[np.ndarray], seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """p and the smallest attainable p `[cell]` of mean 0, with signs flipped by cluster.

    Example:
        >>> p, smallest = flip_test(np.ones((6, 1)), [np.arange(6)])
        >>> p.tolist(), smallest.tolist()
        ([0.03125], [0.03125])

    Exact where the sums of the clusters are symmetric around 0. With two dimensions in `codes` the
    one with fewer clusters is flipped, under a null widened for the other. A cell without values
    has no p.
    """
    flipped, wider = crossing(values, codes)
    sums, counts = sums_by(values, flipped)
    p, least = np.full((2, values.shape[1]), np.nan)
    present = counts > 0
    for pattern in np.unique(present, axis=1).T:
        here = (present == pattern[:, None]).all(0)
        if pattern.any():
            null = signs(int(pattern.sum()), seed)
            kept = sums[np.ix_(pattern, here)]
            p[here] = null.p(kept.sum(0) / wider[here], null.patterns @ kept)
            least[here] = null.smallest
    return p, least


def flip_family(
    values: Float[np.ndarray, "prompt cell"], codes: Sequence[np.ndarray], seed: int = 0
) -> np.ndarray:
    """p `[cell]` that holds for all cells at once: against the largest |t| of every flip.

    Example:
        >>> flip_family(np.ones((6, 2)), [np.arange(6)]).tolist()
        [0.03125, 0.03125]

    A cell's t is the sum of its clusters by the root of their summed squares, which flips do not
    change; all cells are flipped alike. Cells that move together cost little, where Bonferroni and
    Holm divide by their number: 10 clusters over 30 layers can reach p = 0.002 here, 0.06 there.

    Source: Westfall, Young 1993, "Resampling-Based Multiple Testing" (single-step max-T).
    """
    flipped, wider = crossing(values, codes)
    sums, counts = sums_by(values, flipped)
    spread = np.sqrt((sums**2).sum(0))
    scaled = np.divide(sums, spread, out=np.zeros_like(sums), where=spread > 0)
    observed = np.abs(scaled.sum(0)) / wider
    present = (counts > 0).any(1)
    if not present.any():
        return np.full(values.shape[1], np.nan)
    null = signs(int(present.sum()), seed)
    largest = np.abs(null.patterns @ scaled[present]).max(1, keepdims=True)
    return np.where((counts > 0).any(0), null.p(observed, largest), np.nan)


def permute_test(
    values: Float[np.ndarray, "prompt cell"],
    codes: np.ndarray,
    of_one: np.ndarray,
    seed: int = 0,
) -> tuple[np.ndarray, float]:
    """p `[cell]` of equal means of two groups of whole clusters, and the smallest attainable p.

    Example:
        >>> values = np.array([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]])
        >>> p, least = permute_test(values, np.arange(6), np.array([True] * 3 + [False] * 3))
        >>> p.tolist(), least
        ([0.1], 0.1)

    `of_one` says for each cluster whether it is of the first group. Group labels are permuted among
    clusters; the statistic is the difference of means by its cluster-robust standard error, so that
    groups of unequal spread do not pass for groups of unequal means.
    """
    null, observed, permuted = _permuted(values, codes, of_one, seed)
    p = null.p(observed, permuted)
    return np.where(np.isnan(observed), np.nan, p), null.smallest


def permute_family(
    values: Float[np.ndarray, "prompt cell"],
    codes: np.ndarray,
    of_one: np.ndarray,
    seed: int = 0,
) -> np.ndarray:
    """p `[cell]` of `permute_test` that holds for all cells at once, as `flip_family`.

    Example:
        >>> values = np.array([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]])
        >>> permute_family(values, np.arange(6), np.array([True] * 3 + [False] * 3)).tolist()
        [0.1]
    """
    null, observed, permuted = _permuted(values, codes, of_one, seed)
    p = null.p(observed, permuted.max(1, keepdims=True))
    return np.where(np.isnan(observed), np.nan, p)


def _permuted(
    values: np.ndarray, codes: np.ndarray, of_one: np.ndarray, seed: int
) -> tuple[Null, np.ndarray, np.ndarray]:
    """The null, the data's t `[cell]`, and |t| of every pattern `[pattern, cell]`."""
    sums, counts = sums_by(values, codes)
    null = splits(len(of_one), int(of_one.sum()), seed)
    observed = _difference(of_one[None].astype(float), sums, counts)[0]
    permuted = np.abs(np.nan_to_num(_difference(null.patterns, sums, counts), nan=np.inf))
    return null, observed, permuted


def _difference(w: np.ndarray, sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Difference of two means by its standard error `[pattern, cell]`."""
    means, squares = [], []
    for one in (w, 1 - w):
        k, n = one.sum(1, keepdims=True), one @ counts
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = one @ sums / n
            rest = one @ sums**2 - 2 * mean * (one @ (sums * counts)) + mean**2 * (one @ counts**2)
            means.append(mean)
            squares.append(k / (k - 1) * np.maximum(rest, 0) / n**2)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (means[0] - means[1]) / np.sqrt(squares[0] + squares[1])
    return np.where(means[0] == means[1], 0.0, found)
