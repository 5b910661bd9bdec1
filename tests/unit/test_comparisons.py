"""Tests between interventions, groups and tables: oracles, rates of false positives, refusals."""

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import label
from scipy.stats import false_discovery_control, norm, permutation_test
from tables import correlated, made_of

import knockgrid as kg
from knockgrid.stats.cluster_mass import masses
from knockgrid.stats.compare import benjamini_hochberg, holm
from knockgrid.stats.flips import DRAWS, crossing, flip_test, permute_test, signs, splits

RUNS = 1000  # null data sets; the binomial standard error of a rate of 0.05 is 0.007
RATE = 0.05 + 3 * 0.007


RELATIONS = [f"r{i // 3}" for i in range(24)]
CODES = np.repeat(np.arange(8), 3)


# p-values


def test_sign_flips_are_those_of_scipy():
    values = np.random.default_rng(0).normal(0.4, 1.0, size=(8, 1))
    p, smallest, _ = flip_test(values, [np.arange(8)])
    oracle = permutation_test(
        (values[:, 0],), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert p[0] == pytest.approx(oracle.pvalue)
    assert smallest[0] == 2 / 2**8


def test_sign_flips_move_whole_clusters_of_unequal_size():
    rng = np.random.default_rng(1)
    codes, values = np.array([0, 0, 0, 1, 2, 2, 3, 4]), rng.normal(0.5, size=(8, 2))
    values[3, 1] = np.nan  # cluster 1 is not in the second cell
    p, smallest, _ = flip_test(values, [codes])
    for cell, kept in ((0, range(5)), (1, [0, 2, 3, 4])):
        sums = np.array([np.nansum(values[codes == g, cell]) for g in kept])
        flipped = [abs(np.dot(s, sums)) for s in product((1, -1), repeat=len(sums))]
        expected = np.mean(np.array(flipped) >= abs(sums.sum()) - 1e-12)
        assert p[cell] == pytest.approx(expected)
        assert smallest[cell] == 2 / 2 ** len(sums)


def test_random_patterns_never_give_p_zero():
    p, smallest, _ = flip_test(np.ones((30, 1)), [np.arange(30)])
    assert p[0] == smallest[0] == 1 / (DRAWS + 1)
    assert signs(15).exact is False
    assert signs(14).exact is True


def test_permutations_are_those_of_brute_force():
    rng = np.random.default_rng(2)
    codes, values = np.array([0, 0, 1, 2, 2, 2, 3, 4, 4, 5]), rng.normal(size=(10, 20))
    of_one = np.array([True, True, False, False, False, False])

    def t(chosen, cell):
        found = []
        for side in (chosen, [g for g in range(6) if g not in chosen]):
            y = np.concatenate([values[codes == g, cell] for g in side])
            rest = [np.sum(values[codes == g, cell] - y.mean()) for g in side]
            k = len(side)
            found.append((y.mean(), k / (k - 1) * np.sum(np.square(rest)) / len(y) ** 2))
        return (found[0][0] - found[1][0]) / np.sqrt(found[0][1] + found[1][1])

    p, smallest, family = permute_test(values, codes, of_one)
    every = [list(chosen) for chosen in combinations(range(6), 2)]
    null = np.abs([[t(chosen, cell) for cell in range(20)] for chosen in every])
    observed = np.abs([t([0, 1], cell) for cell in range(20)]) - 1e-9
    np.testing.assert_allclose(p, (null >= observed).mean(0))
    np.testing.assert_allclose(family, (null.max(1, keepdims=True) >= observed).mean(0))
    assert (smallest == 1 / 15).all()
    assert splits(6, 3).smallest == 2 / 20
    assert splits(7, 3).smallest == 1 / 35
    many = splits(20, 10)
    assert not many.exact
    assert (many.patterns.sum(1) == 10).all()


def test_adjusted_p_against_oracles():
    p = np.random.default_rng(3).uniform(size=12) ** 3
    np.testing.assert_allclose(benjamini_hochberg(p), false_discovery_control(p))
    by_hand = [
        max(
            min(1.0, (len(p) - rank) * value)
            for rank, value in enumerate(sorted(p))
            if value <= one
        )
        for one in p
    ]
    np.testing.assert_allclose(holm(p), by_hand)
    with_hole = np.insert(p, 4, np.nan)
    np.testing.assert_allclose(np.delete(holm(with_hole), 4), holm(p))
    np.testing.assert_allclose(np.delete(benjamini_hochberg(with_hole), 4), benjamini_hochberg(p))
    assert np.isnan([holm(with_hole)[4], benjamini_hochberg(with_hole)[4]]).all()
    assert np.isnan(holm(np.array([np.nan]))).all()


def test_the_family_of_flips_is_that_of_brute_force():
    rng = np.random.default_rng(5)
    values, codes = rng.normal(0.4, 1, (14, 3)), np.array([i % 7 for i in range(14)])
    sums = np.stack([values[codes == g].sum(0) for g in range(7)])
    scaled = sums / np.sqrt((sums**2).sum(0))
    largest = [np.abs(np.array(one) @ scaled).max() for one in product((1.0, -1.0), repeat=7)]
    expected = [np.mean(np.array(largest) >= t - 1e-12) for t in np.abs(scaled.sum(0))]
    np.testing.assert_allclose(flip_test(values, [codes]).p_max, expected)


@pytest.mark.parametrize("test", [flip_test, permute_test])
def test_a_family_rejects_a_true_null_no_more_often_than_it_says(test):
    """In any of ten layers that hang together, over 400 data sets without an effect."""
    rng = np.random.default_rng(7)
    rejected = 0
    for _ in range(400):
        values = rng.normal(0, 1, (8, 1)) + rng.normal(0, 1, (8, 10))
        given = (np.arange(8), np.arange(8) < 4) if test is permute_test else ([np.arange(8)],)
        rejected += test(values, *given).p_max.min() <= 0.05
    assert 0.01 < rejected / 400 <= 0.05 + 2 * (0.05 * 0.95 / 400) ** 0.5


def test_a_layer_without_values_has_no_family_p():
    values = np.ones((6, 2))
    values[:, 1] = np.nan
    found = flip_test(values, [np.arange(6)]).p_max
    assert found[0] == 1 / 32
    assert np.isnan(found[1])


# rates of false positives on null data


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.9])
def test_false_positives_of_flips_and_permutations(correlation):
    codes = np.repeat(np.arange(10), np.arange(2, 12))
    values = correlated(np.random.default_rng(4), codes, correlation, RUNS)
    assert 0.02 < np.mean(flip_test(values, [codes]).p <= 0.05) <= RATE
    if correlation:  # prompts flipped one by one, as if they were independent
        assert np.mean(flip_test(values[:, :300], [np.arange(len(codes))]).p <= 0.05) > 0.2
    # values as skewed as divergences are; the second group has more and larger clusters
    codes = np.repeat(np.arange(12), [3, 4, 5, 6, 7] + [4, 6, 8, 10, 12, 4, 6])
    z = correlated(np.random.default_rng(5), codes, correlation, RUNS)
    p = permute_test(norm.cdf(z) ** 2, codes, np.arange(12) < 5).p
    assert 0.02 < np.mean(p <= 0.05) <= RATE


