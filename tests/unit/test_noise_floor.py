"""The noise floor, in the table and in figures; and at which layers a treatment exceeds."""

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_hex

import knockgrid as kg
from knockgrid.errors import InputError
from knockgrid.evidence import with_noise_floor
from knockgrid.evidence.noise_floor import floor_of_nulls
from knockgrid.figures import layer_curve, layer_heatmap, token_heatmap
from knockgrid.stats import exceeds, exceeds_in_words
from knockgrid.table.summary import ranges
from knockgrid.table.table import build, grid, metadata_of

NAMES = ("subject", "attention")


def table(names=NAMES, layers=range(4), prompts=3, **metadata):
    rows = [
        {"prompt": f"p{p}", "intervention": name, "layer": layer, "js": n / 10 + i / 100 + p / 1000}
        for p in range(prompts)
        for n, name in enumerate(names, start=1)
        for i, layer in enumerate(layers)
    ]
    return build(rows, {"unit": "nats", "layer_order": list(layers), **metadata})


def marked(ax, gid):
    return [item for item in ax.get_children() if item.get_gid() == gid]


def places(ax, gid="floor"):
    return sorted((p.get_x(), p.get_y()) for p in marked(ax, gid))


def notes(ax):
    return [t.get_text() for t in ax.get_legend().get_texts()] if ax.get_legend() else []


# in figures


def test_a_floor_for_each_row_and_layer():
    cells = {"subject": {"0": 0.5, "2": 0.01}, "attention": {"1": 0.3}}
    made = with_noise_floor(table(), {"js": {"overall": 0.05, "cells": cells}})
    ax = layer_heatmap(made)
    assert places(ax) == [(0, 0), (1, 1)]
    assert notes(ax) == ["below the noise floor (0.3 to 0.5)"]
    for floor, n in (
        ({"overall": 9.0, "cells": {}}, 8),
        ({"cells": {"subject": {"0": 9.0}}}, 1),
        ({"cells": {"x": {"0": 9.0}}}, 0),
    ):
        assert len(places(layer_heatmap(with_noise_floor(table(), {"js": floor})))) == n


def test_a_floor_keeps_the_colour_and_is_not_the_hatch_of_what_is_missing():
    made = with_noise_floor(table(), 9.0)
    here = (made.intervention == "subject") & (made.layer == 0)
    made.loc[here, ["js", "status"]] = [np.nan, "NA: no edge"]
    ax = layer_heatmap(made)
    (missing,), below = marked(ax, "missing"), marked(ax, "floor")
    assert (missing.get_x(), missing.get_y()) == (0, 0)
    assert len(below) == 7
    assert {patch.get_facecolor()[-1] for patch in below} == {0.0}
    assert missing.get_facecolor()[-1] == 1.0
    assert {patch.get_hatch() for patch in below}.isdisjoint({missing.get_hatch(), None})
    assert notes(ax) == ["NA: no edge", "below the noise floor (9)"]


def test_the_highest_floor_of_a_cell_counts():
    """Layer × token: each layer's own; a cell of several rows takes the highest of them."""
    rows = [
        {"prompt": "a", "intervention": "x", "layer": layer, "token": token, "js": 0.2}
        for layer in range(2)
        for token in range(3)
    ]
    made = build(rows, {"unit": "nats", "n_tokens": 3})
    made = with_noise_floor(made, {"js": {"overall": 0.1, "cells": {"x": {"1": 0.3}}}})
    ax = token_heatmap(made, "js")
    rows_of = {y for _, y in places(ax)}
    assert len(places(ax)) == 3
    assert len(rows_of) == 1


def test_a_difference_counts_by_its_size():
    made = table(names=("subject",))
    made["js"] = [-0.5, -0.01, 0.01, 0.5] * 3
    assert places(layer_heatmap(with_noise_floor(made, 0.1))) == [(1, 0), (2, 0)]


