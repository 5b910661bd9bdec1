"""Tests between interventions, groups and tables; onset and peak: oracles, rates, refusals."""

import itertools
from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import label
from scipy.stats import false_discovery_control, norm, permutation_test

import knockgrid as kg
from knockgrid.stats.cluster_interval import widened
from knockgrid.stats.cluster_mass import masses
from knockgrid.stats.flips import (
    DRAWS,
    crossing,
    flip_test,
    permute_test,
    signs,
    splits,
)
from knockgrid.stats.multiplicity import benjamini_hochberg, holm
from knockgrid.stats.onset import falling, rising
from knockgrid.stats.peak import peaks
from knockgrid.stats.resample import resample
from knockgrid.table.table import build

RUNS = 1000  # null data sets; the binomial standard error of a rate of 0.05 is 0.007
RATE = 0.05 + 3 * 0.007


def correlated(rng, codes, correlation, runs):
    shared = rng.normal(size=(codes.max() + 1, runs))[codes]
    own = rng.normal(size=(len(codes), runs))
    return np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own


def made_of(parts, relations=None, groups=None, columns=("layer",), **metadata):
    """A table of one array `[prompt, layer, …]` per intervention, with its prompts' relations."""
    n = len(next(iter(parts.values())))
    sides = [{"id": f"p{i}", "relation": relations[i] if relations else None} for i in range(n)]
    rows = [
        {
            "prompt": f"p{i}",
            "group": groups[i] if groups else None,
            "intervention": name,
            **dict(zip(columns, place, strict=True)),
            "js": float(values[(i, *place)]),
        }
        for name, values in parts.items()
        for i in range(n)
        for place in np.ndindex(values.shape[1:])
    ]
    return build(rows, {"unit": "nats", "prompts": sides, **metadata})


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

    p, smallest, _ = permute_test(values, codes, of_one)
    for cell in range(20):
        null = [abs(t(list(chosen), cell)) for chosen in combinations(range(6), 2)]
        assert p[cell] == pytest.approx(np.mean(np.array(null) >= abs(t([0, 1], cell)) - 1e-9))
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


# rates of false positives on null data


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.9])
def test_false_positives_of_flips(correlation):
    codes = np.repeat(np.arange(10), np.arange(2, 12))
    values = correlated(np.random.default_rng(4), codes, correlation, RUNS)
    assert 0.02 < np.mean(flip_test(values, [codes])[0] <= 0.05) <= RATE
    if correlation:  # prompts flipped one by one, as if they were independent
        assert np.mean(flip_test(values[:, :300], [np.arange(len(codes))])[0] <= 0.05) > 0.2


@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.9])
def test_false_positives_of_permutations(correlation):
    """Values as skewed as divergences are; the second group has more and larger clusters."""
    codes = np.repeat(np.arange(12), [3, 4, 5, 6, 7] + [4, 6, 8, 10, 12, 4, 6])
    z = correlated(np.random.default_rng(5), codes, correlation, RUNS)
    of_one = np.arange(12) < 5
    p, *_ = permute_test(norm.cdf(z) ** 2, codes, of_one)
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
    assert found.attrs["knockgrid"]["contrast"] == "subject − control"
    back = kg.stats.compare(made_of(parts, RELATIONS), "control", "subject")
    np.testing.assert_allclose(back.estimate, -found.estimate)


def test_interventions_with_other_layer_sets_and_prompt_orders_are_paired():
    rng = np.random.default_rng(9)
    parts = {name: rng.gamma(1.0, 0.1, size=(8, 2)) for name in ("a", "b")}
    made = made_of(parts)
    plain = kg.stats.compare(made, "a", "b")
    made["layers"] = np.where(made.intervention == "a", "0", "0,1")
    mixed = made.sample(frac=1, random_state=1).sort_values("layer", kind="stable")
    mixed.attrs = made.attrs
    found = kg.stats.compare(mixed.reset_index(drop=True), "a", "b")
    np.testing.assert_allclose(found.estimate, plain.estimate)
    np.testing.assert_allclose(found.p, plain.p)


def test_a_patch_with_its_dose_is_compared_with_a_knockout_that_has_none():
    rng = np.random.default_rng(23)
    parts = {name: rng.gamma(1.0, 0.1, size=(8, 2)) for name in ("patch", "knockout")}
    made = made_of(parts)
    made["alpha"] = np.where(made.intervention == "patch", 1.0, np.nan)
    made["alpha"] = made["alpha"].astype("Float64")
    found = kg.stats.compare(made, "patch", "knockout")
    np.testing.assert_allclose(found.estimate, (parts["patch"] - parts["knockout"]).mean(0))
    assert "alpha" not in found