def test_false_positives_where_clusters_cross():
    rng = np.random.default_rng(6)
    rows, columns = np.tile(np.arange(10), 6), np.repeat(np.arange(20), 3)
    parts = [rng.normal(size=(n, 500))[code] for n, code in ((10, rows), (20, columns))]
    values = np.sqrt(0.3) * (parts[0] + parts[1]) + np.sqrt(0.4) * rng.normal(size=(60, 500))
    p, smallest, _ = flip_test(values, [rows, columns])
    assert np.mean(p <= 0.05) <= 0.05 + 3 * 0.01
    assert smallest[0] == 2 / 2**10
    for one in (rows, columns):  # flips that see one dimension only
        assert np.mean(flip_test(values, [one])[0] <= 0.05) > np.mean(p <= 0.05)


def test_the_null_of_crossed_clusters_is_widened_by_two_way_spread():
    rng = np.random.default_rng(22)
    rows, columns = np.tile(np.arange(6), 4), np.repeat(np.arange(8), 3)
    y = rng.normal(0.3, 1.0, size=24)
    one = np.array([y[rows == g].sum() for g in range(6)])
    other = np.array([y[columns == g].sum() for g in range(8)])
    ways = (one**2).sum() + (other**2).sum() - (y**2).sum()
    wider = np.sqrt(max(ways, (one**2).sum(), (other**2).sum()) / (one**2).sum())
    null = [abs(np.dot(s, one)) * wider for s in product((1, -1), repeat=6)]
    p, *_ = flip_test(y[:, None], [columns, rows])
    assert wider > 1.01
    assert p[0] == pytest.approx(np.mean(np.array(null) >= abs(y.sum()) - 1e-9))


