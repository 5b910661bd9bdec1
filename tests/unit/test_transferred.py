"""What a divergence is made of: the chain rule in a sweep, and what a patch transfers."""

import numpy as np
import pytest
from scipy.special import rel_entr, softmax

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
    import knockgrid as kg

    towers = [
        kg.Prompt("The Eiffel Tower is in", spans={"subject": "Eiffel"}, answers=("Rome", "Paris")),
        kg.Prompt("The Colosseum is in", spans={"subject": "Colosseum"}, id="none"),
    ]
    rows = kg.information_flow()
    few = {"layers": [1], "n_tokens": 2, "progress": False}
    names = ("kl", "logp_answer", *NAMES)
    return towers, kg.sweep(tiny_llama, towers, rows, metrics=names, **few), names


def test_a_sweep_measures_all_aliases(tables, tiny_llama, telling):
    import knockgrid as kg

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
    import knockgrid as kg

    towers, table, _ = tables
    assert not set(NAMES) & set(kg.sweep(tiny_llama, towers[0], kg.knockout(), layers=0,
                                         progress=False).columns)  # fmt: skip
    grid = kg.grid(table[table.token == 0], "kl_between")
    assert grid.notna().all().all()
    drawn = kg.layer_heatmap(table[table.token == 0], "kl_between")
    assert "KL between answers and rest (nats)" in str(
        [axis.get_ylabel() + axis.get_xlabel() for axis in drawn.figure.axes]
    )
