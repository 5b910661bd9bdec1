"""What a divergence is made of: the chain rule in a sweep, and what a patch transfers."""

import numpy as np
import pytest
from scipy.special import rel_entr, softmax

import knockgrid as kg
from knockgrid.table.table import build

NAMES = ["kl_between", "kl_within_answers", "kl_within_rest"]


def parts(clean, intervened, tokens):
    """The three parts for one row each, from their definitions."""
    p, q = (softmax(row.double().numpy()) for row in (clean, intervened))
    inside = np.isin(np.arange(len(p)), tokens)
    sides = [(p[part], q[part]) for part in (inside, ~inside)]
    sums = [(a.sum(), b.sum()) for a, b in sides]
    between = sum(rel_entr(a, b) for a, b in sums)
    within = [a * rel_entr(x / a, y / b).sum() for (x, y), (a, b) in zip(sides, sums, strict=True)]
    return dict(zip(NAMES, [between, *within], strict=True))


@pytest.fixture(scope="module")
def tables(tiny_llama):
    """A sweep with and without the three measures: aliases, an answer too few, a later token."""
    towers = [
        kg.Prompt("The Eiffel Tower is in", spans={"subject": "Eiffel"}, answers=("Rome", "Paris")),
        kg.Prompt("The Colosseum is in", spans={"subject": "Colosseum"}, id="none"),
    ]
    rows = kg.information_flow()
    few = {"layers": [1], "n_tokens": 2, "progress": False}
    names = ("kl", "logp_answer", *NAMES)
    return towers, kg.sweep(tiny_llama, towers, rows, metrics=names, **few), names


def test_a_sweep_measures_all_aliases(tables, tiny_llama, telling):
    towers, table, names = tables
    tokens = [tiny_llama.tokenizer(f" {a}", add_special_tokens=False)["input_ids"][0]
              for a in towers[0].answers]  # fmt: skip
    few = {"layers": [1], "n_tokens": 2, "progress": False, "executor": telling}
    kg.sweep(tiny_llama, towers, kg.information_flow(), metrics=names, **few)
    first = table[(table.prompt == towers[0].id) & (table.token == 0)].set_index("intervention")
    assert len(first) == 3
    for name, row in first.iterrows():
        key = (towers[0].id, name, 1, 0)
        logits, null = telling.logits[key][0], telling.null[key][0]
        want = parts(null, logits, tokens)
        for part in NAMES:
            assert row[part] == pytest.approx(want[part], rel=1e-6)
    assert first[NAMES].sum(axis=1).to_numpy() == pytest.approx(first.kl.to_numpy(), rel=1e-9)
    assert (first.kl_within_answers > 0).all()
    others = table[(table.prompt == "none") | (table.token == 1)]
    assert others[NAMES].isna().all().all()


def test_columns_come_only_when_asked_for_and_make_a_grid(tables, tiny_llama):
    towers, table, _ = tables
    assert not set(NAMES) & set(kg.sweep(tiny_llama, towers[0], kg.knockout(), layers=0,
                                         progress=False).columns)  # fmt: skip
    grid = kg.grid(table[table.token == 0], "kl_between")
    assert grid.notna().all().all()
    drawn = kg.layer_heatmap(table[table.token == 0], "kl_between")
    assert "KL between answers and rest (nats)" in str(
        [axis.get_ylabel() + axis.get_xlabel() for axis in drawn.figure.axes]
    )


def run_at(share, far=0.4, prompt="a", name="last", layer=0, **more):
    """A row of a cell, `share` of the way from the clean to the corrupted run."""
    js, to_source = share
    return {
        "prompt": prompt, "intervention": name, "layer": layer,
        "js": js * far, "js_to_source": to_source * far, **more,
    }  # fmt: skip


def told(rows, moved=None, **metadata):
    moved = moved or {"a": {"last": 0.4}, "b": {"last": 0.4}}
    sides = [{"id": one, "js_corrupted": far} for one, far in moved.items()]
    return build(rows, {"unit": "nats", "prompts": sides, **metadata})