def test_false_positives_of_patches():
    rng = np.random.default_rng(7)
    place = np.arange(24).reshape(6, 4)
    smallest = []
    for _ in range(250):
        z = correlated(rng, CODES, 0.3, 24) + correlated(rng, CODES, 0.3, 1)
        found = masses(z, [CODES], place, 0.05)
        smallest.append(min((one["p"] for one in found), default=1.0))
    assert 0.01 < np.mean(np.array(smallest) <= 0.05) <= 0.05 + 3 * 0.014


# compare


def test_a_paired_comparison_of_interventions():
    rng = np.random.default_rng(8)
    parts = {name: rng.gamma(1.0, 0.1, size=(24, 3)) for name in ("subject", "control")}
    parts["subject"][:, 2] += 0.3
    found = kg.stats.compare(made_of(parts, RELATIONS), "subject", "control")
    apart = parts["subject"] - parts["control"]
    np.testing.assert_allclose(found.estimate, apart.mean(0))
    np.testing.assert_allclose(found.p, flip_test(apart, [CODES])[0])
    np.testing.assert_allclose(found.p_holm, holm(found.p.to_numpy()))
    np.testing.assert_allclose(found.p_bh, benjamini_hochberg(found.p.to_numpy()))
    assert found.layer.tolist() == [0, 1, 2]
    assert (found.test == "signs flipped by 8 relations").all()
    assert (found.smallest_p == 2 / 2**8).all()
    assert found.p[2] == 2 / 2**8
    kept = found.attrs["knockgrid"]
    assert (kept["unit"], kept["contrast"]) == ("nats", "subject − control")
    back = kg.stats.compare(made_of(parts, RELATIONS), "control", "subject")
    np.testing.assert_allclose(back.estimate, -found.estimate)


def test_interventions_with_other_layer_sets_doses_and_prompt_orders_are_paired():
    rng = np.random.default_rng(9)
    parts = {name: rng.gamma(1.0, 0.1, size=(8, 2)) for name in ("a", "b")}
    made = made_of(parts)
    plain = kg.stats.compare(made, "a", "b")
    made["layers"] = np.where(made.intervention == "a", "0", "0,1")
    made["alpha"] = pd.array(np.where(made.intervention == "a", 1.0, np.nan), dtype="Float64")
    mixed = made.sample(frac=1, random_state=1).sort_values("layer", kind="stable")
    found = kg.stats.compare(mixed.reset_index(drop=True), "a", "b")
    np.testing.assert_allclose(found.estimate, plain.estimate)
    np.testing.assert_allclose(found.estimate, (parts["a"] - parts["b"]).mean(0))
    np.testing.assert_allclose(found.p, plain.p)
    assert "alpha" not in found


def test_two_tables_are_paired_by_prompt():
    rng = np.random.default_rng(10)
    one, other = (rng.gamma(1.0, 0.1, size=(24, 2)) for _ in range(2))
    tables = {"A": made_of(one, RELATIONS), "B": made_of(other, RELATIONS)}
    found = kg.stats.compare(tables, "A", "B")
    np.testing.assert_allclose(found.estimate, (one - other).mean(0))
    assert found.intervention.tolist() == ["last", "last"]
    back = tables["B"].sort_values("layer", ascending=False)
    again = kg.stats.compare({"A": tables["A"], "B": back}, "A", "B")
    np.testing.assert_allclose(again.estimate, found.estimate)
    with pytest.raises(kg.InputError, match="unknown table 'C'"):
        kg.stats.compare(tables, "A", "C")
    tables["B"].attrs["knockgrid"]["unit"] = "bits"
    with pytest.raises(kg.InputError, match="nats and bits"):
        kg.stats.compare(tables, "A", "B")


