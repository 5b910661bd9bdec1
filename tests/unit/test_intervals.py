"""Intervals that know the clusters: oracles, coverage on simulated data, refusals."""

from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.stats import beta, norm
from scipy.stats import t as student
from tables import correlated, made_of

import knockgrid as kg
from knockgrid.stats.mean_interval import interval, widened
from knockgrid.stats.resample import SMALLEST_SHARE, resample
from knockgrid.table.table import build

RUNS = 1000  # simulated data sets; the binomial standard error of a coverage of 0.95 is 0.007


def sizes(n_clusters):
    """Unequal: from 3 prompts in the smallest cluster to 12 in the largest."""
    return np.round(np.geomspace(3, 12, n_clusters)).astype(int)


def skewed(z, a=0.7, b=2.1):
    """Normal scores as values like JS: between 0 and ln 2, most of them small; mean ln 2 / 4."""
    fine = np.linspace(-6, 6, 20001)
    return np.log(2) * np.interp(z, fine, beta.ppf(norm.cdf(fine), a, b))


MEAN = np.log(2) / 4


def draw(rng, n, correlation, runs=RUNS):
    """Cluster of every prompt, and normal scores `[prompt, run]` of unit variance."""
    codes = np.repeat(np.arange(len(n)), n)
    return codes, correlated(rng, codes, correlation, runs)


def coverage(values, codes, method="bootstrap-t", truth=MEAN, draws=499):
    """The share of columns, each a data set of its own, whose interval holds the truth."""
    found = interval(resample(values, codes, draws), np.arange(values.shape[1]), method=method)
    return float(np.mean((found.low <= truth) & (truth <= found.high)))


def test_the_standard_error_is_the_jackknife_over_clusters():
    rng = np.random.default_rng(0)
    codes = np.array([0, 0, 0, 1, 2, 2, 3])
    values = rng.gamma(1.0, size=(7, 2))
    values[1, 1] = np.nan
    made = resample(values, [codes], draws=2)
    for cell in range(2):
        without = [np.nanmean(values[codes != g, cell]) for g in range(4)]
        mean = np.nanmean(values[:, cell])
        expected = np.sqrt(3 / 4 * np.sum((np.array(without) - mean) ** 2))
        assert made.mean[cell] == pytest.approx(mean)
        assert made.error[cell] == pytest.approx(expected)
    assert made.n_prompts.tolist() == [7, 6]
    assert made.n_clusters.tolist() == [4, 4]


def test_every_resample_is_a_data_set_made_of_whole_clusters():
    rng = np.random.default_rng(1)
    codes, values = np.array([0, 0, 1, 2, 2, 2]), rng.gamma(1.0, size=(6, 1))
    made = resample(values, [codes], draws=300)
    allowed = {}
    for drawn in product(range(3), repeat=3):
        parts = [values[codes == g, 0] for g in drawn]
        whole = np.concatenate(parts)
        without = [np.concatenate(parts[:i] + parts[i + 1 :]).mean() for i in range(3)]
        error = np.sqrt(2 / 3 * np.sum((np.array(without) - whole.mean()) ** 2))
        allowed[round(whole.mean(), 9)] = error
    for mean, error in zip(made.means[:, 0], made.errors[:, 0], strict=True):
        assert error == pytest.approx(allowed[round(mean, 9)], abs=1e-9)
    assert len(set(made.means[:, 0].round(9))) == len(allowed)


def test_two_dimensions_add_up_as_cameron_gelbach_and_miller_say():
    rng = np.random.default_rng(2)
    rows, columns = np.array([0, 0, 1, 1, 2, 2, 3]), np.array([0, 1, 1, 2, 2, 0, 1])
    values = rng.normal(size=(7, 1))
    y, mean = values[:, 0], values.mean()

    def jackknife(codes):
        k = codes.max() + 1
        return (k - 1) / k * sum((y[codes != g].mean() - mean) ** 2 for g in range(k))

    one, other = jackknife(rows), jackknife(columns)
    expected = max(one + other - ((y - mean) ** 2).sum() / 49, one, other)
    made = resample(values, [rows, columns], draws=400)
    assert made.error[0] ** 2 == pytest.approx(expected)
    assert made.n_clusters[0] == 3
    possible = {round(mean, 9) for mean in pigeonholes(y, rows, columns)}
    assert {round(mean, 9) for mean in made.means[:, 0] if mean == mean} <= possible


