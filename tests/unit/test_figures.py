"""Figures: what is plotted, where, in which order, on which scale and under which words."""

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_hex

from knockgrid.errors import InputError
from knockgrid.figures import layer_curve, layer_heatmap, panels
from knockgrid.figures.ticks import tick_places
from knockgrid.stats.mean_interval import mean_interval
from knockgrid.table.table import build, grid

NAMES = ("subject", "attention", "last")


def table(names=NAMES, layers=range(30), prompts=4, groups=(None,), scale=1.0, **metadata):
    """A table in which every cell differs: js grows with prompt, row and layer, and by group."""
    rows = [
        {
            "prompt": f"{group}-{p}",
            "group": group,
            "intervention": name,
            "layer": layer,
            "js": scale * (1 + g) * (0.001 * layer + 0.1 * (1 + n) + 0.01 * p),
        }
        for g, group in enumerate(groups)
        for p in range(prompts)
        for n, name in enumerate(names)
        for layer in layers
    ]
    orders = {"intervention_order": list(names), "layer_order": list(layers)}
    return build(rows, {"unit": "nats", **orders, **metadata})


def hole(made, layers, reason="NA: layer {} cannot see the edge", name="attention"):
    for layer in layers:
        here = (made.intervention == name) & (made.layer == layer)
        made.loc[here, ["js", "status"]] = [np.nan, reason.format(layer)]
    return made


def mesh(ax):
    return next(item for item in ax.collections if isinstance(item, QuadMesh))


def texts(labels):
    return [label.get_text() for label in labels]


def notes(ax):
    return texts(ax.get_legend().get_texts()) if ax.get_legend() else []


def marked(ax, gid):
    return [item for item in (*ax.patches, *ax.texts, *ax.lines) if item.get_gid() == gid]


def titled(figure):
    return [ax for ax in figure.axes if ax.get_title()]


def corners(ax, gid):
    return [(p.get_x(), p.get_y()) for p in marked(ax, gid) if p.get_hatch()]


def test_the_plotted_array_is_the_grid_row_for_row():
    ax = layer_heatmap(table())
    np.testing.assert_array_equal(mesh(ax).get_array(), grid(table()).to_numpy())
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 30), (3, 0))  # the first row on top
    assert texts(ax.get_yticklabels()) == ["Subj.", "Attn.", "Last."]
    assert ax.get_yticks().tolist() == [0.5, 1.5, 2.5]
    assert texts(ax.get_xticklabels()) == [str(layer) for layer in range(0, 30, 2)]
    assert ax.get_xticks().tolist() == [layer + 0.5 for layer in range(0, 30, 2)]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Layer", "")
    assert texts(ax.texts) == []


def test_custom_layers_keep_their_order_and_all_their_labels():
    layers = (27, 0, 15, 16, 17, 18, 19, 20, 21, 3)
    ax = layer_heatmap(table(layers=layers))
    assert texts(ax.get_xticklabels()) == [str(layer) for layer in layers]
    assert mesh(ax).get_array()[0, 0] == grid(table()).loc["subject", 27]


@pytest.mark.parametrize(
    ("layers", "places"),
    [
        (range(3), [0, 1, 2]),
        (range(9), [0, 2, 4, 6, 8]),
        (range(5, 15), [0, 2, 4, 6, 8]),
        (range(80), list(range(0, 80, 4))),
        (range(9, 0, -1), list(range(9))),
        (range(0, 30, 3), list(range(10))),
    ],
)
def test_which_layers_get_a_label(layers, places):
    assert list(tick_places(list(layers))) == places


def test_rows_keep_the_users_order_and_names_without_a_label_stay():
    names = ("last", "mlp", "subject")
    assert texts(layer_heatmap(table(names)).get_yticklabels()) == ["Last.", "mlp", "Subj."]
    labels = {"mlp": "MLP", "subject": "S"}
    ax = layer_heatmap(table(names, labels=labels))
    assert texts(ax.get_yticklabels()) == ["Last.", "MLP", "S"]