@pytest.mark.parametrize(
    ("share", "verdict"),
    [
        ((0.0, 1.0), "neither"),
        ((0.49, 0.5), "neither"),
        ((0.49, 0.48), "transferred"),
        ((1.0, 0.0), "transferred"),
        ((0.9, 0.49), "transferred"),
        ((0.9, 0.51), "broken"),
        ((0.51, 0.9), "broken"),
        ((0.4, 0.4), "neither"),
        ((2.0, 2.0), "broken"),
    ],
)
def test_verdicts(share, verdict):
    found = kg.evidence.judge_transfer(told([run_at(share)]))
    assert found.verdict.tolist() == [verdict]
    assert found[f"n_{verdict}"].tolist() == found.n_prompts.tolist() == [1]
    assert found.share[0] == pytest.approx(share[0])


def test_the_share_is_a_ratio_of_means_and_prompts_count_by_themselves():
    moved = {"a": {"last": 0.6}, "b": {"last": 0.1}, "c": {}}
    rows = [
        run_at((1.0, 0.0), 0.6), run_at((0.2, 0.9), 0.1, prompt="b"),
        {"prompt": "c", "intervention": "last", "layer": 0, "js": 0.7},
    ]  # fmt: skip
    one = kg.evidence.judge_transfer(told(rows, moved)).iloc[0]
    means = [one.share, one.js, one.js_to_source, one.js_corrupted]
    assert means == pytest.approx([(0.6 + 0.02) / 0.7, 0.31, 0.045, 0.35])
    assert (one.n_prompts, one.n_transferred, one.n_neither, one.n_broken) == (2, 1, 1, 0)
    assert (one.verdict, one.left_out, one.status) == ("transferred", "c", "ok")


def test_cells_without_a_source_run_or_without_a_corruption_are_named():
    rows = [
        {"prompt": "a", "intervention": "attention", "layer": 0, "js": 0.3},
        {"prompt": "a", "intervention": "edge", "layer": 0, "status": "NA: no edge", "js": 0.2},
        run_at((0.0, 0.0), name="still"),
    ]
    found = kg.evidence.judge_transfer(told(rows, {"a": {"still": 0.0}})).set_index("intervention")
    assert found.verdict.isna().all()
    assert found.share.isna().all()
    assert found.status.to_dict() == {
        "attention": "NA: no source run, so nothing to transfer",
        "edge": "NA: no edge",
        "still": "NA: the corruption moved no prompt",
    }
    assert found.left_out.to_dict() == {"attention": "a", "edge": "a", "still": ""}


def test_later_tokens_are_left_alone_and_members_of_a_family_stay_apart():
    rows = [
        run_at((1.0, 0.0), head=0, token=0), run_at((0.0, 1.0), head=1, token=0),
        run_at((0.0, 1.0), head=0, token=1), run_at((0.0, 1.0), layer=1, head=0, token=0),
    ]  # fmt: skip
    found = kg.evidence.judge_transfer(told(rows))
    assert found[["layer", "head", "verdict"]].values.tolist() == [
        [0, 0, "transferred"], [0, 1, "neither"], [1, 0, "neither"],
    ]  # fmt: skip


def test_a_real_sweep_begins_with_nothing_and_ends_transferred(sweep, prompts):
    rows = [
        kg.patch("resid_post", "last", kg.corrupted_run(by=kg.swap()), name="last"),
        kg.patch("resid_post", "last", kg.zero(), name="zero"),
        kg.knockout(),
    ]
    table = sweep(prompts, rows, layers=[0, 3], unit="bits")
    found = kg.evidence.judge_transfer(table).set_index(["intervention", "layer"])
    end = found.loc["last", 3]
    assert end.share == pytest.approx(1, abs=1e-6)
    assert (end.verdict, end.n_transferred, end.n_prompts) == ("transferred", 2, 2)
    js = table[(table.intervention == "last") & (table.layer == 3)].js
    assert end.js_corrupted == pytest.approx(js.mean(), rel=1e-6)
    assert found.loc["zero"].verdict.isna().all()
    assert found.loc["subject->last"].status.str.startswith("NA: no source run").all()


def test_tables_that_cannot_tell():
    later = told([run_at((1.0, 0.0), token=1)])
    bare = later.copy()
    bare.attrs = {}
    for table, words in (
        (later, "no rows of token 0"),
        (told([run_at((1.0, 0.0))], direction="denoising"), "direction is 'denoising'"),
        (later.drop(columns="js_to_source"), "no column 'js_to_source'"),
        (bare, "lost its side table"),
    ):
        with pytest.raises(kg.InputError, match=words):
            kg.evidence.judge_transfer(table)
