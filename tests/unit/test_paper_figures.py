"""Figures for a paper: exact sizes, order, labels, ticks, colour bars, texts that have room."""

import re
import warnings
from itertools import combinations

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from test_figures import hole, mesh, table, texts, titled
from test_grid_figures import family
from test_hostile_text import DRAWN, contrasted

import knockgrid as kg
from knockgrid.cli.reproduce import read_study, studies
from knockgrid.figures.heatmap import limits_of

COLUMN = (3.25, 1.2)
GROUPS = ("facts", "hallucinations")


def grouped(**more):
    return table(groups=GROUPS, prompts=24, **more)


def halves():
    made = grouped()
    return {name: made[made.group == name] for name in GROUPS}


FIGURES = {name: draw for name, draw in DRAWN.items() if " " not in name}


def inches(path):
    """The page of a PDF file."""
    (box,) = re.findall(rb"/MediaBox \[([^]]*)\]", path.read_bytes())
    return tuple(np.array(box.split(), float)[2:] / 72)


def whole_of(drawn):
    return drawn if isinstance(drawn, Figure) else drawn.figure


def test_two_groups_in_one_column(tmp_path):
    figure = kg.panels(grouped(), columns=2, figsize=COLUMN)
    (path,) = kg.save(figure, tmp_path / "flow.pdf")
    assert inches(path) == pytest.approx(COLUMN, abs=1e-9)
    first, second, _ = figure.axes  # and one colour bar
    assert texts(first.get_yticklabels()) == ["Subj.", "Attn.", "Last."]
    assert not second.get_ylabel()


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_the_size_that_was_asked_for(name, tmp_path):
    (path,) = kg.save(FIGURES[name](figsize=(6.5, 4.25)), tmp_path / "a.pdf")
    assert inches(path) == pytest.approx((6.5, 4.25), abs=1e-9)
    for size in ((0, 1), (1, float("nan")), [1, 2, 3]):
        with pytest.raises(kg.InputError, match="figsize is"):
            FIGURES[name](figsize=size)


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_draws_on_axes_of_ones_own(name, tmp_path):
    alone = FIGURES[name]()
    count = sum(ax.get_subplotspec() is not None for ax in whole_of(alone).axes)
    count = {"panels": 2, "threshold_curve": 1}.get(name, count)
    mine = Figure(figsize=(9.0, 4.5), layout="constrained")
    places = list(mine.subplots(1, count, squeeze=False).ravel())
    given = places if isinstance(alone, Figure) and name != "claims_card" else places[0]
    drawn = FIGURES[name](ax=given)
    assert whole_of(drawn) is mine
    assert all(ax.has_data() or ax.patches for ax in places)
    (path,) = kg.save(drawn, tmp_path / "a.pdf")
    assert inches(path) == pytest.approx((9.0, 4.5), abs=1e-9)
    with pytest.raises(kg.InputError, match="ax= or figsize="):
        FIGURES[name](ax=given, figsize=COLUMN)
    if isinstance(given, list):
        with pytest.raises(kg.InputError, match=f"{count + 1} Axes for {count}"):
            FIGURES[name](ax=[*given, given[0]])


def test_what_sticks_out_of_a_fixed_page_is_said(tmp_path):
    bare = Figure(figsize=COLUMN)  # no layout that makes room
    ax = kg.layer_heatmap(table(), ax=bare.subplots())
    with pytest.warns(UserWarning, match=r"sticks out .*3.25 × 1.2"):
        (path,) = kg.save(ax, tmp_path / "a.pdf")
    assert inches(path) == pytest.approx(COLUMN, abs=1e-9)


def boxes(figure):
    """Where every text of a figure is, by its text."""
    figure.draw_without_rendering()
    found = []
    for ax in figure.axes:
        labels = [ax.xaxis.label, ax.yaxis.label]
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            for tick in axis.get_major_ticks():
                if low <= tick.get_loc() <= high:  # others are not drawn
                    labels += [tick.label1, tick.label2]
        labels += [ax.title, *(ax.get_legend().get_texts() if ax.get_legend() else [])]
        found += [text for text in labels if text.get_text() and text.get_visible()]
    return [(text.get_text(), text.get_window_extent()) for text in found]