def test_two_tables_are_paired_by_prompt():
    rng = np.random.default_rng(10)
    one, other = (rng.gamma(1.0, 0.1, size=(24, 2)) for _ in range(2))
    tables = {"A": made_of({"last": one}, RELATIONS), "B": made_of({"last": other}, RELATIONS)}
    found = kg.stats.compare(tables, "A", "B")
    np.testing.assert_allclose(found.estimate, (one - other).mean(0))
    assert found.intervention.tolist() == ["last", "last"]
    back = tables["B"].sort_values("layer", ascending=False)
    back.attrs = tables["B"].attrs
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
    found = kg.stats.compare(made_of({"last": values}, RELATIONS, groups), "AH", "FA")
    apart = [values[3 * r, 0] - values[3 * r + 1 : 3 * r + 3, 0].mean() for r in range(7)]
    assert found.estimate[0] == pytest.approx(np.mean(apart))
    assert found.p[0] == pytest.approx(flip_test(np.array(apart)[:, None], [np.arange(7)])[0][0])
    assert found.test[0] == "signs flipped by 7 relations that have both groups"
    assert found.note[0] == "left out, in one group only: r7"
    assert found.n_prompts[0] == 21


def test_groups_of_their_own_relations_are_permuted():
    values = np.random.default_rng(12).gamma(1.0, 0.1, size=(24, 2))
    groups = ["AH"] * 12 + ["FA"] * 12
    found = kg.stats.compare(made_of({"last": values}, RELATIONS, groups), "AH", "FA")
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


@pytest.mark.parametrize("zero", [0, 0.0, None, "0"])
def test_a_test_against_zero_is_refused(zero):
    made = made_of({"a": np.ones((8, 1))})
    with pytest.raises(kg.InputError, match="never negative.*give a control"):
        kg.stats.compare(made, "a", zero)


def test_what_comparisons_refuse():
    values = np.random.default_rng(15).gamma(1.0, size=(8, 2))
    made = made_of({"a": values, "b": values + 1})
    for bad, words in (
        (
            made[~((made.intervention == "b") & made.prompt.isin(["p1", "p3"]))],
            "the other side lacks 2: p1, p3",
        ),
        (made[~((made.intervention == "a") & (made.prompt == "p2"))], "first side lacks 1: p2"),
        (
            made[~((made.intervention == "b") & (made.layer == 1))],
            "1 cells are on one side only .first layer 1, token 0",
        ),
    ):
        bad.attrs = made.attrs
        with pytest.raises(kg.InputError, match=words):
            kg.stats.compare(bad, "a", "b")
    with pytest.raises(kg.InputError, match="both sides are 'a'"):
        kg.stats.compare(made, "a", "a")
    with pytest.raises(kg.InputError, match="unknown intervention 'c'"):
        kg.stats.compare(made, "a", "c")
    groups = ["x"] * 7 + ["y"]
    lonely = made_of({"a": values}, ["r"] * 8, groups)
    with pytest.raises(kg.InputError, match="group 'y' has 1 prompt;"):
        kg.stats.compare(lonely, "x", "y")
    with pytest.raises(kg.InputError, match="unknown group 'z'"):
        kg.stats.compare(lonely, "x", "z")
    nested = made_of({"a": values}, ["r0"] * 2 + ["r1"] * 2 + ["r2"] * 4, ["x"] * 4 + ["y"] * 4)
    with pytest.raises(kg.InputError, match="group 'y' lies in 1 relation"):
        kg.stats.compare(nested, "x", "y")


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


def test_what_patches_refuse_and_when_there_are_none():
    parts = {name: np.ones((8, 2, 2)) for name in ("a", "b")}
    made = made_of(parts, columns=("layer", "token"))
    assert kg.stats.cluster_mass(made, "a", "b").empty
    with pytest.raises(kg.InputError, match="alpha 5 is not between 0 and 1"):
        kg.stats.cluster_mass(made, "a", "b", alpha=5)
    with pytest.raises(kg.InputError, match="give 'token' or 'position'"):
        kg.stats.cluster_mass(made, "a", "b", columns="head")
    heads = made_of(parts, columns=("layer", "head"))
    with pytest.raises(kg.InputError, match="has several cells"):
        kg.stats.cluster_mass(heads, "a", "b")
    with pytest.raises(kg.InputError, match="cannot be flipped by one cluster"):
        kg.stats.cluster_mass(made, "a", "b", by={f"p{i}": 0 for i in range(8)})
    groups = made_of({"a": np.ones((8, 2, 2))}, None, ["x", "y"] * 4, ("layer", "token"))
    with pytest.raises(kg.InputError, match="for groups take compare"):
        kg.stats.cluster_mass(groups, "x", "y")


# onset and peak


