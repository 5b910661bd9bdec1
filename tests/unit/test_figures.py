"""Figures: what is plotted, where, in which order, on which scale and under which words."""

import os
import subprocess
import sys

import matplotlib
import matplotlib.figure
import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_hex

from knockgrid import figures
from knockgrid.errors import InputError
from knockgrid.figures import layer_curve, layer_heatmap, panels, save
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


# layer_heatmap


def test_the_plotted_array_is_the_grid_row_for_row():
    ax = layer_heatmap(table())
    plotted = mesh(ax).get_array()
    assert plotted.shape == (3, 30)
    np.testing.assert_array_equal(plotted, grid(table()).to_numpy())
    assert ax.get_ylim() == (3, 0)  # the first row on top
    assert ax.get_xlim() == (0, 30)


def test_rows_and_layers_of_the_published_figure():
    ax = layer_heatmap(table())
    assert texts(ax.get_yticklabels()) == ["Subj.", "Attn.", "Last."]
    assert ax.get_yticks().tolist() == [0.5, 1.5, 2.5]
    assert texts(ax.get_xticklabels()) == [str(layer) for layer in range(0, 30, 2)]
    assert ax.get_xticks().tolist() == [layer + 0.5 for layer in range(0, 30, 2)]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Layer", "")


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
    ],
)
def test_the_colour_bar_names_metric_and_unit(metric, unit, label):
    made = table(unit=unit)
    made[metric] = made["js"]
    assert mesh(layer_heatmap(made, metric)).colorbar.ax.get_ylabel() == label


def test_a_lost_unit_is_said():
    made = table()
    made.attrs = {}
    label = mesh(layer_heatmap(made)).colorbar.ax.get_ylabel()
    assert label == "Avg. JS divergence (unit not recorded)"


def test_colours_are_blues_from_zero_to_the_largest_value_or_as_given():
    ax = layer_heatmap(table())
    assert mesh(ax).cmap.name == "Blues"
    assert mesh(ax).get_clim() == (0.0, grid(table()).max(axis=None))
    assert mesh(layer_heatmap(table(), limits=(0.1, 0.6))).get_clim() == (0.1, 0.6)
    assert mesh(layer_heatmap(table(), cmap="viridis")).cmap.name == "viridis"


def test_colours_of_negative_and_of_equal_values():
    negative = table(scale=-1.0)
    low, high = grid(negative).min(axis=None), grid(negative).max(axis=None)
    assert mesh(layer_heatmap(negative)).get_clim() == (low, high)
    assert mesh(layer_heatmap(table(scale=0.0))).get_clim() == (0.0, 1.0)


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
    assert [(p.get_x(), p.get_y()) for p in marked(ax, "missing")] == [
        (0, 1),
        (2, 1),
        (4, 1),
        (7, 1),
    ]
    assert all(patch.get_hatch() for patch in marked(ax, "missing"))
    assert notes(ax) == ["NA: layer 0 cannot see the edge (and 2 alike)", "NA: linear attention"]
    assert mesh(ax).get_array().mask.sum() == 4


def test_a_cell_that_nobody_measured_is_hatched_too():
    made = table()
    ax = layer_heatmap(made[(made.intervention != "attention") | (made.layer != 5)])
    assert [(p.get_x(), p.get_y()) for p in marked(ax, "missing")] == [(5, 1)]
    assert notes(ax) == ["NA: not measured"]


def test_a_table_without_any_value_is_drawn_as_such():
    ax = layer_heatmap(hole(table(names=("attention",), layers=range(3)), range(3)))
    assert len(marked(ax, "missing")) == 3
    assert ax.get_title() == "n = 0 prompts"


def test_cells_below_the_noise_floor_are_hatched():
    floor = float(grid(table()).loc["subject", 2])
    ax = layer_heatmap(table(noise_floor=floor))
    assert [(p.get_x(), p.get_y()) for p in marked(ax, "floor")] == [(0, 0), (1, 0)]
    assert all(patch.get_hatch() for patch in marked(ax, "floor"))
    assert notes(ax) == [f"below the noise floor ({floor:.1g})"]
    assert notes(layer_heatmap(table(noise_floor={"kl": 9.0}))) == []
    assert len(notes(layer_heatmap(table(noise_floor={"js": 9.0})))) == 1


