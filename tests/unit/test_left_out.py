"""What a sweep leaves out is said once, row by row, with counts, in memory and in folders.

The counts are held against the table itself: prompts without rows, and rows without values.
"""

import warnings

import pytest

import knockgrid as kg
from knockgrid.table.left_out import LeftOut, left_out


@pytest.fixture
def said(tiny_llama):
    """A table, and the warnings of the call that made it."""

    def run(prompts, rows, call=kg.sweep, **options):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            table = call(tiny_llama, prompts, rows, progress=False, **options)
        return table, [str(one.message) for one in caught if one.category is LeftOut]

    return run


def swapped(window=1):
    return kg.information_flow(kg.corrupted_run(by=kg.swap()), window=window)


@pytest.mark.parametrize("folder", [False, True])
def test_prompts_without_partners_are_counted_per_row(said, prompts, tmp_path, folder):
    """One warning for both rows and all prompts; the attention row lacks nobody."""
    alone = [p.replace(swap=None, id=f"{p.id}-alone") for p in prompts]
    more = {"out": tmp_path / "run"} if folder else {}
    table, (text,) = said([*prompts, *alone], swapped(), layers=[0], **more)
    there = {name: set(rows.prompt) for name, rows in table.groupby("intervention")}
    assert {name: len(some) for name, some in there.items()} == {
        "subject": 2, "last": 2, "attention": 6,
    }  # fmt: skip
    assert "rows 'subject', 'last': 4 of 6 prompts took no part (" in text
    assert "'attention'" not in text
    assert text.count("no swap partner") == 1


def test_each_reason_has_its_count(said, prompts):
    france, tower, italy = prompts
    longer = tower.replace(id="longer", swap=france)
    same = [
        france.replace(id=f"same{i}", answers=["Rome"], swap=italy.replace(answers=["Rome"]))
        for i in (1, 2)
    ]
    _, (text,) = said([*prompts, longer, *same], swapped(), layers=[0])
    assert "4 of 6 prompts took no part" in text
    assert "2 such as: the swap partner of 'same1' has the same answer" in text
    assert "1: prompt 'tower' has no swap partner" in text
    assert "1: the swap partner of 'longer'" in text


def test_a_row_without_any_prompt_is_said_to_be_skipped(said, prompts):
    _, (text,) = said([prompts[1]], swapped(), layers=[0])
    assert "rows 'subject', 'last' skipped: no usable prompt among 1 (" in text


def test_donors_contrasts_and_nulls_are_counted(said, prompts):
    given = kg.donor({"france": prompts[2]})
    _, (text,) = said(prompts, kg.patch("resid_post", "subject", given, name="d"), layers=[0])
    assert "row 'd': 2 of 3 prompts took no part (donor() has no prompt for" in text
    rows = [*kg.information_flow(), *kg.contrasts()]
    _, (text,) = said(prompts, rows, layers=[0], prepend_bos=False)
    assert "'subject | bos'" in text
    assert "skipped: no usable prompt among 3 (" in text


def test_values_that_are_missing_are_counted(said, prompts):
    """Families of positions, edges no layer can see, and tokens beyond the end of the text."""
    family = kg.per_position(kg.patch("resid_post", "last", kg.zero()), ["last_q", "-9"])
    table, (text,) = said(prompts, family, layers=[0, 1], n_tokens=2)
    lost = table[table.status != "ok"]
    assert 0 < len(lost) < len(table)
    name, n = lost.intervention.iloc[0], lost.prompt.nunique()
    of = (table.intervention == name).sum()
    assert f"row {name!r}: {len(lost)} of {of} values are missing, in {n} of 3 prompts (" in text
    edge = kg.knockout("subject", "last", name="back")
    assert (
        "row 'back': 2 of 2 values are missing, in 1 of 1 prompts"
        in (
            said([prompts[0]], [edge, kg.patch("resid_post", "last", kg.zero())], layers=[0, 1])[1][
                0
            ]
        )
    )


def test_other_tables_say_it_too(said, prompts):
    table, (text,) = said(prompts, swapped(), kg.evidence.off_manifold, layers=[0])
    assert "1 of 3 prompts took no part" in text
    assert list(left_out(table))

    def module_statistics(model, prompts, source, progress, **options):
        return kg.evidence.module_statistics(model, prompts, source=source, **options)

    swap = kg.corrupted_run(by=kg.swap())
    table, (text,) = said(prompts, swap, module_statistics, pos="last", layers=[0])
    lost = table[table.status != "ok"]
    assert lost.prompt.nunique() == 1
    assert f"{len(lost) // lost.intervention.nunique()} of " in text


def test_nothing_is_said_where_nothing_is_left_out(said, prompts):
    assert said(prompts, kg.information_flow(), layers=[0])[1] == []