def pigeonholes(y, rows, columns):
    for drawn, other in product(product(range(4), repeat=4), product(range(3), repeat=3)):
        w = np.bincount(drawn, minlength=4)[rows] * np.bincount(other, minlength=3)[columns]
        if w.sum():
            yield (w @ y) / w.sum()


def test_one_prompt_per_cluster_is_the_textbook_t_interval():
    values = np.random.default_rng(3).normal(size=(15, 1))
    made = resample(values, [np.arange(15)])
    found = interval(made, np.array([0]), method="t")
    low, high = student.interval(0.95, 14, values.mean(), values.std(ddof=1) / 15**0.5)
    assert (found.low[0], found.high[0]) == (pytest.approx(low), pytest.approx(high))
    # and on normal data the quantile of |t| over resamples is near Student's
    near = interval(resample(np.sort(values, axis=0), [np.arange(15)]), np.array([0]))
    assert near.high[0] - near.low[0] == pytest.approx(high - low, rel=0.25)


@pytest.mark.parametrize(("n_clusters", "least"), [(12, 0.92), (40, 0.94)])
def test_coverage_on_skewed_clustered_data(n_clusters, least):
    """Nominal 0.95 at intraclass correlation 0.3; the bound leaves two standard errors of play."""
    rng = np.random.default_rng(n_clusters)
    codes, z = draw(rng, sizes(n_clusters), 0.3)
    found = coverage(skewed(z), [codes])
    assert least <= found <= 0.975
    everyone = [np.arange(len(codes))]
    assert coverage(skewed(z), everyone, "percentile") < 0.8  # what the i.i.d. bootstrap covers
    assert coverage(skewed(z), [codes], "percentile") < found


def test_coverage_with_seven_clusters_beats_the_percentile_interval():
    codes, z = draw(np.random.default_rng(7), sizes(7), 0.3)
    found = {name: coverage(skewed(z), [codes], name) for name in ("bootstrap-t", "percentile")}
    assert found["bootstrap-t"] > 0.9
    assert found["percentile"] < 0.88


def test_coverage_when_relations_and_subjects_cross():
    rng = np.random.default_rng(8)
    relation = np.tile(np.arange(12), 5)
    subject = np.repeat(np.arange(30), 2)
    parts = [rng.normal(size=(n, 300))[code] for n, code in ((12, relation), (30, subject))]
    z = np.sqrt(0.3) * (parts[0] + parts[1]) + np.sqrt(0.4) * rng.normal(size=(60, 300))
    values = skewed(z)
    both = coverage(values, [relation, subject], draws=299)
    assert both >= 0.92
    assert coverage(values, [np.arange(60)], "percentile") < 0.85


def test_a_band_holds_for_all_layers_at_once():
    """Twelve layers whose prompts' curves wander: a band per cell fails far more often."""
    rng = np.random.default_rng(9)
    n, layers, runs = sizes(12), 12, 150
    held, alone = 0, 0
    for _ in range(runs):
        codes, z = draw(rng, n, 0.3, layers)
        values = skewed(z)
        found = interval(resample(values, [codes], 399), np.zeros(layers, dtype=int))
        held += bool(((found.band_low <= MEAN) & (found.band_high >= MEAN)).all())
        alone += bool(((found.low <= MEAN) & (found.high >= MEAN)).all())
    assert held / runs >= 0.90  # 0.95 less three binomial standard errors
    assert alone / runs < 0.75


def test_a_layer_without_variance_leaves_the_band_of_the_others():
    values = np.random.default_rng(10).gamma(1.0, size=(12, 3))
    codes, bands = [np.repeat(np.arange(6), 2)], np.zeros(4, dtype=int)
    steady = np.concatenate([values, np.full((12, 1), 0.25)], axis=1)
    rounding = 1e-12 * np.random.default_rng(11).normal(size=(12, 1))
    plain = interval(resample(values, codes), bands[:3])
    for column in (steady[:, 3:], steady[:, 3:] + rounding):
        made = resample(np.concatenate([values, column], axis=1), codes)
        found = interval(made, bands)
        np.testing.assert_allclose(found.band_high[:3], plain.band_high, rtol=1e-6)
        assert found.low[3] == pytest.approx(0.25)
        wide = found.band_high[3] - found.band_low[3]
        assert 0 < wide < 0.02 * (found.band_high - found.band_low)[:3].max()


def test_a_cluster_that_alone_varies_cannot_blow_up_the_interval():
    """Resamples without it have no variance; their t is bounded by the floor."""
    values = np.zeros((12, 1))
    values[0] = 1.0
    made = resample(values, [np.arange(12)])
    assert (made.errors == 0).any()
    assert np.abs(made.t()).max() <= 12 / SMALLEST_SHARE
    assert np.isfinite(interval(made, np.array([0])).high).all()