def test_a_bare_noise_floor_is_one_of_js():
    made = table(noise_floor=9.0)
    made["kl"] = made["js"]
    assert notes(layer_heatmap(made, "kl")) == []


def test_infinite_cells_say_so_and_leave_the_scale_alone():
    made = table()
    made.loc[(made.intervention == "last") & (made.layer == 3), "js"] = np.inf
    ax = layer_heatmap(made)
    assert [(t.get_position(), t.get_text()) for t in marked(ax, "infinite")] == [((3.5, 2.5), "∞")]
    assert mesh(ax).get_clim() == (0.0, grid(table()).max(axis=None))


def test_numbers_are_written_when_asked():
    assert texts(layer_heatmap(table()).texts) == []
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


# layer_curve


def test_one_line_per_intervention_through_the_means():
    ax = layer_curve(table())
    assert [line.get_label() for line in ax.lines] == ["Subj.", "Attn.", "Last."]
    for line, (_, means) in zip(ax.lines, grid(table()).iterrows(), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), range(30))
        np.testing.assert_array_equal(line.get_ydata(), means)
    assert ax.get_ylabel() == "Avg. JS divergence (nats)"
    assert ax.get_title() == "n = 4 prompts"
    assert texts(ax.get_xticklabels()) == [str(layer) for layer in range(0, 30, 2)]


def test_lines_differ_in_colour_marker_and_dash():
    lines = layer_curve(table()).lines
    for looks in (lambda a: to_hex(a.get_color()), lambda a: a.get_marker(), lambda a: a.get_ls()):
        assert len({looks(line) for line in lines}) == len(lines)


def test_layers_that_do_not_increase_stand_in_the_users_order():
    ax = layer_curve(table(layers=(27, 0, 15)))
    assert ax.lines[0].get_xdata().tolist() == [0, 1, 2]
    assert texts(ax.get_xticklabels()) == ["27", "0", "15"]
    spaced = layer_curve(table(layers=(0, 15, 27)))
    assert spaced.lines[0].get_xdata().tolist() == [0, 15, 27]
    assert spaced.get_xticks().tolist() == [0, 15, 27]


def vertices(collection):
    return collection.get_paths()[0].vertices


def side(prompt, relation, subject=None):
    return {"id": prompt, "relation": relation, "subject": subject}


def test_the_band_holds_for_all_layers_and_names_its_clusters():
    made = table(prompts=8)
    ax = layer_curve(made)
    found = mean_interval(made)
    for band, name in zip(ax.collections, NAMES, strict=True):
        mine = found[found.intervention == name]
        drawn = vertices(band)
        for layer, low, high in zip(range(30), mine.band_low, mine.band_high, strict=True):
            here = drawn[drawn[:, 0] == layer, 1]
            assert (here.min(), here.max()) == pytest.approx((low, high))
        assert (mine.band_low < mine["mean"]).all()
        assert (mine["mean"] < mine.band_high).all()
    told = ax.get_legend().get_title().get_text()
    assert told == "band: 95 % simultaneous over layers,\n8 prompts"


def test_a_band_over_relations_is_wider_than_one_over_their_prompts():
    sides = [side(f"None-{p}", f"relation {p // 5}") for p in range(40)]
    plain, told = table(prompts=40), table(prompts=40)
    told.attrs["knockgrid"]["prompts"] = sides
    heights = []
    for made in (plain, told):
        ax = layer_curve(made)
        heights.append(np.ptp(vertices(ax.collections[0])[:, 1]))
        words = ax.get_legend().get_title().get_text()
    assert words.endswith("8 relations")
    assert heights[1] > 1.5 * heights[0]


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
    assert ax.get_legend().get_title().get_text() == "only 4 prompts: no band, a thin line each"
    (threads,) = ax.collections
    expected = 0.1 + 0.001 * np.arange(30) + 0.01 * np.arange(4)[:, None]
    drawn = [path.vertices for path in threads.get_paths()]
    np.testing.assert_allclose([line[:, 1] for line in drawn], expected)
    np.testing.assert_array_equal(drawn[0][:, 0], range(30))
    assert len(layer_curve(table(names=("last",), prompts=6)).collections[0].get_paths()) == 1