@pytest.mark.parametrize(
    ("metric", "unit", "label"),
    [
        ("js", "nats", "Avg. JS divergence (nats)"),
        ("js", "bits", "Avg. JS divergence (bits)"),
        ("kl", "bits", "Avg. KL divergence clean‖intervened (bits)"),
        ("tv", "bits", "Avg. total variation"),
        ("mine", "nats", "Avg. mine"),
        ("js", None, "Avg. JS divergence (unit not recorded)"),
    ],
)
def test_the_colour_bar_names_metric_and_unit(metric, unit, label):
    made = table(unit=unit)
    made[metric] = made["js"]
    if unit is None:
        made.attrs = {}
    assert mesh(layer_heatmap(made, metric)).colorbar.ax.get_ylabel() == label


def test_colours_are_blues_from_zero_to_the_largest_value_or_as_given():
    assert mesh(layer_heatmap(table())).cmap.name == "Blues"
    assert mesh(layer_heatmap(table(), cmap="viridis")).cmap.name == "viridis"
    negative = table(scale=-1.0)
    for made, given, limits in (
        (table(), None, (0.0, grid(table()).max(axis=None))),
        (table(), (0.1, 0.6), (0.1, 0.6)),
        (negative, None, (grid(negative).min(axis=None), grid(negative).max(axis=None))),
        (table(scale=0.0), None, (0.0, 1.0)),
    ):
        assert mesh(layer_heatmap(made, limits=given)).get_clim() == limits


@pytest.mark.parametrize("limits", [(1.0, 0.0), (0.5, 0.5), (0.0, float("inf"))])
def test_limits_that_do_not_increase_are_refused(limits):
    with pytest.raises(InputError, match="low < high"):
        layer_heatmap(table(), limits=limits)


def test_the_title_counts_prompts():
    assert layer_heatmap(table()).get_title() == "n = 4 prompts"
    assert layer_heatmap(table(prompts=1), title="demo").get_title() == "demo (n = 1 prompt)"
    made = table()
    here = (made.prompt == "None-0") & (made.layer == 3)
    made.loc[here, ["js", "status"]] = [np.nan, "NA: no edge"]
    assert layer_heatmap(made).get_title() == "n = 3–4 prompts per cell"


def test_cells_without_a_value_are_hatched_and_explained_once_per_kind():
    ax = layer_heatmap(hole(hole(table(), (0, 2, 4)), (7,), "NA: linear attention"))
    assert corners(ax, "missing") == [(0, 1), (2, 1), (4, 1), (7, 1)]
    assert notes(ax) == ["NA: layer 0 cannot see the edge (and 2 alike)", "NA: linear attention"]
    assert mesh(ax).get_array().mask.sum() == 4
    made = table()  # and what nobody measured
    ax = layer_heatmap(made[(made.intervention != "attention") | (made.layer != 5)])
    assert (corners(ax, "missing"), notes(ax)) == ([(5, 1)], ["NA: not measured"])
    ax = layer_heatmap(hole(table(names=("attention",), layers=range(3)), range(3)))
    assert len(marked(ax, "missing")) == 3
    assert ax.get_title() == "n = 0 prompts"


def test_cells_below_the_noise_floor_are_hatched():
    floor = float(grid(table()).loc["subject", 2])
    ax = layer_heatmap(table(noise_floor=floor))
    assert corners(ax, "floor") == [(0, 0), (1, 0)]
    assert notes(ax) == [f"below the noise floor ({floor:.1g})"]
    assert notes(layer_heatmap(table(noise_floor={"kl": 9.0}))) == []
    assert len(notes(layer_heatmap(table(noise_floor={"js": 9.0})))) == 1
    made = table(noise_floor=9.0)  # one of JS
    made["kl"] = made["js"]
    assert notes(layer_heatmap(made, "kl")) == []


def infinite():
    made = table()
    made.loc[(made.intervention == "last") & (made.layer == 3), "js"] = np.inf
    return made


def test_infinite_cells_say_so_and_leave_the_scale_alone():
    ax = layer_heatmap(infinite())
    assert [(t.get_position(), t.get_text()) for t in marked(ax, "infinite")] == [((3.5, 2.5), "∞")]
    assert mesh(ax).get_clim() == (0.0, grid(table()).max(axis=None))


def test_numbers_are_written_when_asked():
    written = texts(layer_heatmap(table(layers=(0, 1)), annotate=True).texts)
    assert written == [".12", ".12", ".22", ".22", ".32", ".32"]