def test_a_band_never_cuts_into_the_interval_of_its_layer():
    values = np.random.default_rng(25).uniform(size=(8, 40))
    made = resample(values, [np.arange(8)], 199)
    for method in ("t", "bootstrap-t"):
        found = interval(made, np.arange(40), method=method)
        assert (found.band_low <= found.low).all()
        assert (found.band_high >= found.high).all()


def test_widened_percentiles_are_those_of_hesterberg():
    low, high = widened(0.95, 12)
    assert low == pytest.approx(norm.cdf(-np.sqrt(12 / 11) * 2.2009852), rel=1e-5)
    assert high == pytest.approx(1 - low)


# tables


RELATIONS = [f"r{i // 2}" for i in range(16)]


@pytest.mark.parametrize(
    ("relations", "subjects", "words", "counts"),
    [
        (None, None, "16 prompts", (16,)),
        (RELATIONS, None, "8 relations", (8,)),
        (RELATIONS, [f"s{i}" for i in range(16)], "8 relations", (8,)),
        (RELATIONS, [f"s{i // 2}" for i in range(16)], "8 relations", (8,)),
        (RELATIONS, [f"S{i % 10} " for i in range(16)], "8 relations × 10 subjects", (8, 10)),
        (["r"] * 16, [f"s{i}" for i in range(16)], "16 subjects within one relation", (16,)),
        (["r"] * 16, [f"s{i % 8}" for i in range(16)], "8 subjects within one relation", (8,)),
        (["r"] * 16, None, "16 prompts within one relation", (16,)),
        (["r"] * 8 + [None] * 8, None, "1 relation + the prompts without one", (2,)),
    ],
)
def test_what_clusters_are_taken_by_themselves(relations, subjects, words, counts):
    found = kg.stats.clusters(made_of(np.zeros((16, 1)), relations, subjects=subjects))
    assert found.words == words
    assert found.counts == counts


def test_clusters_by_name_and_by_mapping():
    made = made_of(np.zeros((4, 1)), list("aabb"), subjects=["Rome", "rome ", "Oslo", "Bern"])
    assert kg.stats.clusters(made, "subject").labels["subject"] == ("rome", "rome", "oslo", "bern")
    assert kg.stats.clusters(made, ("relation", "subject")).counts == (2, 3)
    assert kg.stats.clusters(made, "prompt").counts == (4,)
    by = {"p0": 1, "p1": 2, "p2": 1, "p3": 2}
    assert kg.stats.clusters(made, by).codes()[0].tolist() == [0, 1, 0, 1]
    with pytest.raises(kg.InputError, match="no cluster in the mapping \\(p3\\)"):
        kg.stats.clusters(made, {"p0": 1, "p1": 2, "p2": 1})
    with pytest.raises(kg.InputError, match="names no clusters"):
        kg.stats.clusters(made, "group")
    with pytest.raises(kg.InputError, match="16 of 16 prompts have no relation"):
        kg.stats.clusters(made_of(np.zeros((16, 1))), "relation")


def test_the_table_says_mean_interval_and_clusters():
    values = np.random.default_rng(12).gamma(1.0, 0.1, size=(16, 3))
    found = kg.stats.mean_interval(made_of(values, RELATIONS))
    np.testing.assert_allclose(found["mean"], values.mean(0))
    codes = np.repeat(np.arange(8), 2)
    ends = interval(resample(values, [codes]), np.zeros(3, dtype=int))
    np.testing.assert_allclose(found.low, np.maximum(ends.low, 0))
    np.testing.assert_allclose(found.high, ends.high)
    assert (found.band_high > found.high).all()
    assert (found.cluster == "8 relations").all()
    assert (found.n_prompts == 16).all()
    assert (found.note == "").all()
    narrow = kg.stats.mean_interval(made_of(values, RELATIONS), level=0.5)
    assert (narrow.high < found.high).all()


def test_bands_belong_to_one_row():
    """Another row, however wild, leaves the band of the first as it is."""
    rng = np.random.default_rng(13)
    one, wild = rng.gamma(1.0, 0.1, size=(16, 3)), rng.gamma(0.05, 9.0, size=(16, 3))
    alone = kg.stats.mean_interval(made_of(one, RELATIONS))
    beside = kg.stats.mean_interval(made_of({"last": one, "wild": wild}, RELATIONS))
    np.testing.assert_allclose(beside.band_high[:3], alone.band_high)


