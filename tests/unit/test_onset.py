"""onset and peak: crossings, what has none, coverage of the intervals, refusals."""

import numpy as np
import pytest
from tables import correlated, made_of

import knockgrid as kg
from knockgrid.stats.mean_interval import widened
from knockgrid.stats.onset import falling, rising
from knockgrid.stats.peak import peaks
from knockgrid.stats.resample import resample

RELATIONS = [f"r{i // 3}" for i in range(24)]
CODES = np.repeat(np.arange(8), 3)


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
    assert found.attrs["knockgrid"]["unit"] == "nats"
    assert found.onset_low["last"] == pytest.approx(4.0)  # all prompts have one shape


def test_onset_below_the_noise_floor_or_six_clusters_has_no_number():
    made = made_of(np.outer(np.ones(12), RISE), noise_floor=0.7)
    found = kg.stats.onset(made)
    assert found.note[0] == "the maximum is not above the noise floor"
    assert np.isnan(found.onset[0])
    made.attrs["knockgrid"]["noise_floor"] = {"js": 0.5}
    assert kg.stats.onset(made).onset[0] == pytest.approx(4.0)
    few = kg.stats.onset(made_of(np.outer(np.ones(5), RISE)))
    assert few.onset[0] == pytest.approx(4.0)
    assert np.isnan(few.onset_low[0])
    assert "only 5 prompts: no interval, which needs 6" in few.note[0]
    nothing = kg.stats.onset(made_of(np.zeros((8, 4))))
    assert np.isnan(nothing.onset[0])


def test_the_onset_interval_reads_the_expanded_percentiles():
    rng = np.random.default_rng(24)
    values = 1 / (1 + np.exp(-2 * (np.arange(8.0) - rng.normal(4, 1, size=(12, 1)))))
    found = kg.stats.onset(made_of(values))
    drawn = resample(values, [np.arange(12)])
    ends = np.quantile(rising(drawn.means, np.arange(8.0), 0.5), widened(0.95, 12))
    assert (found.onset_low[0], found.onset_high[0]) == (pytest.approx(ends[0]), ends[1])
    assert found.onset_low[0] < found.onset[0] < found.onset_high[0]


def test_what_onset_refuses():
    made = made_of(np.outer(np.ones(8), RISE))
    back = made.sort_values("layer", ascending=False)
    for bad, share, words in (
        (back, 0.5, "in increasing order; got 7, 6, 5"),
        (made[made.layer == 3], 0.5, "two layers or more"),
        *((made, share, "give 0.5 for half") for share in (0.0, 1.0, 50)),
    ):
        with pytest.raises(kg.InputError, match=words):
            kg.stats.onset(bad, share=share)


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
    made = made_of(np.zeros((48, 16)), relations)
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
    assert found.attrs["knockgrid"]["unit"] == "nats"
    assert found.confidence_set[1] == (0, 1, 2, 3)  # nothing says which
    few = kg.stats.peak(made_of(values[:4]))
    assert few.confidence_set[0] is None
    assert "only 4 prompts" in few.note[0]


def test_a_layer_without_values_is_no_peak():
    values = curves(np.random.default_rng(21), np.array([0.1, 0.5, 0.1]), CODES)
    made = made_of(values, RELATIONS)
    lost = made.layer == 1
    made.loc[lost, ["js", "status"]] = [np.nan, "NA: no edge"]
    found = kg.stats.peak(made)
    assert 1 not in found.confidence_set[0]
    assert found.peak[0] in (0, 2)