@pytest.mark.parametrize("figure", [layer_heatmap, layer_curve])
def test_figures_refuse_what_the_grid_refuses(figure):
    made = table()
    made.loc[5, "js"] = np.nan
    with pytest.raises(InputError, match="NaN"):
        figure(made)
    with pytest.raises(InputError, match="did you mean 'js'"):
        figure(table(), "jss")
    tokens = table()
    tokens.loc[tokens.prompt == "None-1", "token"] = 1
    with pytest.raises(InputError, match="'token'"):
        figure(tokens)


def test_one_line_per_intervention_through_the_means():
    ax = layer_curve(table())
    assert [line.get_label() for line in ax.lines] == ["Subj.", "Attn.", "Last."]
    for line, (_, means) in zip(ax.lines, grid(table()).iterrows(), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), range(30))
        np.testing.assert_array_equal(line.get_ydata(), means)
    assert (ax.get_ylabel(), ax.get_title()) == ("Avg. JS divergence (nats)", "n = 4 prompts")
    assert texts(ax.get_xticklabels()) == [str(layer) for layer in range(0, 30, 2)]
    for looks in (lambda a: to_hex(a.get_color()), lambda a: a.get_marker(), lambda a: a.get_ls()):
        assert len({looks(line) for line in ax.lines}) == 3


def test_layers_that_do_not_increase_stand_in_the_users_order():
    ax = layer_curve(table(layers=(27, 0, 15)))
    assert ax.lines[0].get_xdata().tolist() == [0, 1, 2]
    assert texts(ax.get_xticklabels()) == ["27", "0", "15"]
    spaced = layer_curve(table(layers=(0, 15, 27)))
    assert spaced.lines[0].get_xdata().tolist() == [0, 15, 27]
    assert spaced.get_xticks().tolist() == [0, 15, 27]


def vertices(collection):
    return collection.get_paths()[0].vertices


def told(ax):
    return ax.get_legend().get_title().get_text()


def test_the_band_holds_for_all_layers_and_names_its_clusters():
    ax, found = layer_curve(table(prompts=8)), mean_interval(table(prompts=8))
    for band, name in zip(ax.collections, NAMES, strict=True):
        mine = found[found.intervention == name]
        drawn = vertices(band)
        for layer, low, high in zip(range(30), mine.band_low, mine.band_high, strict=True):
            here = drawn[drawn[:, 0] == layer, 1]
            assert (here.min(), here.max()) == pytest.approx((low, high))
        assert (mine.band_low < mine["mean"]).all()
        assert (mine["mean"] < mine.band_high).all()
    assert told(ax) == "band: 95 % simultaneous over layers,\n8 prompts"


def test_a_band_over_relations_is_wider_than_one_over_their_prompts():
    sides = [{"id": f"None-{p}", "relation": f"relation {p // 5}"} for p in range(40)]
    plain, related = table(prompts=40), table(prompts=40)
    related.attrs["knockgrid"]["prompts"] = sides
    axes = [layer_curve(made) for made in (plain, related)]
    plain, related = (np.ptp(vertices(ax.collections[0])[:, 1]) for ax in axes)
    assert related > 1.5 * plain
    assert told(axes[1]).endswith("8 relations")


def test_the_band_is_fixed_by_its_seed():
    def drawn(seed):
        return vertices(layer_curve(table(prompts=9), seed=seed).collections[0])

    np.testing.assert_array_equal(drawn(0), drawn(0))
    assert not np.array_equal(drawn(0), drawn(1))


def test_missing_cells_have_a_band_as_long_as_six_clusters_are_left():
    made = table(names=("last",), prompts=8, layers=(0, 1))
    lost = (made.layer == 1) & made.prompt.isin(["None-0", "None-1", "None-2"])
    made.loc[lost, ["js", "status"]] = [np.nan, "NA: no edge"]
    drawn = vertices(layer_curve(made).collections[0])
    assert set(drawn[:, 0]) == {0.0}


def test_fewer_than_six_clusters_are_drawn_one_by_one():
    ax = layer_curve(table(names=("last",), prompts=4))
    assert told(ax) == "only 4 prompts: no band, a thin line each"
    (threads,) = ax.collections
    expected = 0.1 + 0.001 * np.arange(30) + 0.01 * np.arange(4)[:, None]
    drawn = [path.vertices for path in threads.get_paths()]
    np.testing.assert_allclose([line[:, 1] for line in drawn], expected)
    np.testing.assert_array_equal(drawn[0][:, 0], range(30))
    assert len(layer_curve(table(names=("last",), prompts=6)).collections[0].get_paths()) == 1