def test_groups_are_compared_within_the_relations_that_have_both():
    rng = np.random.default_rng(11)
    values = rng.gamma(1.0, 0.1, size=(24, 1))
    groups = ["FA" if i % 3 else "AH" for i in range(21)] + ["FA"] * 3
    found = kg.stats.compare(made_of(values, RELATIONS, groups), "AH", "FA")
    apart = [values[3 * r, 0] - values[3 * r + 1 : 3 * r + 3, 0].mean() for r in range(7)]
    assert found.estimate[0] == pytest.approx(np.mean(apart))
    assert found.p[0] == pytest.approx(flip_test(np.array(apart)[:, None], [np.arange(7)])[0][0])
    assert found.test[0] == "signs flipped by 7 relations that have both groups"
    assert found.note[0] == "left out, in one group only: r7"
    assert found.n_prompts[0] == 21


def test_groups_of_their_own_relations_are_permuted():
    values = np.random.default_rng(12).gamma(1.0, 0.1, size=(24, 2))
    groups = ["AH"] * 12 + ["FA"] * 12
    found = kg.stats.compare(made_of(values, RELATIONS, groups), "AH", "FA")
    np.testing.assert_allclose(found.estimate, values[:12].mean(0) - values[12:].mean(0))
    expected, least, _ = permute_test(values, CODES, np.arange(8) < 4)
    np.testing.assert_allclose(found.p, expected)
    assert (found.smallest_p == least).all()
    assert found.test[0] == "8 relations permuted between the groups"
    assert found.n_clusters.tolist() == [8, 8]


def test_cells_without_a_value_are_named():
    parts = {name: np.random.default_rng(13).gamma(1.0, size=(8, 2)) for name in ("a", "b")}
    made = made_of(parts)
    lost = (made.layer == 1) & (made.prompt == "p5") & (made.intervention == "a")
    made.loc[lost, ["js", "status"]] = [np.nan, "NA: no edge"]
    found = kg.stats.compare(made, "a", "b")
    assert found.n_prompts.tolist() == [8, 7]
    assert (found.note == "no value in some cells of 1 prompts: p5").all()
    kept = np.arange(8) != 5
    apart = parts["a"] - parts["b"]
    assert found.estimate[1] == pytest.approx(apart[kept, 1].mean())
    made.loc[lost, "status"] = "ok"
    with pytest.raises(kg.InputError, match="NaN in 1 rows whose status is 'ok'.*'p5'"):
        kg.stats.compare(made, "a", "b")


def test_few_clusters_say_what_p_they_can_reach():
    rng = np.random.default_rng(14)
    made = made_of({"a": rng.gamma(1.0, size=(4, 1)) + 9, "b": rng.gamma(1.0, size=(4, 1))})
    found = kg.stats.compare(made, "a", "b")
    assert found.p[0] == found.smallest_p[0] == 0.125
    assert found.note[0] == "p cannot be below 0.12 with 4 clusters"


VALUES = np.random.default_rng(15).gamma(1.0, size=(8, 2))
PAIR = made_of({"a": VALUES, "b": VALUES + 1})
LONELY = made_of(VALUES, ["r"] * 8, ["x"] * 7 + ["y"])
NESTED = made_of(VALUES, ["r0"] * 2 + ["r1"] * 2 + ["r2"] * 4, ["x"] * 4 + ["y"] * 4)
IN_A, IN_B = PAIR.intervention == "a", PAIR.intervention == "b"


@pytest.mark.parametrize(
    ("table", "sides", "words"),
    [
        *((PAIR, ("a", zero), "never negative.*give a control") for zero in (0, 0.0, None, "0")),
        (PAIR[~(IN_B & PAIR.prompt.isin(["p1", "p3"]))], "ab", "the other side lacks 2: p1, p3"),
        (PAIR[~(IN_A & (PAIR.prompt == "p2"))], "ab", "first side lacks 1: p2"),
        (PAIR[~(IN_B & (PAIR.layer == 1))], "ab", "1 cells are on one .*first layer 1, token 0"),
        (PAIR, "aa", "both sides are 'a'"),
        (PAIR, "ac", "unknown intervention 'c'"),
        (LONELY, "xy", "group 'y' has 1 prompt;"),
        (LONELY, "xz", "unknown group 'z'"),
        (NESTED, "xy", "group 'y' lies in 1 relation"),
    ],
)
def test_what_comparisons_refuse(table, sides, words):
    with pytest.raises(kg.InputError, match=words):
        kg.stats.compare(table, *sides)