def test_divergences_are_cut_at_zero_and_other_metrics_are_not():
    values = np.zeros((12, 1))
    values[:3] = 0.2
    made = made_of(values)
    made["mine"] = made["js"]
    assert kg.stats.mean_interval(made).low[0] == 0.0
    assert kg.stats.mean_interval(made).band_low[0] == 0.0
    assert kg.stats.mean_interval(made, "mine").low[0] < 0.0


def test_below_six_clusters_there_are_values_and_no_interval():
    values = np.random.default_rng(14).gamma(1.0, size=(10, 2))
    made = made_of(values, [f"r{i // 2}" for i in range(10)])
    found = kg.stats.mean_interval(made)
    assert found[["low", "high", "band_low", "band_high"]].isna().all(axis=None)
    assert set(found.note) == {"only 5 relations: no interval, which needs 6"}
    each = kg.stats.per_cluster(made)
    assert each.cluster.tolist() == [f"r{i}" for i in range(5) for _ in range(2)]
    np.testing.assert_allclose(each["mean"], values.reshape(5, 2, 2).mean(1).ravel())
    six = kg.stats.mean_interval(made_of(values[:6]))
    assert six.low.notna().all()


def test_cells_that_lack_prompts_are_named_and_count_their_own_clusters():
    values = np.random.default_rng(15).gamma(1.0, size=(16, 2))
    made = made_of(values, RELATIONS)
    lost = (made.layer == 1) & made.prompt.isin(["p0", "p1", "p2", "p3", "p4", "p5"])
    made.loc[lost, ["js", "status"]] = [np.nan, "NA: no edge"]
    found = kg.stats.mean_interval(made)
    assert found.n_prompts.tolist() == [16, 10]
    assert found.n_clusters.tolist() == [8, 5]
    assert found["mean"][1] == pytest.approx(values[6:, 1].mean())
    assert np.isnan(found.low[1])
    assert "no value in some cells of 6 prompts: p0, p1, p2, p3 and 2 more" in found.note[0]
    each = kg.stats.per_cluster(made)
    assert each[(each.cluster == "r0") & (each.layer == 1)]["mean"].isna().all()


ONES = made_of(np.ones((8, 2)))


@pytest.mark.parametrize(
    ("table", "more", "words"),
    [
        (ONES.assign(js=np.where(np.arange(16) == 3, np.nan, 1.0)), {},
         "NaN in 1 rows whose status is 'ok'.*'p1', intervention 'last', layer 1"),
        (ONES.assign(js=np.where(np.arange(16) == 3, np.inf, 1.0)), {}, "infinite in some cells"),
        (pd.concat([ONES, ONES]), {}, "two values of 'js' in one cell"),
        (ONES[:0], {}, "no rows"),
        (ONES.drop(columns="status"), {}, "no column 'status'"),
        (ONES, {"metric": "jss"}, "did you mean 'js'"),
        (ONES, {"level": 95}, "give 0.95"),
        (ONES, {"method": "bca"}, "unknown method 'bca'"),
    ],
)  # fmt: skip
def test_what_intervals_refuse(table, more, words):
    with pytest.raises(kg.InputError, match=words):
        kg.stats.mean_interval(table, **more)


def test_positions_of_the_answer_belong_together_whatever_their_token():
    made = made_of(np.ones((8, 1)))
    made["position"], made["token"] = "exact_answer_last", np.arange(8)
    made["token"] = made["token"].astype("Int64")
    assert kg.stats.mean_interval(made).n_prompts.tolist() == [8]
    made["position"] = None
    assert len(kg.stats.mean_interval(made)) == 8


def test_intervals_end_where_the_measure_does():
    """Values near ln 2: the upper ends are ln 2, in nats and in bits; the mean stays inside."""
    values = [0.02 if p == 0 else 0.69 for p in range(8)]
    rows = [
        {"prompt": f"{p}", "intervention": "last", "layer": 0, "js": js, "kl": js, "tv": js}
        for p, js in enumerate(values)
    ]
    for unit, most in (("nats", np.log(2)), ("bits", 1.0)):
        made = build(rows, {"unit": unit})
        plain, js = kg.stats.mean_interval(made, "kl"), kg.stats.mean_interval(made, "js")
        assert plain.high[0] > np.log(2)
        assert js.high[0] == min(plain.high[0], most)
        assert js.band_high[0] == min(plain.band_high[0], most)
        assert js.low[0] == plain.low[0] <= js["mean"][0] <= js.high[0]