@pytest.mark.parametrize(
    "drawn",
    [
        lambda: kg.panels(grouped(), columns=2, figsize=COLUMN),
        lambda: kg.panels(grouped(), columns=2, figsize=(3.25, 1.4), fontsize=8),
        lambda: kg.layer_heatmap(
            hole(table(), (0,)), title="a title of many words", figsize=COLUMN
        ),
        lambda: kg.layer_curve(table(prompts=8), figsize=(3.25, 2.0)),
        lambda: kg.figures.side_by_side(halves(), figsize=(6.75, 1.4)),
        lambda: kg.figures.module_heatmap(
            family("module", ["attn. q", "mlp. up"]), figsize=(3.25, 2.0)
        ),
    ],
)
def test_texts_at_column_width_do_not_touch_and_are_not_cut(drawn):
    figure = whole_of(drawn())
    found = boxes(figure)
    assert len(found) > 8
    width, height = figure.bbox.size
    for said, box in found:
        assert min(box.x0, box.y0) >= -1, said
        assert max(box.x1 - width, box.y1 - height) <= 1, said
    for (one, a), (other, b) in combinations(found, 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        up = min(a.y1, b.y1) - max(a.y0, b.y0)
        assert min(across, up) <= 0.5, (one, other)


def test_rows_and_columns_in_the_order_and_under_the_names_that_are_asked_for():
    names = {"last": "Last token", "subject": "$S$"}
    ax = kg.layer_heatmap(table(), row_order=names, column_order=[20, 3])
    assert texts(ax.get_yticklabels()) == ["Last token", "$S$"]
    assert texts(ax.get_xticklabels()) == ["20", "3"]
    expected = kg.grid(table()).loc[["last", "subject"], [20, 3]]
    np.testing.assert_array_equal(mesh(ax).get_array(), expected)
    lines = kg.layer_curve(table(), row_order=names).lines
    assert [line.get_label() for line in lines] == ["Last token", "$S$"]
    np.testing.assert_array_equal(lines[0].get_ydata(), kg.grid(table()).loc["last"])
    heads = kg.figures.head_heatmap(family("head", [3, 1]), row_order=[1, "3"])
    assert texts(heads.get_yticklabels()) == ["1", "3"]
    order = {"hallucinations": "AH", "facts": "FA"}
    drawn = titled(kg.panels(grouped(), order=order, row_order=["last"]))
    assert [ax.get_title()[:2] for ax in drawn] == ["AH", "FA"]
    shown = kg.layer_heatmap(hole(table(), range(30), name="subject"), row_order=["last"])
    assert shown.get_title() == "n = 4 prompts"  # what is not shown is not counted
    assert shown.get_legend() is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"row_order": ["first"]}, "unknown intervention 'first'"),
        ({"column_order": [31]}, "unknown layer '31'"),
        ({"row_order": []}, "each once"),
        ({"row_order": ["last", "last"]}, "each once"),
        ({"ticks": [31]}, "unknown tick '31'"),
        ({"ticks": 0}, "1 or more"),
        ({"fontsize": -1}, "fontsize is -1"),
        ({"colourbar": False}, "did you mean 'colorbar'"),
    ],
)
def test_what_is_not_there_is_refused(options, words):
    with pytest.raises(kg.InputError, match=words):
        kg.layer_heatmap(table(), **options)


def test_groups_that_are_empty_are_refused():
    with pytest.raises(kg.InputError, match="'group' is empty"):
        kg.figures.contrast_curves(contrasted().assign(group=None), by="group")


@pytest.mark.parametrize(
    ("ticks", "named"), [([0, 10, 29], [0, 10, 29]), (7, [0, 7, 14, 21, 28]), (range(3), [0, 1, 2])]
)
def test_ticks_are_those_that_are_asked_for_in_the_middle_of_their_cells(ticks, named):
    for ax in (
        kg.layer_heatmap(table(), ticks=ticks, figsize=COLUMN),
        titled(kg.panels(grouped(), columns=2, figsize=COLUMN, ticks=ticks))[1],
    ):
        assert texts(ax.get_xticklabels()) == [str(layer) for layer in named]
        assert ax.get_xticks().tolist() == [layer + 0.5 for layer in named]
    assert kg.layer_curve(table(), ticks=ticks).get_xticks().tolist() == named


def test_ticks_become_fewer_where_there_is_less_room():
    counts = [len(kg.layer_heatmap(table(), figsize=(w, 1.2)).get_xticks()) for w in (9, 3.25, 1.6)]
    assert counts[0] == 15
    assert counts == sorted(set(counts), reverse=True)