def test_one_prompt_has_no_band_and_says_so():
    ax = layer_curve(table(prompts=1))
    assert ax.get_legend().get_title().get_text() == "one prompt: no band"
    assert not ax.collections
    assert ax.get_title() == "n = 1 prompt"


def test_infinite_means_are_counted_not_drawn():
    made = table()
    made.loc[(made.intervention == "last") & (made.layer == 3), "js"] = np.inf
    ax = layer_curve(made)
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


# panels


def test_one_panel_per_group_in_order_of_appearance():
    made = table(groups=("FA", "AH", "UH"))
    drawn = titled(panels(made))
    assert [ax.get_title() for ax in drawn] == [f"{g} (n = 4 prompts)" for g in ("FA", "AH", "UH")]
    for ax, group in zip(drawn, ("FA", "AH", "UH"), strict=True):
        np.testing.assert_array_equal(mesh(ax).get_array(), grid(made[made.group == group]))


def test_order_sorts_and_selects():
    made = table(groups=("FA", "AH", "UH"))
    drawn = titled(panels(made, order=["UH", "FA"]))
    assert [ax.get_title()[:2] for ax in drawn] == ["UH", "FA"]
    with pytest.raises(InputError, match="unknown group 'FH'; did you mean"):
        panels(made, order=["FH"])


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


def test_limits_by_hand_bind_every_panel():
    figure = panels(table(groups=("FA", "AH")), limits=(0.2, 0.6))
    assert {mesh(ax).get_clim() for ax in titled(figure)} == {(0.2, 0.6)}


def test_curves_share_their_axis():
    made = table(groups=("FA", "AH"))
    limits = {ax.get_ylim() for ax in titled(panels(made, layer_curve, level=0.5))}
    assert len(limits) == 1
    own = {ax.get_ylim() for ax in titled(panels(made, layer_curve, shared_scale=False))}
    assert len(own) == 2


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


def test_spare_places_stay_empty():
    assert len(panels(table(groups=("FA", "AH", "UH")), columns=2).axes) == 4


def test_a_missing_group_is_the_panel_none():
    drawn = titled(panels(table(groups=("FA", None))))
    assert [ax.get_title() for ax in drawn] == ["FA (n = 4 prompts)", "none (n = 4 prompts)"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"by": "groups"}, "did you mean 'group'"),
        ({}, "'group' is empty"),
        ({"by": "prompt", "columns": 0}, "1 or more"),
    ],
)
def test_panels_refuse(options, words):
    with pytest.raises(InputError, match=words):
        panels(table(), **options)


# save


def test_without_a_suffix_all_three_are_written(tmp_path):
    paths = save(layer_heatmap(table()), tmp_path / "new" / "flow")
    assert [path.name for path in paths] == ["flow.pdf", "flow.svg", "flow.png"]
    heads = [path.read_bytes()[:5] for path in paths]
    assert heads == [b"%PDF-", b"<?xml", b"\x89PNG\r"]
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == [
        "flow.pdf",
        "flow.png",
        "flow.svg",
    ]


@pytest.mark.parametrize("suffix", [".pdf", ".svg", ".png"])
def test_one_suffix_writes_one_file(tmp_path, suffix):
    path = tmp_path / f"flow{suffix}"
    assert save(layer_heatmap(table()), path) == (path,)
    assert list(tmp_path.iterdir()) == [path]


