"""Joints, pair rules, layers of their own and donors of another layer: what is refused and kept."""

import numpy as np
import pandas as pd
import pytest

import knockgrid as kg
from knockgrid.edits.data import as_data, from_data
from knockgrid.reports.methods import methods

PROMPT = kg.Prompt(
    "The Eiffel Tower is located in the city of",
    spans={"subject": "Eiffel Tower", "verb": "is located"},
    id="tower",
)
TO_LAST = kg.knockout("last", "subject", layers=kg.all_but([1]))
PATCH = kg.patch("mlp_out", "subject", kg.zero())
OTHERS = ["bos", "rest", "last", "verb"]
PATHWAY = kg.joint([TO_LAST, PATCH], name="pathway", label="Path.")


def rows():
    """One of everything that this file is about."""
    return [
        kg.knockout(layers="all"),
        kg.knockout("last", "subject", layers=[0, 2], pairs=kg.pairs.farther_than(1)),
        kg.knockout("all", "verb", 3, pairs=kg.pairs.random_share(0.5, 7), name="random"),
        kg.knockout("last", "subject", window=kg.all_but(1), name="inverse"),
        kg.patch("resid_post", "last", kg.donor(PROMPT, layer=3), name="back"),
        PATHWAY,
        kg.joint([kg.edge_patch("last", "subject", kg.donor(PROMPT)), PATCH], name="two"),
    ]


@pytest.mark.parametrize("row", rows(), ids=lambda one: one.name)
def test_it_is_made_again_from_its_data(row):
    again = from_data(as_data(row))
    assert as_data(again) == as_data(row)
    assert again.describe() == row.describe()


def test_names_say_layers_and_rules():
    assert [one.name for one in rows()] == [
        *("subject->last at all layers", "subject->last farther than 1 at 0, 2", "random"),
        *("inverse", "back", "pathway", "two"),
    ]
    assert kg.joint([TO_LAST, PATCH]).name == "subject->last outside 1 + mlp_out@subject"
    assert kg.patch("resid_post", "last", kg.donor(PROMPT, layer=3)).name == (
        "resid_post@last from layer 3"
    )


def test_a_joint_of_one_is_that_one():
    assert kg.joint([PATCH]) == PATCH
    assert kg.joint([PATCH], name="alone").name == "alone"


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: kg.joint([]), ["joint([])", "list of edits"]),
        (lambda: kg.joint([PATHWAY, PATCH]), ["cannot be a part of a joint"]),
        (lambda: kg.joint([*kg.nulls()[:1], PATCH]), ["is a null", "treatments"]),
        (lambda: kg.knockout(window=3, layers="all"), ["window=3", "layers='all'", "give one"]),
        (lambda: kg.knockout(layers=[1, 1]), ["[1, 1]", "once"]),
        (lambda: kg.knockout(layers=[]), ["[]", "whole numbers"]),
        (lambda: kg.knockout(layers="from"), ["layers='from'", "window="]),
        (lambda: kg.knockout(layers=kg.all_but(3)), ["AllBut", "window="]),
        (lambda: kg.all_but(0), ["0", "at least 1"]),
        (lambda: kg.pairs.farther_than(-1), ["farther_than(-1)", "at least 0"]),
        (lambda: kg.pairs.random_share(1.0), ["random_share(1.0)", "between 0 and 1"]),
        (lambda: kg.edge_patch(source=kg.donor(PROMPT, layer=2)), ["layer=2", "use patch()"]),
        (lambda: kg.edits.per_source_layer(PATCH, 3), ["donor"]),
        (lambda: kg.per_span(PATCH, ["s0"]), ["no place 'span'", "src"]),
        (lambda: kg.per_span(kg.knockout("last", "span"), []), ["spans are []"]),
    ],
)
def test_what_cannot_be_is_refused_with_what_was_given(make, parts):
    with pytest.raises(kg.InputError) as caught:
        make()
    for part in parts:
        assert part in str(caught.value)


def swept(model, *rows, **options):
    return kg.sweep(model, PROMPT, list(rows), progress=False, **options)