def test_one_prompt_has_no_band_and_says_so():
    ax = layer_curve(table(prompts=1))
    assert told(ax) == "one prompt: no band"
    assert not ax.collections
    assert ax.get_title() == "n = 1 prompt"


def test_infinite_means_are_counted_not_drawn():
    ax = layer_curve(infinite())
    line = ax.lines[2]
    assert len(ax.collections) == 2  # no thin lines or band beside a line that leaves the axis
    assert line.get_label() == "Last. (infinite at 1 layer)"
    assert np.isnan(line.get_ydata()).tolist() == [layer == 3 for layer in range(30)]


def test_curves_begin_at_zero_unless_told_otherwise():
    assert layer_curve(table()).get_ylim()[0] == 0.0
    assert layer_curve(table(), limits=(0.2, 0.6)).get_ylim() == (0.2, 0.6)
    assert layer_curve(table(scale=-1.0)).get_ylim()[0] < -0.3


def test_a_level_outside_0_to_1_is_refused():
    with pytest.raises(InputError, match="give 0.95"):
        layer_curve(table(), level=95.0)


GROUPS = ("FA", "AH", "UH")


def test_one_panel_per_group_in_order_of_appearance_or_as_asked():
    made = table(groups=GROUPS)
    drawn = titled(panels(made, columns=2))
    assert [ax.get_title() for ax in drawn] == [f"{g} (n = 4 prompts)" for g in GROUPS]
    assert len(drawn[0].figure.axes) == 4  # with the colour bar; the spare place stays empty
    for ax, group in zip(drawn, GROUPS, strict=True):
        np.testing.assert_array_equal(mesh(ax).get_array(), grid(made[made.group == group]))
    drawn = titled(panels(made, order=["UH", "FA"]))
    assert [ax.get_title()[:2] for ax in drawn] == ["UH", "FA"]
    drawn = titled(panels(table(groups=("FA", None))))
    assert [ax.get_title() for ax in drawn] == ["FA (n = 4 prompts)", "none (n = 4 prompts)"]


def test_a_shared_scale_has_the_same_limits_and_one_colour_bar():
    made = table(groups=("FA", "AH"))
    figure = panels(made)
    assert len(figure.axes) == 3
    limits = {mesh(ax).get_clim() for ax in titled(figure)}
    assert limits == {(0.0, grid(made[made.group == "AH"]).max(axis=None))}
    (bar,) = [ax for ax in figure.axes if not ax.get_title()]
    assert bar.get_ylabel() == "Avg. JS divergence (nats)"
    assert bar.get_ylim() == next(iter(limits))


def test_own_scales_have_their_own_limits_and_colour_bars():
    made = table(groups=("FA", "AH"))
    figure = panels(made, shared_scale=False)
    tops = [mesh(ax).get_clim()[1] for ax in titled(figure)]
    assert tops == [grid(made[made.group == g]).max(axis=None) for g in ("FA", "AH")]
    assert len(figure.axes) == 4
    figure = panels(made, limits=(0.2, 0.6))
    assert {mesh(ax).get_clim() for ax in titled(figure)} == {(0.2, 0.6)}
    for shared, count in ((True, 1), (False, 2)):
        drawn = titled(panels(made, layer_curve, level=0.5, shared_scale=shared))
        assert len({ax.get_ylim() for ax in drawn}) == count


def test_panels_by_another_column_and_metric():
    made = table()
    made["half"] = np.where(made.prompt < "None-2", "first", "second")
    made["kl"] = made["js"] * 2
    figure = panels(made, by="half", metric="kl", columns=2)
    assert [ax.get_title() for ax in titled(figure)] == [
        "first (n = 2 prompts)",
        "second (n = 2 prompts)",
    ]
    assert figure.axes[-1].get_ylabel().startswith("Avg. KL")
    assert len({ax.get_position().y0 for ax in titled(figure)}) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"by": "groups"}, "did you mean 'group'"),
        ({}, "'group' is empty"),
        ({"by": "prompt", "order": ["None-9"]}, "unknown prompt 'None-9'; did you mean"),
        ({"by": "prompt", "columns": 0}, "1 or more"),
    ],
)
def test_panels_refuse(options, words):
    with pytest.raises(InputError, match=words):
        panels(table(), **options)