def test_a_colour_bar_is_off_or_has_the_label_that_is_asked_for():
    assert mesh(kg.layer_heatmap(table(), colorbar=False)).colorbar is None
    assert len(kg.panels(grouped(), colorbar=False).axes) == 2
    bar = mesh(kg.layer_heatmap(table(), colorbar="$D_{JS}$")).colorbar
    assert bar.ax.get_ylabel() == "$D_{JS}$"
    whole = kg.figures.side_by_side(halves())
    assert len(whole.axes) == 5  # three panels, one bar for two of them, one for the difference


def test_a_title_can_be_left_out():
    for name in ("layer_heatmap", "module_heatmap", "layer_curve"):
        assert FIGURES[name](title="").get_title() == ""
    assert not titled(FIGURES["panels"](title=""))
    assert FIGURES["probe_beside_effect"](title="A").get_suptitle() == "A"


def test_letters_are_small_on_narrow_figures_unless_someone_has_said_how_large():
    def sizes(**options):
        ax = kg.layer_heatmap(table(), **options)
        bar = mesh(ax).colorbar.ax
        labels = [ax.xaxis.label, ax.title, ax.get_xticklabels()[0], bar.get_yticklabels()[0]]
        return {label.get_fontsize() for label in labels}

    assert sizes() == {10.0}
    assert sizes(figsize=(6.5, 2)) == {10.0}
    assert sizes(figsize=COLUMN) == {7.0}
    assert sizes(figsize=COLUMN, fontsize=6) == {6.0}
    with matplotlib.rc_context({"font.size": 8}):
        assert sizes(figsize=COLUMN) == {8.0}
    whole = kg.panels(grouped(), columns=2, figsize=COLUMN, fontsize=6)
    assert {ax.xaxis.label.get_fontsize() for ax in titled(whole)} == {6.0}


HEATMAPS = ("layer_heatmap", "token_heatmap", "position_heatmap", "module_heatmap", "head_heatmap")


@pytest.mark.parametrize("name", HEATMAPS)
def test_a_divergence_has_a_sequential_map_unless_asked(name):
    def white(ax):
        return min(mesh(ax).cmap(0.5)[:3]) > 0.99

    assert not white(FIGURES[name]())
    assert white(FIGURES[name](diverging=True))


def test_two_cells_do_not_bleach_a_diverging_scale():
    values = np.linspace(0.1, 0.3, 28 * 7)
    values[[5, 50]] = 4.0
    low, high = limits_of(values, None, diverging=True)
    assert 0.1 < low < 0.11
    assert 0.29 < high < 0.3
    made = family("module", [f"m{i}" for i in range(7)])
    made.loc[[5, 17], "js"] = 40.0
    bar = mesh(kg.figures.module_heatmap(made, diverging=True)).colorbar
    assert bar.extend == "both"
    assert bar.vmax < 1.0
    assert mesh(kg.figures.module_heatmap(made)).colorbar.extend == "neither"


def test_the_published_figure_asks_for_its_diverging_map():
    made = family("module", ["attn. q", "mlp. up"])
    names = ("attribution_size", "act_shift", "act_norm", "grad_norm", "weight_norm")
    statistics = made.assign(**dict.fromkeys(names, made.js))
    drawn = read_study(studies()["modules"]).draw({"patched": made, "statistics": statistics})
    assert {mesh(ax).cmap.name for ax in drawn.values()} == {"blue_white_orange"}


def test_panels_by_relation_and_by_subject_of_merged_and_joined_tables():
    made = grouped(labels={"last": "End"})
    made["relation"] = made["group"].str.replace("s", "")
    made["subject"] = np.where(made["prompt"].str.endswith("0"), "Rome", "Oslo")
    for by, count in (("relation", 2), ("subject", 2), ("group", 2)):
        assert len(titled(kg.panels(made, by=by))) == count
    kinds = pd.DataFrame({"relation": made["relation"].unique(), "sort": ["a", "b"]})
    merged = made.merge(kinds, on="relation").query("layer < 9")
    both = pd.concat([merged[merged["sort"] == sort] for sort in "ba"])
    figure = kg.panels(both, by="sort")
    assert [ax.get_title() for ax in titled(figure)] == ["b (n = 24 prompts)", "a (n = 24 prompts)"]
    assert texts(titled(figure)[0].get_yticklabels()) == ["Subj.", "Attn.", "End"]
    assert figure.axes[-1].get_ylabel() == "Avg. JS divergence (nats)"


def test_a_figure_that_may_grow_is_as_it_was(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        names = ("last" * 12, "subject")
        (path,) = kg.save(kg.layer_heatmap(table(names=names)), tmp_path / "a.pdf")
    assert inches(path)[0] > 4