@pytest.mark.parametrize(
    "pair",
    [
        (kg.patch("resid_post", "subject"), kg.patch("resid_post", "subject_last", kg.zero())),
        (kg.knockout("last", "subject", 3), kg.knockout("last", "subject_first", layers=[1])),
        (kg.edge_patch("last", "subject"), kg.edge_patch("last", "verb")),
        (kg.edge_patch("last", "subject"), kg.knockout("last", "verb")),
        (kg.edge_patch("last", "subject"), kg.patch("v", "verb", kg.zero())),
        (kg.edge_patch("last", "subject"), kg.patch("q", "last", kg.zero())),
    ],
    ids=lambda pair: f"{pair[0].name} + {pair[1].name}",
)
def test_two_edits_of_one_entry_are_refused(tiny_llama, pair):
    with pytest.raises(kg.InputError, match=r"two edits of 'both' write.*at layer \d.*overlap"):
        swept(tiny_llama, kg.joint(pair, name="both"))


def test_edits_that_meet_nowhere_are_made_in_any_order(tiny_llama):
    pair = [
        kg.patch("z", "last", kg.zero(), heads=[0]),
        kg.patch("z", "last", kg.mean_activation(), heads=[2]),
        kg.knockout("last", "subject", 1, heads=[1]),
        kg.patch("resid_pre", "verb", kg.noise(1.0), layers=[2]),
    ]
    table = swept(tiny_llama, kg.joint(pair, name="a"), kg.joint(pair[::-1], name="b"))
    found = kg.grid(table)
    np.testing.assert_allclose(found.loc["a"], found.loc["b"], rtol=0, atol=1e-12)
    assert found.min(axis=None) > 1e-6


@pytest.mark.parametrize(
    "row",
    [
        kg.knockout("all", "all", layers="all"),
        kg.knockout("verb", "all", layers=[1], pairs=kg.pairs.within(99)),
        kg.joint(
            [
                kg.knockout("last", "subject", 9),
                kg.knockout("last", ["bos", "rest", "last", "verb"]),
            ]
        ),
    ],
    ids=lambda row: row.name,
)
def test_a_query_keeps_something_to_attend_to(tiny_llama, row):
    with pytest.raises(kg.InputError, match="nothing to attend to"):
        swept(tiny_llama, row)


def test_heads_that_differ_do_not_blind_a_query_together(tiny_llama):
    pair = [
        kg.knockout("last", "subject", 1, heads=[0]),
        kg.knockout("last", OTHERS, 1, heads=[1]),
    ]
    assert swept(tiny_llama, kg.joint(pair, name="apart")).js.min() > 0


def test_a_rule_that_cuts_nothing_is_na_with_the_reason(tiny_llama):
    table = swept(tiny_llama, kg.knockout(pairs=kg.pairs.farther_than(40), layers="all"))
    assert table.js.isna().all()
    assert table.status.str.contains("a key of 'subject' that is 'farther than 40'").all()


def test_layers_that_the_model_does_not_have(tiny_llama):
    for row, said in (
        (kg.knockout(layers=[0, 9]), "layer 9 is out of range"),
        (kg.patch("resid_post", "last", kg.donor(PROMPT, layer=4)), "layer 4"),
        (kg.knockout(layers=kg.all_but([7])), "layer 7 is out of range"),
    ):
        with pytest.raises(kg.InputError, match=said):
            swept(tiny_llama, row)


def test_a_donor_with_other_tokens_at_its_own_place(tiny_llama):
    row = kg.patch("resid_post", "last", kg.donor(PROMPT, pos="subject"))
    with pytest.raises(kg.InputError, match=r"gives \d tokens .* for 1 at 'last'"):
        swept(tiny_llama, row)


def test_denoising_takes_one_source(tiny_llama):
    swap = kg.corrupted_run(by=kg.noise(1.0))
    both = [kg.patch("resid_post", "subject"), kg.patch("resid_post", "verb", swap)]
    with pytest.raises(kg.InputError, match="take their values from several"):
        swept(tiny_llama, kg.joint(both, name="both"), direction="denoising")
    same = [kg.patch("resid_post", "subject"), kg.patch("mlp_out", "verb")]
    table = swept(tiny_llama, kg.joint(same, name="both"), direction="denoising")
    assert (table.status == "ok").all()