# cluster_mass


def patchy(rng, n=24):
    parts = {name: rng.gamma(1.0, 0.1, size=(n, 6, 4)) for name in ("a", "b")}
    parts["a"][:, 2:4, 1:3] += 0.3
    return parts


def test_a_patch_that_is_there_is_found():
    parts = patchy(np.random.default_rng(16))
    made = made_of(parts, RELATIONS, columns=("layer", "token"))
    found = kg.stats.cluster_mass(made, "a", "b")
    first = found.iloc[0]
    assert set(product((2, 3), (1, 2))) <= set(first["cells"])
    assert first["sign"] == 1
    assert first["p"] == first["smallest_p"] == 2 / 2**8
    assert first["test"] == "signs flipped by 8 relations"
    apart = (parts["a"] - parts["b"]).reshape(24, 24)
    sums = np.array([apart[g == CODES].sum(0) for g in range(8)])
    means = sums / 3
    t = means.mean(0) / (means.std(0, ddof=1) / np.sqrt(8))
    grid = t.reshape(6, 4)
    number, _ = label(grid > 2.3646)
    here = number == number[2, 1]
    assert first["mass"] == pytest.approx(grid[here].sum())
    assert first["size"] == here.sum()


def test_the_p_of_patches_against_brute_force():
    rng = np.random.default_rng(17)
    values, place = rng.normal(0.35, 1.0, size=(7, 12)), np.arange(12).reshape(4, 3)

    def heaviest(flipped):
        t = flipped.mean(0) / (flipped.std(0, ddof=1) / np.sqrt(7))
        grid, found = t.reshape(4, 3), [0.0]
        for sign in (1, -1):
            number, n = label(sign * grid > 1.4398)  # alpha 0.2, 6 degrees of freedom
            found += [abs(grid[number == k + 1].sum()) for k in range(n)]
        return max(found)

    null = [heaviest(values * np.array(s)[:, None]) for s in product((1, -1), repeat=7)]
    found = masses(values, [np.arange(7)], place, 0.2)
    assert found
    for one in found:
        expected = np.mean(np.array(null) >= abs(one["mass"]) - 1e-9)
        assert one["p"] == pytest.approx(expected)


def test_the_mass_of_a_patch_shrinks_where_clusters_cross():
    rng = np.random.default_rng(26)
    rows, columns = np.tile(np.arange(8), 3), np.repeat(np.arange(12), 2)
    values, place = 2 + rng.normal(size=(12, 3))[columns], np.arange(3).reshape(1, 3)
    (alone,), (both,) = (masses(values, c, place, 0.2) for c in ([rows], [rows, columns]))
    _, wider = crossing(values, [rows, columns])
    sums = np.array([values[rows == g].sum(0) for g in range(8)])
    t = sums.mean(0) / (sums.std(0, ddof=1) / np.sqrt(8))
    assert (wider > 1).all()
    assert alone["mass"] == pytest.approx(t.sum())
    assert both["mass"] == pytest.approx((t / wider).sum())


PATCHLESS = {name: np.ones((8, 2, 2)) for name in ("a", "b")}
LEVEL = made_of(PATCHLESS, columns=("layer", "token"))
GROUPED = made_of(PATCHLESS["a"], None, ["a", "b"] * 4, ("layer", "token"))


@pytest.mark.parametrize(
    ("table", "more", "words"),
    [
        (LEVEL, {"alpha": 5}, "alpha 5 is not between 0 and 1"),
        (LEVEL, {"columns": "head"}, "give 'token' or 'position'"),
        (made_of(PATCHLESS, columns=("layer", "head")), {}, "has several cells"),
        (LEVEL, {"by": {f"p{i}": 0 for i in range(8)}}, "cannot be flipped by one cluster"),
        (GROUPED, {}, "for groups take compare"),
    ],
)
def test_what_patches_refuse_and_when_there_are_none(table, more, words):
    assert kg.stats.cluster_mass(LEVEL, "a", "b").empty
    with pytest.raises(kg.InputError, match=words):
        kg.stats.cluster_mass(table, "a", "b", **more)
