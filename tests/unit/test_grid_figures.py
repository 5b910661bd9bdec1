"""The grid figures: plotted array, ticks, order and colour norm, not pixels."""

import numpy as np
import pytest

import knockgrid as kg
from knockgrid.table.table import build

LAYERS = [15, 0, 16]


def array(ax):
    mesh = ax.collections[0]
    return np.asarray(mesh.get_array(), float).reshape(mesh.get_array().shape), mesh.get_clim()


def texts(labels):
    return [label.get_text() for label in labels]


def titles(whole):
    return [ax.get_title() for ax in whole.axes if ax.get_title()]


def tokens(prompts=("rome",), diverged=None):
    row = {"intervention": "attention", "diverged": diverged}
    rows = [
        {**row, "prompt": p, "layer": n, "token": t, "token_text": f" t{t}", "kl": n + t / 10 + i}
        for i, p in enumerate(prompts)
        for n in LAYERS
        for t in range(3)
    ]
    return build(rows, {"unit": "nats", "mode": "free_run", "n_tokens": 3, "layer_order": LAYERS})


def test_token_heatmap():
    ax = kg.token_heatmap(tokens())
    values, limits = array(ax)
    np.testing.assert_allclose(values, [[n, n + 0.1, n + 0.2] for n in LAYERS])
    assert limits == (0.0, 16.2)
    assert texts(ax.get_yticklabels()) == ["15", "0", "16"]  # the user's order
    assert texts(ax.get_xticklabels()) == ["Gen0\n t0", "Gen1\n t1", "Gen2\n t2"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Generated Token", "Layer")
    assert ax.get_title() == "attention · free_run (n = 1 prompt)"
    light, dark = ax.collections[0].cmap(0.0), ax.collections[0].cmap(1.0)
    assert min(light[:2]) > 0.9  # light yellow
    assert dark[0] > 2 * max(dark[1:3])  # dark red


def test_token_heatmap_marks_the_first_token_that_differs():
    ax = kg.token_heatmap(tokens(diverged=1))
    lines = [line for line in ax.lines if line.get_gid() == "diverged"]
    assert [list(line.get_xdata()) for line in lines] == [[1, 1]] * 3
    assert texts(ax.get_legend().get_texts()) == ["first diverging token"]
    assert not [line for line in kg.token_heatmap(tokens()).lines if line.get_gid() == "diverged"]
    many = kg.token_heatmap(tokens(("rome", "oslo"), diverged=2))
    assert texts(many.get_xticklabels()) == ["Gen0", "Gen1", "Gen2"]
    assert texts(many.get_legend().get_texts()) == ["first diverging token in half of the prompts"]


def test_token_heatmap_wants_one_intervention():
    table = tokens()
    two = table.assign(intervention=["a", "b"] + ["a"] * (len(table) - 2))
    with pytest.raises(kg.InputError, match=r"several interventions \(a, b\)"):
        kg.token_heatmap(two)
    with pytest.raises(kg.InputError, match="no intervention 'c'"):
        kg.token_heatmap(two, intervention="c")


def family(column, members, n_layers=4, **metadata):
    rows = [
        {"prompt": "rome", "intervention": f"one {one}", column: one, "layer": layer}
        | {"js": 0.1 * i + 0.01 * layer}
        for i, one in enumerate(members)
        for layer in range(n_layers)
    ]
    return build(rows, {"unit": "nats", **metadata})


def test_head_heatmap():
    ax = kg.figures.head_heatmap(family("head", [3, 1]))
    values, limits = array(ax)
    np.testing.assert_allclose(values, [[0.1 * i + 0.01 * n for n in range(4)] for i in (0, 1)])
    assert texts(ax.get_yticklabels()) == ["3", "1"]
    assert (ax.get_xlabel(), ax.get_ylabel(), limits[0]) == ("Layer", "Head", 0.0)


def test_module_heatmap_has_layer_0_at_the_bottom_and_a_scale_around_the_middle():
    table = family("module", ["attn. q", "mlp. up"])
    assert kg.figures.module_heatmap(table).collections[0].cmap.name == "Blues"  # unless asked
    ax = kg.figures.module_heatmap(table, diverging=True)
    values, limits = array(ax)
    np.testing.assert_allclose(values[:, 1], [0.1, 0.11, 0.12, 0.13])
    assert ax.get_ylim()[0] < ax.get_ylim()[1]  # the first row is drawn lowest
    assert limits == pytest.approx((0.0, 0.13))
    above = table[table["module"] == "mlp. up"]
    assert array(kg.figures.module_heatmap(above))[1] == (0.0, pytest.approx(0.13))
    assert array(kg.figures.module_heatmap(above, diverging=True))[1] == pytest.approx((0.1, 0.13))
    assert np.allclose(ax.collections[0].cmap(0.5), 1.0, atol=0.01)  # white in the middle
    assert texts(ax.get_xticklabels()) == ["attn. q", "mlp. up"]
    assert ax.get_title() == "Avg. JS divergence (nats) (n = 1 prompt)"


def test_module_heatmap_ticks_every_third_layer():
    rows = [
        {"prompt": "a", "intervention": "q", "module": "q", "layer": layer, "mine": layer}
        for layer in range(12)
    ]
    table = build(rows, {"statistics": {"mine": "what it is (unit)"}})
    ax = kg.figures.module_heatmap(table, "mine")
    assert texts(ax.get_yticklabels()) == ["0", "3", "6", "9"]
    assert ax.get_title() == "mine (n = 1 prompt)"
    assert ax.collections[0].colorbar.ax.get_ylabel() == "Avg. what it is (unit)"


def test_position_heatmap_by_name_and_by_token():
    ax = kg.position_heatmap(family("position", ["subject_last", "last"]))
    values, _ = array(ax)
    np.testing.assert_allclose(values[:, 0], [0.0, 0.01, 0.02, 0.03])
    assert texts(ax.get_xticklabels()) == ["subject_last", "last"]
    assert ax.yaxis.get_inverted()
    side = {"id": "rome", "tokens": ["<s>", " Rome"], "subject_tokens": [1]}
    named = kg.position_heatmap(family("position", ["0", "1", "2"], prompts=[side]))
    assert texts(named.get_xticklabels()) == ["<s>", " Rome*", "2"]  # it has no token 2


def test_the_least_dose_is_at_the_bottom_in_any_order():
    for doses in ([0.5, 1.0], [1.0, 0.5]):
        ax = kg.figures.dose_heatmap(family("alpha", doses))
        assert texts(ax.get_yticklabels()) == ["0.5", "1"]
        assert ax.get_ylim()[0] < ax.get_ylim()[1]
        least = 0.1 * doses.index(0.5)
        np.testing.assert_allclose(array(ax)[0][:, 0], [least, 0.1 - least])


@pytest.mark.parametrize("name", ["head", "module", "position", "alpha"])
def test_a_table_without_the_family_is_refused(name):
    figure = getattr(kg.figures, f"{ {'alpha': 'dose'}.get(name, name) }_heatmap")
    with pytest.raises(kg.InputError, match=f"column '{name}' is empty"):
        figure(tokens(), "kl")


MOVED = family("position", ["last_q", "-1"], n_layers=3)


def probed(auc, **metadata):
    rows = [
        {"prompt": f"seed {seed}", "intervention": "probe", "layer": layer, "position": at}
        | {"auc": auc + 0.1 * layer, "auc_shuffled": 0.45}
        for seed in range(2)
        for layer in range(3)
        for at in ("last_q", "-1")
    ]
    order = {"layer_order": [0, 1, 2], "position_order": ["last_q", "-1"]}
    return build(rows, {**order, **metadata})


def test_probe_beside_effect_has_the_auc_its_control_and_what_is_not_used():
    apart = kg.evidence.readable_not_used(probed(0.4), MOVED)
    whole = kg.figures.probe_beside_effect(probed(0.4), MOVED, apart)
    axes = [ax for ax in whole.axes if ax.get_title()]
    assert titles(whole) == [
        *("probe (2 seeds)", "shuffled labels (2 seeds)"),
        *("divergence (n = 1 prompt)", "readable but not used"),
    ]
    values, limits = array(axes[0])
    np.testing.assert_allclose(values, [[0.4, 0.4], [0.5, 0.5], [0.6, 0.6]])
    assert limits == (0.5, 1.0)
    below = [[t for t in ax.texts if t.get_gid() == "below chance"] for ax in axes[:2]]
    assert [len(marks) for marks in below] == [2, 6]  # chance and worse stay visible
    last, limits = array(axes[3])
    assert limits == (-1.0, 1.0)
    np.testing.assert_allclose(last, apart.to_numpy())
    assert texts(axes[3].get_xticklabels()) == ["last_q", "-1"]
    assert all(ax.yaxis.get_inverted() for ax in axes)
    signed = kg.figures.probe_beside_effect(probed(0.4), MOVED, diverging=True)
    assert array(signed.axes[0])[1] == (0.0, 1.0)
    assert signed.axes[0].collections[0].cmap.name == "RdBu_r"


def test_probes_and_sweeps_of_other_lengths_are_not_compared():
    moved = family("position", ["last_q", "-1"], n_layers=3, n_tokens=9)
    with pytest.raises(kg.InputError, match="n_tokens=8 and the sweep with 9"):
        kg.evidence.readable_not_used(probed(0.7, n_tokens=8), moved)


def group(shift, prompts=("rome", "oslo"), unit="nats"):
    rows = [
        {"prompt": p, "intervention": "last", "layer": layer, "js": 0.1 * layer + i + shift}
        for i, p in enumerate(prompts)
        for layer in range(3)
    ]
    return build(rows, {"unit": unit})


def test_a_difference_is_paired_by_prompt():
    for prompt, more, paired in (("rome", 0.25, True), ("lima", 0.25 - 0.5, False)):
        found = kg.stats.difference(group(0.0), group(0.25, (prompt,)))
        np.testing.assert_allclose(found.js, more)  # rome and oslo have a mean of 0.5 more
        assert found.attrs["knockgrid"]["paired"] is paired


def test_differences_that_mean_nothing_are_refused():
    with pytest.raises(kg.InputError, match="in nats and bits"):
        kg.stats.difference(group(0.0), group(0.0, unit="bits"))
    with pytest.raises(kg.InputError, match="unknown metric 'kl'"):
        kg.stats.difference(group(0.0), group(0.0), "kl")


def test_side_by_side_shares_a_scale_and_centres_the_difference():
    whole = kg.figures.side_by_side({"A": group(0.0), "B": group(0.5)})
    axes = [ax for ax in whole.axes if ax.get_title()]
    assert titles(whole) == ["A (n = 2 prompts)", "B (n = 2 prompts)", "B − A (paired)"]
    scales = [array(ax)[1] for ax in axes]
    assert scales[0] == scales[1] == (0.0, pytest.approx(1.2))
    assert scales[2] == pytest.approx((-0.5, 0.5))
    np.testing.assert_allclose(array(axes[2])[0], 0.5)


def test_an_interval_holds_the_mean_and_names_its_clusters():
    made = group(0.0, tuple(f"p{i}" for i in range(12)))
    made["js"] /= 20  # a JS divergence is at most ln 2, where intervals end
    low, high = kg.stats.interval_ends(made)
    mean = kg.grid(made).loc["last"].to_numpy()
    assert (low.js.to_numpy() < mean).all()
    assert (mean < high.js.to_numpy()).all()
    found = kg.stats.mean_interval(made)
    np.testing.assert_array_equal(low.js, found.low)
    np.testing.assert_array_equal(high.js, found.high)
    assert titles(kg.figures.with_interval(made)) == [
        "lower end (95 %, 12 prompts)",
        "mean (n = 12 prompts)",
        "upper end (95 %, 12 prompts)",
    ]
    with pytest.raises(kg.InputError, match="two prompts or more"):
        kg.stats.interval_ends(group(0.0, ("rome",)))


def test_without_six_clusters_the_interval_shows_the_extreme_ones():
    few = group(0.0)
    low, high = kg.stats.interval_ends(few)
    assert low.js.isna().all()
    assert (high.status == "NA: only 2 prompts: no interval, which needs 6").all()
    whole = kg.figures.with_interval(few)
    axes = [ax for ax in whole.axes if ax.get_title()]
    assert titles(whole)[::2] == ["lowest of 2 prompts", "highest of 2 prompts"]
    wide = few.pivot(index="prompt", columns="layer", values="js")
    np.testing.assert_allclose(array(axes[0])[0].ravel(), wide.min())
    np.testing.assert_allclose(array(axes[2])[0].ravel(), wide.max())


LAYERED = [
    {"prompt": "a", "intervention": name, "layer": i, "layers": layers, "token": 0, "js": js}
    for name, i, layers, js in [
        ("only", 0, "0", 0.1),
        ("only", 1, "1", 0.2),
        ("from", 0, "0,1", 0.7),
        ("from", 1, "1", 0.2),
    ]
]
TENFOLD = [{**row, "token": 1, "js": 10 * row["js"]} for row in LAYERED]


def test_redundancy_sums_the_layers_of_the_set_token_by_token():
    found = kg.stats.redundancy(build([*LAYERED, *TENFOLD], {"unit": "nats"}), "only", "from")
    np.testing.assert_allclose(found.js, [-0.4, 0.0, -4.0, 0.0], atol=1e-12)
    holed = [{**LAYERED[0]}, {**LAYERED[1], "js": None, "status": "NA: no edge"}, LAYERED[2]]
    found = kg.stats.redundancy(build([*holed, *TENFOLD], {}), "only", "from")
    assert found.status.str.startswith("NA").tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("rows", "single", "words"),
    [
        (LAYERED, "single", "unknown intervention 'single'.*Allowed: only, from"),
        (LAYERED[1:], "only", "layer 0 of the set at layer 0 has no cell of 'only'"),
        ([*LAYERED, LAYERED[0]], "only", "several cells for one layer and token"),
    ],
)
def test_what_redundancy_refuses(rows, single, words):
    with pytest.raises(kg.InputError, match=words):
        kg.stats.redundancy(build(rows, {}), single, "from")


def test_contrasts_use_what_a_grid_shows():
    rows = [
        {"prompt": p, "intervention": "last", "layer": 0, "js": js, "status": status}
        for p, js, status in [("a", 0.1, "ok"), ("b", 0.9, "NA: wrong")]
    ]
    other = [{**row, "js": js} for row, js in zip(rows, (0.1, 2.7), strict=True)]
    np.testing.assert_allclose(kg.stats.difference(build(rows, {}), build(other, {})).js, 0.0)
    with pytest.raises(kg.InputError, match="infinite in some cells"):
        kg.stats.interval_ends(group(0.0).assign(js=[0.1, np.inf, 0.3, 0.1, 0.2, 0.3]))
