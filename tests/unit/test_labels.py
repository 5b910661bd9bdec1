"""Labels at a threshold, what hangs on it, and pairs that are alike."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import f_oneway, spearmanr

import knockgrid as kg
from knockgrid.evidence.diagnostics import icc
from knockgrid.table.table import build


@pytest.fixture
def frame():
    """Four correct and four wrong prompts of two relations; one wrong prompt has no reliance."""
    made = pd.DataFrame(
        {
            "prompt": list("abcdefgh"),
            "relation": ["x", "x", "y", "y"] * 2,
            "correct": [True] * 4 + [False] * 4,
            "reliance": [0.5, 0.1, 0.3, 0.3, 0.31, 0.3, 0.05, np.nan],
            "entropy": [1.0, 2.0, 3.0, 4.0, 2.5, 1.5, 3.5, 0.5],
            "note": pd.array([None] * 7 + ["why not"], dtype="string"),
        }
    )
    made.attrs = {"knockgrid": {"unit": "nats", "label_with": "reliance"}}
    return made


@pytest.fixture
def table():
    """A sweep's table of the eight prompts and one more, in another order."""
    return build(
        [
            {"prompt": p, "intervention": row, "layer": layer, "js": 0.01 * ord(p) + layer}
            for p in "hgfedcbaz"
            for row in ("subject", "last")
            for layer in (0, 1)
        ],
        {"unit": "nats", "intervention_order": ["subject", "last"]},
    )


def test_labels_at_the_mean_of_the_facts(frame):
    made = kg.evidence.labels(frame)
    assert made.label.tolist()[:7] == ["FA-high", "FA-low", "FA-low", "FA-low", "AH", "UH", "UH"]
    assert pd.isna(made.label[7])
    said = made.attrs["knockgrid"]
    assert said["threshold"] == pytest.approx(0.3)
    assert said["threshold_rule"] == "mean_fa"
    assert said["counts"] == {"FA-high": 1, "FA-low": 3, "AH": 1, "UH": 2}
    assert said["too_small"] == ["FA-high", "AH"]
    assert said["unlabelled"] == {"h": "why not"}
    assert said["label_with"] == "reliance"
    assert "label" not in frame


def test_other_thresholds(frame):
    frame.loc[0, "reliance"] = 0.9
    for rule, value in (("mean_fa", 0.4), ("median_fa", 0.3)):
        said = kg.evidence.labels(frame, rule).attrs["knockgrid"]
        assert said["threshold"] == pytest.approx(value)
    said = kg.evidence.labels(frame, 0.05).attrs["knockgrid"]
    assert said["counts"] == {"FA-high": 4, "FA-low": 0, "AH": 2, "UH": 1}
    assert said["threshold_rule"] == "number"


def test_a_nan_without_a_note_gets_one(frame):
    made = kg.evidence.labels(frame.drop(columns="note"))
    assert made.attrs["knockgrid"]["unlabelled"] == {"h": "reliance is NaN"}
    assert made.note.isna().sum() == 7


@pytest.mark.parametrize(
    ("change", "threshold", "words"),
    [
        (lambda f: f, "mean", "unknown threshold 'mean'; did you mean 'mean_fa'"),
        (lambda f: f, 0.5, "0.5 lies outside the data.*from 0.05 to 0.5 nats"),
        (lambda f: f, 0.01, "0.01 lies outside the data"),
        (lambda f: f, float("nan"), "nan lies outside the data"),
        (lambda f: f, True, "threshold is True; give"),
        (lambda f: f[~f.correct], "mean_fa", "there are none among 4"),
        (lambda f: f[3:], "median_fa", "there is 1 among 5"),
        (lambda f: f.drop(columns="entropy"), "mean_fa", "no column 'entropy'"),
        (lambda f: f[:0], "mean_fa", "has no prompts"),
        (lambda f: pd.concat([f, f[:1]]), "mean_fa", "prompt 'a' stands twice"),
        (lambda f: f.assign(correct="yes"), "mean_fa", "'correct' has to hold True or False"),
        (lambda f: f.assign(reliance="much"), "mean_fa", "'reliance' has to hold numbers"),
        (lambda f: f[7:], "mean_fa", "no prompt has a reliance"),
    ],
)
def test_bad_input(frame, change, threshold, words):
    with pytest.raises(kg.InputError, match=words):
        kg.evidence.labels(change(frame), threshold)