def test_curves_draw_a_floor_that_can_be_seen():
    assert marked(layer_curve(with_noise_floor(table(), 2e-12)), "floor") == []
    assert marked(layer_curve(table()), "floor") == []
    ax = layer_curve(with_noise_floor(table(), 0.05))
    (line,) = marked(ax, "floor")
    assert line.get_ydata().tolist() == [0.05] * 4
    assert line.get_linestyle() == ":"
    assert notes(ax).count("noise floor") == 1
    cells = {"subject": {"0": 0.5}, "attention": {}}
    ax = layer_curve(with_noise_floor(table(), {"js": {"overall": 0.05, "cells": cells}}))
    own, other = marked(ax, "floor")
    assert own.get_ydata().tolist() == [0.5, 0.05, 0.05, 0.05]
    assert other.get_ydata().tolist() == [0.05] * 4
    lines = [line for line in ax.lines if line.get_gid() != "floor"]
    assert [to_hex(own.get_color()), to_hex(other.get_color())] == [
        to_hex(line.get_color()) for line in lines[:2]
    ]
    assert notes(ax).count("noise floor") == 1


# in the table


@pytest.mark.parametrize(
    "floor", [-1.0, float("nan"), float("inf"), "much", True, {}, {"js": None}]
)
def test_what_is_no_floor_is_refused(floor):
    with pytest.raises((InputError, TypeError)):
        with_noise_floor(table(), floor)


def test_the_table_given_is_not_changed():
    made = table()
    other = with_noise_floor(made, 0.1)
    assert "noise_floor" not in metadata_of(made)
    assert metadata_of(other)["unit"] == "nats"
    assert other.equals(made)


def test_the_floor_is_the_quantile_of_ulp_edits(tiny_gpt2, prompts):
    """Against a sweep of the very edits, quantiles by NumPy."""
    rows = [kg.patch("resid_post", "last", name="a"), kg.knockout(window=3, name="b")]
    options = {"layers": [2, 1], "progress": False}
    floor = kg.evidence.noise_floor(
        tiny_gpt2, prompts, rows, quantile=0.7, metrics=["tv", "js"], draws=2, seed=5, **options
    )
    edits = [
        kg.patch("resid_post", "last", kg.sources.ulp(), name="a"),
        kg.patch("attn_out", "last", kg.sources.ulp(), window=3, name="b"),
    ]
    found = [kg.sweep(tiny_gpt2, prompts, edits, metrics=["tv"], seed=s, **options) for s in (5, 6)]
    every = np.concatenate([one.tv for one in found])
    assert every.max() > 0
    json = metadata_of(floor)["noise_floor"]
    assert set(json) == {"tv", "js"}
    assert json["tv"]["overall"] == pytest.approx(np.quantile(every, 0.7), rel=1e-12)
    places = [[name, layer, 6] for name in "ab" for layer in (2, 1)]
    assert floor[["intervention", "layer", "n"]].to_numpy().tolist() == places
    for name, layer in itertools.product("ab", (2, 1)):
        some = [one.tv[(one.intervention == name) & (one.layer == layer)] for one in found]
        expected = np.quantile(np.concatenate(some), 0.7)
        cell = floor[(floor.intervention == name) & (floor.layer == layer)]
        assert cell.tv.item() == pytest.approx(expected, rel=1e-12)
        assert json["tv"]["cells"][name][str(layer)] == pytest.approx(expected, rel=1e-12)
    table = kg.sweep(tiny_gpt2, prompts, rows, **options)
    kept = metadata_of(kg.evidence.with_noise_floor(table, floor))["noise_floor"]
    assert kept == json
    bits = kg.sweep(tiny_gpt2, prompts, rows, unit="bits", **options)
    with pytest.raises(InputError, match="unit 'bits' and the noise floor 'nats'"):
        kg.evidence.with_noise_floor(bits, floor)
    table.attrs["knockgrid"]["model"]["dtype"] = "bfloat16"
    with pytest.raises(InputError, match="dtype 'bfloat16' and the noise floor 'float64'"):
        kg.evidence.with_noise_floor(table, floor)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"quantile": 99}, "quantile is 99"),
        ({"quantile": 1.0}, "quantile is 1.0"),
        ({"draws": 0}, "draws is 0"),
        ({"metrics": ["jss"]}, "did you mean 'js'"),
        ({"metrics": ["logp_clean"]}, "Allowed: js, kl, kl_reverse, tv"),
    ],
)
def test_a_floor_that_cannot_be_measured(tiny_llama, prompts, options, match):
    with pytest.raises(InputError, match=match):
        kg.evidence.noise_floor(tiny_llama, prompts, **options)