def test_an_unknown_suffix_is_refused(tmp_path):
    with pytest.raises(InputError, match="unknown suffix '.pgn'; did you mean '.png'"):
        save(layer_heatmap(table()), tmp_path / "flow.pgn")
    assert list(tmp_path.iterdir()) == []


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from test_figures import hole, layer_curve, layer_heatmap, panels, save, table
made = hole(table(groups=("FA", "AH"), noise_floor=0.2), (0, 2))
save(panels(made), {folder!r} + "/panels")
save(layer_curve(made), {folder!r} + "/curve")
"""


def test_files_are_the_same_bytes_in_every_process(tmp_path):
    seen = []
    for run, clock in (("one", "0"), ("two", "4000000000")):
        script = SCRIPT.format(tests=os.path.dirname(__file__), folder=str(tmp_path / run))
        # another date and another hash seed: what differs between two days
        env = {**os.environ, "SOURCE_DATE_EPOCH": clock, "PYTHONHASHSEED": clock}
        subprocess.run([sys.executable, "-c", script], check=True, env=env)
        seen.append({path.name: path.read_bytes() for path in (tmp_path / run).iterdir()})
    assert len(seen[0]) == 6
    assert [name for name in seen[0] if seen[0][name] != seen[1][name]] == []


def test_saving_twice_gives_the_same_bytes(tmp_path):
    ax = layer_heatmap(table())
    first = [path.read_bytes() for path in save(ax, tmp_path / "flow")]
    assert first == [path.read_bytes() for path in save(ax, tmp_path / "flow")]


def test_fonts_are_embedded_and_svg_text_is_drawn(tmp_path):
    pdf, svg, _ = save(layer_heatmap(table()), tmp_path / "flow")
    assert b"/FontFile2" in pdf.read_bytes()
    assert b"/Type3" not in pdf.read_bytes()
    assert b"<text" not in svg.read_bytes()


def test_a_failed_save_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        save(layer_heatmap(table()), tmp_path / "flow")
    assert list(tmp_path.iterdir()) == []


def test_a_plain_savefig_works_too(tmp_path):
    layer_heatmap(table()).figure.savefig(tmp_path / "flow.pdf")
    assert (tmp_path / "flow.pdf").read_bytes().startswith(b"%PDF")


# the surroundings


def test_nothing_global_changes(tmp_path):
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    figure = panels(table(groups=("FA", "AH")))
    save(figure, tmp_path / "a")
    save(layer_curve(table()), tmp_path / "b")
    assert dict(matplotlib.rcParams) == before
    assert plt.get_fignums() == []


def test_a_given_axes_is_used_and_returned():
    for figure in (layer_heatmap, layer_curve):
        ax = matplotlib.figure.Figure().subplots()
        assert figure(table(), ax=ax) is ax
        assert ax.get_title()


def test_in_a_notebook_the_figure_is_pyplots(monkeypatch):
    import matplotlib.pyplot as plt

    monkeypatch.setitem(sys.modules, "ipykernel", matplotlib)
    monkeypatch.setitem(matplotlib.rcParams, "backend", "agg")
    ax = layer_heatmap(table())
    try:
        assert plt.gcf() is ax.figure
    finally:
        plt.close(ax.figure)


def test_a_notebook_learns_how_a_whole_figure_is_shown(monkeypatch):
    """Which it does when pyplot makes a figure; none may stay open, or it is shown twice."""
    import matplotlib.pyplot as plt

    made = []
    figure = plt.figure
    monkeypatch.setattr(plt, "figure", lambda *a, **k: made.append(1) or figure(*a, **k))
    monkeypatch.setitem(matplotlib.rcParams, "backend", "agg")
    before = plt.get_fignums()
    panels(table(), layer_curve, by="prompt")
    assert not made
    monkeypatch.setitem(sys.modules, "ipykernel", matplotlib)
    panels(table(), layer_curve, by="prompt")
    assert made
    assert plt.get_fignums() == before


def test_figures_load_when_used():
    code = "import sys, knockgrid.figures as f; print({'pandas', 'matplotlib'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "set()"
    assert set(figures.__all__) >= {"layer_curve", "layer_heatmap", "panels", "save"}


def test_names_are_functions_even_after_their_modules_were_imported():
    code = (
        "import knockgrid.figures.save, knockgrid.figures.panels, knockgrid.figures as f\n"
        "print(all(callable(getattr(f, name)) for name in f.__all__))"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "True"