def test_sensitivity_counts_what_labels_would(frame):
    found = kg.evidence.threshold_sensitivity(frame)
    default = kg.evidence.labels(frame).label
    assert len(found) == 61
    assert found.threshold.is_monotonic_increasing
    assert found.attrs["knockgrid"]["marks"] == pytest.approx({"mean_fa": 0.3, "median_fa": 0.3})
    for _, row in found.iterrows():
        made = kg.evidence.labels(frame, row.threshold)
        counts = made.attrs["knockgrid"]["counts"]
        assert {name: row[name] for name in counts} == counts
        assert row.fa_above == counts["FA-high"] / 4
        assert row.agreement == np.mean(
            [a == b for a, b in zip(made.label[:7], default[:7], strict=True)]
        )
    at_default = found[np.isclose(found.threshold, 0.3, atol=0, rtol=1e-12)]
    assert at_default.agreement.tolist() == [1.0]
    with pytest.raises(kg.InputError, match="0.6 lies outside the data"):
        kg.evidence.threshold_sensitivity(frame, [0.2, 0.6])


def test_a_table_gets_panels_in_the_order_of_the_labels(frame, table):
    made = kg.evidence.with_labels(table, kg.evidence.labels(frame))
    assert dict(zip(made.prompt, made.group, strict=True)) == {
        **{"a": "FA-high", "b": "FA-low", "c": "FA-low", "d": "FA-low"},
        **{"e": "AH", "f": "UH", "g": "UH", "h": "no label", "z": "no label"},
    }
    said = made.attrs["knockgrid"]
    assert said["unlabelled"] == {"h": "why not", "z": "not among the labelled prompts"}
    assert said["threshold"] == pytest.approx(0.3)
    titles = [ax.get_title() for ax in kg.panels(made).axes if ax.get_title()]
    assert [title.split(" prompt")[0] for title in titles] == [
        *("FA-high (n = 1", "FA-low (n = 3", "AH (n = 1", "UH (n = 2", "no label (n = 2")
    ]
    assert table.group.isna().all()
    with pytest.raises(kg.InputError, match="has no column 'label'"):
        kg.evidence.with_labels(table, frame)
    with pytest.raises(kg.InputError, match="labels are of other prompts: the table has 'h'"):
        kg.evidence.with_labels(table, kg.evidence.labels(frame.assign(prompt=list("ijklmnop"))))


def test_diagnostics_by_other_means(frame, table):
    def told(*given):
        return kg.evidence.diagnostics(*given).set_index(["what", "among"])

    found = told(frame, table)
    assert found.loc["share below mean_fa", "FA"].tolist() == [0.75, 4]
    for among, part in (("FA", frame[:4]), ("wrong", frame[4:7]), ("all", frame[:7])):
        for what, other in (("entropy", part.entropy), ("Subj.", part.prompt.map(ord))):
            rho = spearmanr(part.reliance, other).statistic
            expected = pytest.approx([rho, len(part)])
            assert found.loc[f"spearman with {what}", among].tolist() == expected
    f = f_oneway([0.5, 0.1], [0.3, 0.3]).statistic
    assert found.value["icc of relation", "FA"] == pytest.approx((f - 1) / (f + 1))
    holed = told(frame.assign(reliance=frame.reliance.where(frame.prompt != "b")))
    assert holed.loc["share below mean_fa", "FA"].tolist() == pytest.approx([2 / 3, 3])
    same = told(frame.assign(reliance=0.2)).value
    assert np.isnan([same["spearman with entropy", "all"], same["icc of relation", "all"]]).all()
    with pytest.raises(kg.InputError, match="no row 'subject'"):
        told(frame, table[table.intervention == "last"])


