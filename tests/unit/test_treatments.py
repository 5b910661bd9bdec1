"""What a table's rows are, its halves, and the curves of several sources."""

import pytest

import knockgrid as kg
from knockgrid.reports.draw import by_source
from knockgrid.stats.halves import halves
from knockgrid.table.floor import floor_of
from knockgrid.table.table import build, metadata_of
from knockgrid.table.treatments import only_prompts, only_rows, treatments

SOURCES = {
    "subject noise": ("noise(3.0)", 1, "treatment"),
    "subject zero": ("zero()", 1, "treatment"),
    "attention w5": (None, 5, "treatment"),
    "subject noise | rest": ("noise(3.0, pos='rest')", 1, "contrast"),
}


def table_of(values=None, sizes=(5, 4, 1)):
    """Prompts of three relations, one number per prompt, row and layer."""
    sides = [
        {"id": f"{r}{i}", "relation": r}
        for r, n in zip("abc", sizes, strict=True)
        for i in range(n)
    ]
    described = [
        {"name": n, "row": n.split(" ")[0], "corruption": by, "window": window, "role": role}
        for n, (by, window, role) in SOURCES.items()
    ]
    rows = [
        {
            "prompt": side["id"],
            "intervention": name,
            "layer": layer,
            "js": (values or {}).get(name, [0.3, 0.2, 0.1])[layer],
        }
        for side in sides
        for name in SOURCES
        for layer in range(3)
    ]
    told = {"unit": "nats", "prompts": sides, "interventions": described}
    return build(rows, {**told, "intervention_order": list(SOURCES)})


def test_treatments_are_told_from_contrasts():
    found = treatments(table_of())
    assert [(one.row, one.source, one.window) for one in found] == [
        ("subject", "noise(3.0)", 1),
        ("subject", "zero()", 1),
        ("attention", None, 5),
    ]


def test_a_table_without_its_metadata():
    with pytest.raises(kg.InputError, match="does not say what its interventions are"):
        treatments(build([{"prompt": "a", "intervention": "x", "layer": 0, "js": 0.1}], {}))


def test_parts_of_a_table_name_no_others():
    table = table_of()
    rows = only_rows(table, ["subject zero"])
    assert set(rows["intervention"]) == {"subject zero"}
    assert metadata_of(rows)["intervention_order"] == ["subject zero"]
    assert [one.name for one in treatments(rows)] == ["subject zero"]
    some = only_prompts(table, ["a1", "b0"])
    assert set(some["prompt"]) == {"a1", "b0"}
    assert [side["id"] for side in metadata_of(some)["prompts"]] == ["a1", "b0"]
    assert metadata_of(table)["intervention_order"] == list(SOURCES)  # the whole is as it was


def test_halves_share_relations_and_no_prompt():
    one, other = halves(table_of())
    mine, theirs = set(one["prompt"]), set(other["prompt"])
    assert not mine & theirs
    assert len(mine | theirs) == 10
    count = {r: (sum(p[0] == r for p in mine), sum(p[0] == r for p in theirs)) for r in "abc"}
    assert count == {"a": (3, 2), "b": (2, 2), "c": (0, 1)}  # odd ones in turn


def test_halves_do_not_depend_on_order_but_on_the_seed():
    table = table_of()
    again = table.iloc[::-1].copy()
    again.attrs = table.attrs
    whole = {frozenset(part["prompt"]) for part in halves(table)}
    assert {frozenset(part["prompt"]) for part in halves(again)} != set()
    same = [set(part.loc[part["prompt"].str[0] == "b", "prompt"]) for part in halves(again)]
    assert sorted(map(sorted, same)) == sorted(
        sorted(p for p in part if p[0] == "b") for part in whole
    )
    others = [frozenset(halves(table, seed)[0]["prompt"]) for seed in range(5)]
    assert len(set(others)) > 1


def test_one_prompt_has_no_halves():
    with pytest.raises(kg.InputError, match="two prompts or more"):
        halves(table_of(sizes=(1, 0, 0)))


def test_curves_are_divided_by_their_largest_mean():
    values = {"subject noise": [0.4, 0.2, 0.1], "subject zero": [0.6, 0.6, 0.3]}
    figure = kg.figures.scaled_curves(table_of(values))
    (ax,) = figure.axes
    drawn = [line.get_ydata() for line in ax.lines[:2]]
    assert drawn[0].tolist() == pytest.approx([1.0, 0.5, 0.25])
    assert drawn[1].tolist() == pytest.approx([1.0, 1.0, 0.5])
    said = [text.get_text() for text in ax.get_legend().get_texts()]
    assert said == ["noise(3.0): 0.40 at most", "zero(): 0.60 at most"]
    assert ax.get_title() == "Subj."
    assert figure._suptitle.get_text() == "Avg. JS divergence (nats)"


def test_curves_refuse_what_they_cannot_draw():
    with pytest.raises(kg.InputError, match="unknown row 'lst'"):
        kg.figures.scaled_curves(table_of(), rows=["lst"])
    with pytest.raises(kg.InputError, match="no row of this table has a source"):
        kg.figures.scaled_curves(only_rows(table_of(), ["attention w5"]))
    with pytest.raises(kg.InputError, match="no row of this table has a source.*--by treatment"):
        by_source(only_rows(table_of(), ["attention w5"]))


def test_rows_side_by_side_keep_the_floor_of_their_own_layer():
    cells = {name: {"0": 0.1, "2": 0.0} for name in ("subject noise", "subject zero")}
    table = table_of()
    table.attrs["knockgrid"] |= {
        "noise_floor": {"js": {"overall": 0.5, "cells": cells}},
        "labels": {"subject noise": "Subj.", "subject zero": "Subj."},
    }
    made = by_source(table)
    assert list(dict.fromkeys(made["group"])) == ["noise", "zero"]
    assert set(made["intervention"]) == {"subject", "attention w5"}
    floor = floor_of(made, "js")
    subject = (made["intervention"] == "subject").to_numpy(bool)
    assert set(floor[subject & (made["layer"] == 2).to_numpy(bool)]) == {0.0}
    assert set(floor[~subject]) == {0.5}