# exceeds


def compared(values, relations=None, contrast="subject | rest", role="contrast", **changes):
    """A table of one treatment and one contrast; `values` is `{layer: [(one, other), ...]}`."""
    rows = [
        {"prompt": f"p{i}", "intervention": name, "layer": layer, "js": js, "status": "ok"}
        for layer, pairs in values.items()
        for i, pair in enumerate(pairs)
        for name, js in zip(("subject", contrast), pair, strict=True)
        if js is not None
    ]
    n = max(map(len, values.values()))
    relations = [f"r{i}" for i in range(n)] if relations is None else relations
    sides = [{"id": f"p{i}", "relation": relations[i]} for i in range(n)]
    about = [
        {"name": "subject", "role": "treatment", "of": None},
        {"name": contrast, "role": role, "of": "subject"},
    ]
    metadata = {"interventions": about, "prompts": sides, "layer_order": list(values), **changes}
    return build(rows, {"unit": "nats", **metadata})


UP = [(0.5 + i / 50, 0.1) for i in range(8)]
DOWN = [(0.1, 0.5 + i / 50) for i in range(8)]
EQUAL = [(0.2, 0.2)] * 8
MIXED = [(0.5, 0.1 + 0.8 * (i % 2)) for i in range(8)]


def test_the_verdict_of_every_layer():
    labels = {"subject": "Subj.", "subject | rest": "Subj. | relation tokens"}
    values = {0: DOWN, 1: MIXED, 2: UP, 3: UP, 4: EQUAL, 5: UP}
    made = exceeds(compared(values, labels=labels))
    assert made.exceeds.tolist() == ["no", "undecided", "yes", "yes", "no", "yes"]
    assert made.layer.tolist() == list(range(6))
    assert set(made.n) == {8} == set(made.n_clusters)
    expected = [np.mean([a - b for a, b in pairs]) for pairs in values.values()]
    np.testing.assert_allclose(made.difference, expected, atol=1e-12)
    assert exceeds_in_words(made) == [
        "Subj. exceeds relation tokens at layers 2–3, 5; not at 0, 4; undecided at 1 "
        "(8 prompts, 8 relations)"
    ]


def test_fewer_than_six_relations_decide_nothing():
    five = list("abcdeabc")
    made = exceeds(compared({0: UP, 1: EQUAL}, five))
    assert set(made.exceeds) == {"undecided"}
    assert exceeds_in_words(made) == [
        "Subj. exceeds rest nowhere; undecided at 0–1 (8 prompts, 5 relations: fewer than 6 decide "
        "nothing)"
    ]
    assert set(exceeds(compared({0: UP}, list("abcdefab"))).exceeds) == {"yes"}
    assert set(exceeds(compared({0: UP}, five), alpha=0.2).exceeds) == {"undecided"}
    mine = {f"p{i}": i % 5 for i in range(8)}
    assert set(exceeds(compared({0: UP}), by=mine).exceeds) == {"undecided"}


def test_only_prompts_that_have_both_are_compared():
    values = {0: [*UP[:7], (0.9, None)], 1: UP}
    made = exceeds(compared(values))
    assert made.n.tolist() == [7, 8]
    assert exceeds_in_words(made)[0].endswith("(7–8 prompts, 8 relations)")
    assert made.difference[0] == pytest.approx(np.mean([a - b for a, b in UP[:7]]))
    none = exceeds(compared({0: [(a, None) for a, _ in UP], 1: UP}))
    assert none.exceeds.tolist() == ["undecided", "yes"]
    assert none.n.tolist() == [0, 8]
    alone = exceeds(compared({0: [*UP, (0.9, None)]}))
    assert alone.n.tolist() == [8]  # its partner was dropped: it has no pair