@pytest.fixture(scope="module")
def folder(tiny_llama, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "run"
    swept(tiny_llama, *rows(), layers=[0, 2], out=path)
    return path


def test_the_table_says_what_was_done(folder):
    table = kg.open_run(folder)
    cells = table.drop_duplicates(["intervention", "layer"]).set_index("intervention")
    assert pd.isna(cells.loc["subject->last at all layers", "layer"])
    assert cells.loc["subject->last at all layers", "layers"] == "0,1,2,3"
    assert list(cells.loc["pathway", "layer"]) == [0, 2]
    assert list(cells.loc["pathway", "layers"]) == ["0,2,3", "0,2,3"]
    assert set(cells.loc["back", "source_layer"]) == {3}
    assert set(cells.loc["pathway", "source"]) == {"zero()"}
    assert set(cells.loc["pathway", "kind"]) == {"joint of knockout, patch mlp_out"}


def test_it_is_verified_described_and_reported(folder, tiny_llama):
    found = kg.verify(folder, model=tiny_llama, cells=99)
    assert found.ok, found.mismatches
    assert any("12 cells" in one for one in found.checked), found.checked
    text = methods(folder)
    for part in (
        "at all layers",
        "to keys more than 1 tokens back only",
        "for a random 50 \\% of the edges of each layer (seed 7)",
        "all layers but one layer",
        "the activation of layer 3 in the run of prompt 'tower'",
        "Row 'pathway' (Path.) makes 2 edits together",
        "all layers but 1",
        "ghandeharioun2024",
        "kim2026",
    ):
        assert part in text, part
    assert kg.report(folder).exists()


def test_a_run_of_one_cell_for_a_prompt_is_verified(tiny_llama, tmp_path):
    swept(tiny_llama, kg.knockout(layers="all"), out=tmp_path / "run")
    found = kg.verify(tmp_path / "run", model=tiny_llama)
    assert found.ok, found.mismatches
    assert any("1 cells" in one for one in found.checked), found.checked


def test_the_parts_of_a_joint_are_tried_by_themselves(tiny_llama):
    """So that a part which a bridge discards is refused, though the others move the logits."""
    receipt = swept(tiny_llama, PATHWAY).attrs["knockgrid"]["receipt"]
    assert set(receipt["maximal_effects"]) == {"knockout", "patch mlp_out"}
    assert set(receipt["tried"][-1]["kinds"]) == {*receipt["maximal_effects"], PATHWAY.kind}


def test_figures_along_layers_leave_out_rows_without(folder):
    table = kg.open_run(folder)
    ax = kg.layer_heatmap(table)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "2"]
    only = table[table.layer.isna()]
    for draw in (kg.layer_heatmap, kg.layer_curve, kg.stats.onset, kg.stats.peak):
        with pytest.raises(kg.InputError, match="layers of its own"):
            draw(only)


def test_per_span_puts_a_span_in_the_word(tiny_llama):
    family = kg.per_span(kg.knockout("last", "span", layers="all"), ["subject", "verb"])
    other = kg.Prompt("The Louvre is in Paris", spans={"subject": "Louvre"}, id="louvre")
    table = kg.sweep(tiny_llama, [PROMPT, other], family, progress=False)
    table = table.set_index(["prompt", "span"])
    alone = swept(tiny_llama, kg.knockout("last", "verb", layers="all"))
    assert table.loc[("tower", "verb"), "js"] == alone.js[0] > 0
    assert "no 'verb'" in table.loc[("louvre", "verb"), "status"]
    assert table.loc[("louvre", "subject"), "js"] > 0
    joint = kg.joint([kg.knockout("last", "span", layers="all"), PATCH], name="cut")
    assert [one.name for one in kg.per_span(joint, ["verb", "subject"])] == [
        "cut verb",
        "cut subject",
    ]
    patch = kg.per_span(kg.patch("resid_post", ["span", "last"]), ["verb"])[0]
    assert patch.pos == ["verb", "last"]


def test_the_grid_of_layer_pairs(tiny_llama, tmp_path):
    row = kg.patch("resid_post", "verb_last", kg.donor(PROMPT), name="back")
    table = swept(tiny_llama, *kg.edits.per_source_layer(row, 4))
    found = kg.grid(table, rows="source_layer", columns="layer")
    assert found.shape == (4, 4)
    assert abs(np.diag(found)).max() < 1e-9
    ax = kg.layer_pair_heatmap(table)
    assert [t.get_text() for t in ax.get_yticklabels()][:1] == ["0"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Target layer", "Source layer")