def curves(rng, curve, codes, correlation=0.3, noise=0.1):
    """Curves `[prompt, layer]` around one, with heights that belong to the clusters."""
    height = np.exp(0.4 * correlated(rng, codes, correlation, 1))
    return height * curve + noise * np.abs(curve) * rng.normal(size=(len(codes), len(curve)))


RISE = np.array([0.0, 0.0, 0.02, 0.1, 0.3, 0.5, 0.58, 0.6])


def test_crossings_are_interpolated():
    x = np.arange(8.0)
    assert float(rising(RISE, x, 0.5)) == pytest.approx(4.0)
    assert float(rising(RISE, x, 0.1)) == pytest.approx(2.5)
    assert float(falling(RISE[::-1], x, 0.5)) == pytest.approx(3.0)
    bump = np.array([0.0, 1.0, 0.2, 1.0, 0.0])  # the first way up, the last way down
    assert float(rising(bump, np.arange(5.0), 0.5)) == pytest.approx(0.5)
    assert float(falling(bump, np.arange(5.0), 0.5)) == pytest.approx(3.5)
    assert float(rising(np.array([1.0, 0.0]), np.array([3.0, 4.0]), 0.5)) == 3.0


def test_onset_of_rows_that_rise_fall_and_stay():
    parts = {
        "last": np.outer(np.linspace(0.8, 1.2, 12), RISE),
        "subject": np.outer(np.linspace(0.8, 1.2, 12), RISE[::-1]),
        "flat": np.full((12, 8), 0.3),
    }
    found = kg.stats.onset(made_of(parts)).set_index("intervention")
    assert found.onset["last"] == pytest.approx(4.0)
    assert found.offset["subject"] == pytest.approx(3.0)
    expected = 5 + (0.54 - 0.5) / 0.08 - 2.5
    assert found.rise_width["last"] == pytest.approx(expected)
    assert found.fall_width["subject"] == pytest.approx(expected)
    assert np.isnan([found.offset["last"], found.onset["subject"]]).all()
    assert found.note["last"] == "no offset: at half of its maximum up to the last layer"
    assert found.note["subject"] == "no onset: at half of its maximum from the first layer on"
    assert found.note["flat"] == "flat: above half of its maximum at every layer"
    assert found.loc["flat", ["onset", "offset", "onset_low"]].isna().all()
    assert found.onset_low["last"] == pytest.approx(4.0)  # all prompts have one shape


def test_onset_below_the_noise_floor_or_six_clusters_has_no_number():
    made = made_of({"last": np.outer(np.ones(12), RISE)}, noise_floor=0.7)
    found = kg.stats.onset(made)
    assert found.note[0] == "the maximum is not above the noise floor"
    assert np.isnan(found.onset[0])
    made.attrs["knockgrid"]["noise_floor"] = {"js": 0.5}
    assert kg.stats.onset(made).onset[0] == pytest.approx(4.0)
    few = kg.stats.onset(made_of({"last": np.outer(np.ones(5), RISE)}))
    assert few.onset[0] == pytest.approx(4.0)
    assert np.isnan(few.onset_low[0])
    assert "only 5 prompts: no interval, which needs 6" in few.note[0]
    nothing = kg.stats.onset(made_of({"last": np.zeros((8, 4))}))
    assert np.isnan(nothing.onset[0])


def test_the_onset_interval_reads_the_expanded_percentiles():
    rng = np.random.default_rng(24)
    values = 1 / (1 + np.exp(-2 * (np.arange(8.0) - rng.normal(4, 1, size=(12, 1)))))
    found = kg.stats.onset(made_of({"last": values}))
    drawn = resample(values, [np.arange(12)])
    ends = np.quantile(rising(drawn.means, np.arange(8.0), 0.5), widened(0.95, 12))
    assert (found.onset_low[0], found.onset_high[0]) == (pytest.approx(ends[0]), ends[1])
    assert found.onset_low[0] < found.onset[0] < found.onset_high[0]


def test_what_onset_refuses():
    made = made_of({"last": np.outer(np.ones(8), RISE)})
    back = made.sort_values("layer", ascending=False)
    back.attrs = made.attrs
    with pytest.raises(kg.InputError, match="in increasing order; got 7, 6, 5"):
        kg.stats.onset(back)
    with pytest.raises(kg.InputError, match="two layers or more"):
        kg.stats.onset(made[made.layer == 3])
    for share in (0.0, 1.0, 50):
        with pytest.raises(kg.InputError, match="give 0.5 for half"):
            kg.stats.onset(made, share=share)