def test_icc_of_unequal_groups_finds_the_simulated_share():
    draw = np.random.default_rng(0)
    groups = np.repeat(np.arange(400), draw.integers(2, 9, 400))
    values = 2 * draw.normal(size=400)[groups] + draw.normal(size=len(groups))
    found, n = icc(pd.Series(values), pd.Series(groups))
    assert found == pytest.approx(0.8, abs=0.03)
    assert n == len(groups)
    assert np.isnan(icc(pd.Series([1.0, 2.0]), pd.Series(["x", "x"]))[0])
    assert np.isnan(icc(pd.Series([1.0, 2.0]), pd.Series(["x", "y"]))[0])


def labelled(entropy, label, relation):
    n = len(label)
    return pd.DataFrame(
        {
            "prompt": [f"p{i}" for i in range(n)],
            "relation": relation,
            "correct": [one.startswith("FA") for one in label],
            "reliance": np.linspace(0.1, 0.5, n),
            "entropy": np.asarray(entropy, float),
            "label": label,
        }
    )


@pytest.mark.parametrize("seed", range(8))
def test_pairs_are_those_of_brute_force(seed):
    """The most pairs first, then the smallest sum of distances, over every way to pair."""
    draw = np.random.default_rng(seed)
    label = ["FA-high"] * 2 + ["FA-low"] * 2 + ["AH"] * 5 + ["UH"] * 2
    relation = draw.choice(["x", "y"], len(label))
    frame = labelled(draw.normal(size=len(label)), label, relation)
    right, wrong = frame[:4], frame[4:9]
    scale = np.sqrt((right.entropy.var() + wrong.entropy.var()) / 2)
    best = (0, 0.0)
    for order in permutations(range(5), 4):
        gaps = [
            abs(right.entropy.iloc[i] - wrong.entropy.iloc[j]) / scale
            for i, j in enumerate(order)
            if right.relation.iloc[i] == wrong.relation.iloc[j]
        ]
        kept = [gap for gap in gaps if gap <= 0.8]
        best = max(best, (len(kept), -sum(kept)))
    pairs = kg.evidence.pair_prompts(frame, caliper=0.8)
    assert (len(pairs), -pairs.distance.sum()) == pytest.approx(best)
    assert (pairs.distance <= 0.8).all()
    by = frame.set_index("prompt")
    assert (by.relation[pairs.prompt_FA].values == by.relation[pairs.prompt_AH].values).all()
    assert (pairs.relation.values == by.relation[pairs.prompt_AH].values).all()
    for side in ("FA", "AH"):
        assert pairs[f"prompt_{side}"].is_unique
        assert (by.entropy[pairs[f"prompt_{side}"]].values == pairs[f"entropy_{side}"]).all()
    said = pairs.attrs["knockgrid"]
    assert set(said["unmatched"]["FA"]) == set(right.prompt) - set(pairs.prompt_FA)
    assert set(said["unmatched"]["AH"]) == set(wrong.prompt) - set(pairs.prompt_AH)
    assert said["smd_before"]["entropy"] == pytest.approx(
        (right.entropy.mean() - wrong.entropy.mean()) / scale
    )
    if len(pairs):
        gap = (pairs.entropy_FA - pairs.entropy_AH).mean() / scale
        assert said["smd_after"]["entropy"] == pytest.approx(gap)


def test_more_pairs_come_before_nearer_ones():
    frame = labelled([0, 1, 1.1, 2.1], ["FA-low", "FA-low", "UH", "UH"], "x")
    pairs = kg.evidence.pair_prompts(frame, between=("FA", "UH"), caliper=2.0)
    assert pairs[["prompt_FA", "prompt_UH"]].values.tolist() == [["p0", "p2"], ["p1", "p3"]]