def test_all_layers_are_held_against_the_largest():
    """One clear layer among many of chance keeps its p; chance layers lose theirs."""
    rng = np.random.default_rng(4)
    chance = {i: list(zip(rng.normal(0.3, 0.1, 8), [0.3] * 8, strict=True)) for i in range(1, 30)}
    made = exceeds(compared({0: UP, **chance}))
    assert made.exceeds[0] == "yes"
    assert made.p_max[0] == pytest.approx(2 / 2**8)
    assert (made.p_max >= made.p).all()
    assert (made.p[1:] < 0.05).any()  # of 29 layers of chance, some are below alpha by themselves
    assert set(made.exceeds[1:]) == {"undecided"}


def test_nulls_are_told_from_contrasts():
    assert exceeds(compared({0: UP}, role="null"), role="null").exceeds.tolist() == ["yes"]
    with pytest.raises(InputError, match="the table has no contrasts"):
        exceeds(compared({0: UP}, role="null"))
    with pytest.raises(InputError, match="unknown role 'treatment'"):
        exceeds(compared({0: UP}), role="treatment")


def test_what_cannot_be_compared_is_refused():
    made = compared({0: UP})
    only = made[made.intervention != "subject"]
    only.attrs = made.attrs
    with pytest.raises(InputError, match="has no row 'subject'"):
        exceeds(only)
    with pytest.raises(InputError, match="infinite"):
        exceeds(compared({0: [(np.inf, 0.1), *UP]}))


def test_ranges():
    expected = {"": [], "3": [3], "4–5": [5, 4], "0, 2, 4": [0, 2, 4], "0–2, 9": [0, 1, 2, 9]}
    assert {ranges(layers): layers for layers in expected.values()} == expected


def test_a_real_sweep_says_where(sweep, prompts):
    table = sweep(prompts, [*kg.information_flow(), *kg.contrasts()])
    made = exceeds(table)
    assert set(made.treatment) == {"subject", "attention", "last"}
    assert made.groupby(["treatment", "contrast"]).ngroups == 10
    assert set(made.exceeds) == {"undecided"}
    means = grid(table).loc
    row = made[(made.contrast == "subject | rest") & (made.layer == 2)]
    expected = means["subject", 2] - means["subject | rest", 2]
    assert row.difference.item() == pytest.approx(expected)


def test_the_floor_is_a_high_percentile_of_the_ulp_rows_alone():
    values = np.linspace(1e-12, 9e-12, 50)
    described = [
        {"name": "subject | ulp", "source": "ulp()", "role": "null", "of": "subject"},
        {"name": "subject | direction", "source": "x", "role": "null", "of": "subject"},
    ]
    rows = [
        {"prompt": f"p{i}", "intervention": one["name"], "layer": layer, "js": js + layer * 1e-12}
        for one in described
        for layer in (0, 1)
        for i, js in enumerate(values if one["name"].endswith("ulp") else values + 1)
    ]
    found = floor_of_nulls(build(rows, {"unit": "nats", "interventions": described}))
    columns = found[["intervention", "layer", "n"]].to_numpy().tolist()
    assert columns == [["subject", 0, 50], ["subject", 1, 50]]
    np.testing.assert_allclose(found.js, np.quantile(values, 0.99) + [0, 1e-12])
    half = floor_of_nulls(build(rows, {"unit": "nats", "interventions": described}), 0.5)
    np.testing.assert_allclose(half.js, np.median(values) + [0, 1e-12])
    with pytest.raises(InputError, match="no ±1-ulp rows"):
        floor_of_nulls(build(rows, {"interventions": described[1:]}))