def test_the_onset_interval_covers_the_onset():
    """Prompts whose step lies at other layers; the truth is that of 200 000 prompts' mean."""
    rng = np.random.default_rng(18)
    layers = np.arange(16.0)

    def steps(codes):
        centre = 8 + 1.5 * correlated(rng, codes, 0.3, 1)
        return 0.5 / (1 + np.exp(-2 * (layers - centre)))

    truth = float(rising(steps(np.arange(200_000)).mean(0), layers, 0.5))
    codes, held = np.repeat(np.arange(12), 4), 0
    relations = [f"r{code}" for code in codes]
    made = made_of({"last": np.zeros((48, 16))}, relations)
    for _ in range(120):
        made["js"] = steps(codes).ravel()
        found = kg.stats.onset(made, resamples=299)
        held += bool(found.onset_low[0] <= truth <= found.onset_high[0])
    assert held / 120 >= 0.95 - 3 * 0.02


def test_the_confidence_set_holds_the_peak():
    """Two layers are nearly level: the peak of the means is often the wrong one."""
    rng = np.random.default_rng(19)
    curve = np.array([0.1, 0.2, 0.50, 0.53, 0.2, 0.1])
    codes, runs = np.repeat(np.arange(12), 4), 200
    held, first, size = 0, 0, 0
    for _ in range(runs):
        z = correlated(rng, codes, 0.3, 6)
        values = curve * np.exp(0.5 * z - 0.125)
        inside = peaks(values, [codes], 0.95, 199, 0)
        held += bool(inside[3])
        first += values.mean(0).argmax() == 3
        size += inside.sum()
    assert held / runs >= 0.95 - 3 * 0.0154
    assert first / runs < 0.85
    assert size / runs < 3


def test_a_peak_in_the_table():
    rng = np.random.default_rng(20)
    values = curves(rng, np.array([0.1, 0.5, 0.51, 0.1]), CODES, noise=0.2)
    found = kg.stats.peak(made_of({"last": values, "flat": np.full((24, 4), 0.3)}, RELATIONS))
    assert found.confidence_set[0] == (1, 2)
    assert found.peak[0] == values.mean(0).argmax()
    assert found.cluster[0] == "8 relations"
    assert found.confidence_set[1] == (0, 1, 2, 3)  # nothing says which
    few = kg.stats.peak(made_of({"last": values[:4]}))
    assert few.confidence_set[0] is None
    assert "only 4 prompts" in few.note[0]


def test_a_layer_without_values_is_no_peak():
    values = curves(np.random.default_rng(21), np.array([0.1, 0.5, 0.1]), CODES)
    made = made_of({"last": values}, RELATIONS)
    lost = made.layer == 1
    made.loc[lost, ["js", "status"]] = [np.nan, "NA: no edge"]
    found = kg.stats.peak(made)
    assert 1 not in found.confidence_set[0]
    assert found.peak[0] in (0, 2)


def test_results_keep_the_metadata():
    made = made_of({"a": np.ones((8, 2)), "b": np.zeros((8, 2))}, unit="nats")
    for found in (kg.stats.compare(made, "a", "b"), kg.stats.onset(made), kg.stats.peak(made)):
        assert isinstance(found, pd.DataFrame)
        assert found.attrs["knockgrid"]["unit"] == "nats"


def test_the_family_of_flips_is_that_of_brute_force():
    rng = np.random.default_rng(5)
    values, codes = rng.normal(0.4, 1, (14, 3)), np.array([i % 7 for i in range(14)])
    sums = np.stack([values[codes == g].sum(0) for g in range(7)])
    scaled = sums / np.sqrt((sums**2).sum(0))
    largest = [
        np.abs(np.array(one) @ scaled).max() for one in itertools.product((1.0, -1.0), repeat=7)
    ]
    expected = [np.mean(np.array(largest) >= t - 1e-12) for t in np.abs(scaled.sum(0))]
    np.testing.assert_allclose(flip_test(values, [codes]).p_max, expected)


def test_the_family_of_permutations_is_that_of_brute_force():
    rng = np.random.default_rng(6)
    values = rng.normal(0, 1, (8, 2)) + np.array([0.0, 1.5]) * (np.arange(8) < 4)[:, None]
    of_one = np.arange(8) < 4

    def t(chosen):
        one, other = values[chosen], values[~chosen]
        spread = [
            ((part - part.mean(0)) ** 2).sum(0) / (len(part) - 1) / len(part)
            for part in (one, other)
        ]
        return np.abs((one.mean(0) - other.mean(0)) / np.sqrt(spread[0] + spread[1]))

    every = [np.isin(np.arange(8), c) for c in itertools.combinations(range(8), 4)]
    largest = np.array([t(chosen).max() for chosen in every])
    expected = [np.mean(largest >= one - 1e-12) for one in t(of_one)]
    np.testing.assert_allclose(permute_test(values, np.arange(8), of_one).p_max, expected)


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