def test_nothing_to_pair_is_an_empty_frame_that_can_be_kept(tmp_path):
    frame = labelled([0, 9], ["FA-low", "AH"], ["x", "y"])
    frame.attrs = {"knockgrid": {}}
    pairs = kg.evidence.pair_prompts(frame)
    sides = ("prompt_FA", "prompt_AH", "relation", "entropy_FA", "entropy_AH", "distance")
    assert list(pairs.columns) == list(sides)
    said = pairs.attrs["knockgrid"]
    assert said["unmatched"] == {"FA": ["p0"], "AH": ["p1"]}
    assert said["smd_after"] == {"entropy": None}
    kg.runs.write_table(pairs, tmp_path / "pairs.parquet")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"caliper": 0}, "caliper is 0; give a positive"),
        ({"on": ["relaton"]}, "unknown column to match on 'relaton'; did you mean 'relation'"),
        ({"on": []}, "on is empty"),
        ({"between": ("FA", "XH")}, "unknown label 'XH'"),
        ({"between": ("FA", "FA-low")}, "share prompts"),
        ({"between": ("FA", "UH")}, "no prompt has the label 'UH'"),
        ({"between": ("FA", "AH", "UH")}, "give two of FA"),
        ({"on": "other"}, "prompt 'p1' has no 'other' to match on"),
    ],
)
def test_matching_refuses(options, words):
    frame = labelled([0, 1], ["FA-low", "AH"], "x").assign(other=[1.0, np.nan])
    with pytest.raises(kg.InputError, match=words):
        kg.evidence.pair_prompts(frame, **options)


def test_reliance_is_drawn_point_by_point(frame, tmp_path):
    ax = kg.figures.reliance_plot(kg.evidence.labels(frame))
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == ["y (2 + 1)", "x (2 + 2)", "all (4 + 3)"]  # the smallest mean on top
    points = {"correct": [], "wrong": []}
    for dots in ax.collections:
        points[dots.get_gid()] += np.asarray(dots.get_offsets())[:, 0].tolist()
    assert sorted(points["correct"]) == sorted([0.5, 0.1, 0.3, 0.3] * 2)
    assert sorted(points["wrong"]) == sorted([0.31, 0.3, 0.05] * 2)
    assert ax.get_title() == "n = 4 correct + 3 wrong, 1 without reliance"
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["correct", "wrong", "mean of correct: 0.3"]
    assert "nats" in ax.get_xlabel()
    dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert dashed[0].get_xdata()[0] == pytest.approx(0.3)
    kg.save(ax, tmp_path / "reliance")
    bare = kg.figures.reliance_plot(frame.assign(relation=None))
    assert [label.get_text() for label in bare.get_yticklabels()] == ["none (4 + 3)"]
    with pytest.raises(kg.InputError, match="no column 'correct'"):
        kg.figures.reliance_plot(frame.drop(columns="correct"))
    with pytest.raises(kg.InputError, match="no prompt has a reliance"):
        kg.figures.reliance_plot(frame[7:])


def test_the_threshold_curve_shows_the_counts(frame, tmp_path):
    found = kg.evidence.threshold_sensitivity(frame)
    ax = kg.figures.threshold_curve(found)
    lines = {line.get_label(): line for line in ax.lines}
    for name in ("FA-high", "FA-low", "AH", "UH"):
        np.testing.assert_array_equal(lines[name].get_ydata(), found[name])
        np.testing.assert_array_equal(lines[name].get_xdata(), found.threshold)
    marked = {line.get_gid(): line.get_xdata()[0] for line in ax.lines if line.get_gid()}
    assert [marked["mean_fa"], marked["median_fa"]] == pytest.approx([0.3, 0.3])
    assert ax.get_title() == "n = 4 correct + 3 wrong"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Threshold on reliance (nats)", "Prompts")
    kg.save(ax, tmp_path / "threshold")
    with pytest.raises(kg.InputError, match="no column 'UH'"):
        kg.figures.threshold_curve(found.drop(columns="UH"))
