"""The tidy table: types, the pivot, its refusals, and tables that pandas puts together."""

import json

import numpy as np
import pandas as pd
import pytest

from knockgrid.errors import InputError
from knockgrid.table.table import CELL, COLUMNS, build, cells, grid, metrics

METADATA = {"unit": "nats", "mode": "prompt_only"}


def rows(prompts=("a", "b"), names=("subject", "last"), layers=(0, 1, 2), **more):
    """One row per cell; js = 100 · prompt + 10 · intervention + layer, so that each is known."""
    return [
        {"prompt": p, "intervention": n, "layer": layer, "js": 100.0 * i + 10 * j + layer, **more}
        for i, p in enumerate(prompts)
        for j, n in enumerate(names)
        for layer in layers
    ]


def table(*args, metadata=METADATA, **kwargs):
    return build(rows(*args, **kwargs), metadata)


# build


def test_schema_columns_come_typed_and_in_order():
    shuffled = [dict(reversed(row.items())) for row in rows(rank_clean=2, layers=(3,))]
    made = build(shuffled, METADATA)
    present = [column for column in COLUMNS if column.name in made]
    assert list(made.columns) == [column.name for column in present]
    assert [str(made[c.name].dtype) for c in present] == [c.dtype for c in present]


def test_labels_have_defaults_and_a_metric_nobody_asked_for_has_no_column():
    assert metrics(table()) == ["js"]
    assert "kl" not in table()
    row = table().iloc[0]
    assert (row["token"], row["samples"], row["status"]) == (0, 1, "ok")
    assert row[["head", "module", "group"]].isna().all()


def test_labels_are_written_exactly_and_other_columns_follow():
    made = build([*rows(position=3), *rows(("c",), position=None)], METADATA)
    assert set(made["position"].dropna()) == {"3"}  # a detour through float would say "3.0"
    made = build([{"mine": 1.5, "family": "gpt", **row, "layers": (3, 4)} for row in rows()], {})
    assert set(made.layers) == {"3,4"}
    assert list(made.columns)[-2:] == ["mine", "family"]
    assert metrics(made) == ["js", "mine"]
    assert grid(made, "mine").eq(1.5).all(axis=None)


def test_metadata_becomes_plain_json():
    metadata = {"k": np.float32(0.5), "order": (1, np.int64(2)), "sigma": float("inf"), "n": None}
    kept = build(rows(), metadata).attrs["knockgrid"]
    assert kept == {"k": 0.5, "order": [1, 2], "sigma": "inf", "n": None}
    assert json.loads(json.dumps(kept, allow_nan=False)) == kept


def test_metadata_survives_copies_filters_and_is_not_shared():
    made = table()
    assert made.copy().attrs == made.attrs
    part = made[made.prompt == "a"]
    assert part.attrs == made.attrs
    part.attrs["knockgrid"]["unit"] = "bits"
    assert made.attrs["knockgrid"]["unit"] == "nats"


@pytest.mark.parametrize(
    ("bad", "metadata", "words"),
    [
        ([], {}, "at least one row"),
        ([{"prompt": "a", "layer": 0}], {}, "'intervention'"),
        ([{"prompt": "a", "intervention": "x", "layer": 0.5}], {}, "'layer' holds Int64"),
        ([{"prompt": "a", "intervention": "x", "layer": 0, "js": "high"}], {}, "'js' holds float"),
        (rows(), {"prompts": [{"text": object()}]}, r"metadata\['prompts'\]\[0\]\['text'\]"),
    ],
)
def test_build_refuses(bad, metadata, words):
    with pytest.raises(InputError, match=words):
        build(bad, metadata)


# grid


def test_grid_is_the_mean_over_prompts():
    expected = [[50.0, 51.0, 52.0], [60.0, 61.0, 62.0]]
    made = grid(table())
    assert made.to_numpy().tolist() == expected
    assert (made.index.name, made.columns.name) == ("intervention", "layer")
    assert grid(table(), columns="intervention", rows="layer").to_numpy().T.tolist() == expected


def test_prompts_weigh_the_same_and_statistics_differ():
    made = build(rows(("a", "b", "c"), ("last",), (0,)), METADATA)
    made["js"] = [0.0, 0.0, 0.9]
    found = {
        name: grid(made, statistic=name).iloc[0, 0] for name in ("mean", "median", "min", "max")
    }
    assert found == pytest.approx({"mean": 0.3, "median": 0.0, "min": 0.0, "max": 0.9})


def test_both_axes_keep_the_users_order_or_that_of_appearance():
    order = {"layer_order": [27, 0, 15], "intervention_order": ["last", "subject"]}
    made = table(layers=(0, 15, 27), metadata=order).sort_values("js", ascending=False)
    assert list(grid(made).columns) == [27, 0, 15]
    assert list(grid(made).index) == ["last", "subject"]
    assert grid(made).loc["subject", 15] == 65.0
    assert list(grid(made[made.layer != 0]).columns) == [27, 15]
    assert list(grid(table(layers=(9, 2, 5))).columns) == [9, 2, 5]


def test_grid_carries_the_metadata_and_what_it_shows():
    kept = grid(table(), statistic="median").attrs["knockgrid"]
    assert kept == {**METADATA, "metric": "js", "statistic": "median"}


def test_missing_values_with_a_reason_leave_the_mean():
    made = table(prompts=("a", "b"))
    made.loc[(made.prompt == "b") & (made.layer == 1), ["js", "status"]] = [np.nan, "NA: no edge"]
    made.loc[made.layer == 2, ["js", "status"]] = [np.nan, "NA: no edge"]
    found = grid(made).loc["subject"]
    assert found[0] == 50.0
    assert found[1] == 1.0  # prompt a alone
    assert np.isnan(found[2])


def test_which_numbers_count():
    made = table()
    made.loc[made.layer == 2, ["js", "status"]] = [0.0, "NA: layer 2 cannot see the edge"]
    assert grid(made)[2].isna().all()  # a number beside NA is no effect
    made["status"] = "diverged at token 1"
    assert grid(made).loc["subject", 0] == 50.0
    made.loc[(made.prompt == "b") & (made.layer == 1), ["js", "status"]] = [np.inf, "ok"]
    assert np.isinf(grid(made)[1]).all()
    made.loc[(made.prompt == "b") & (made.layer == 1), "js"] = np.nan
    words = "'js' is NaN in 2 rows .* prompt 'b', intervention 'subject', layer 1"
    with pytest.raises(InputError, match=words):
        grid(made)


MIXED = {
    "token": (0, 1),
    "head": (3, 7),
    "module": ("attn", "mlp"),
    "position": ("subject", "last"),
    "span": ("s0", "s1"),
    "measured": ("s0", "s1"),
    "source_layer": (4, 20),
    "alpha": (0.5, 1.0),
    "samples": (1, 10),
    "layers": ("3", "2,3,4"),
    "mode": ("prompt_only", "persistent"),
    "direction": ("noising", "denoising"),
}


@pytest.mark.parametrize("name", [n for n in CELL if n not in ("intervention", "layer")])
@pytest.mark.parametrize("prompts", [("a", "b"), ("a",)])
def test_cells_that_mix_a_dimension_are_refused(name, prompts):
    # the second value belongs to other prompts, so that only the dimension itself can tell
    one, other = MIXED[name]
    parts = [{**row, name: one} for row in rows(prompts)] + [
        {**row, name: other} for row in rows(("c",))
    ]
    made = build(parts, METADATA)
    with pytest.raises(InputError, match=f"would mix several values of '{name}'.*on an axis"):
        grid(made)
    assert grid(made[made[name] == one]).shape == (2, 3)


def test_rows_without_a_value_are_no_mixture():
    made = table()
    made.loc[made.prompt == "b", ["js", "status", "samples"]] = [np.nan, "NA: no edge", 0]
    assert grid(made).loc["subject"].tolist() == [0.0, 1.0, 2.0]


def test_a_dimension_on_an_axis_is_no_mixture():
    made = build([*rows(token=0), *rows(token=1)], METADATA)
    one = made[made.intervention == "last"]
    assert grid(one, rows="token").shape == (2, 3)
    with pytest.raises(InputError, match="'intervention'"):
        grid(made, rows="token")


def test_a_dimension_that_the_row_determines_is_no_mixture():
    made = table()
    made["position"] = made["intervention"]
    assert grid(made).shape == (2, 3)


GAP = {"token": 1, "js": None, "status": "NA: the text had ended before this token"}


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ({}, {}, "'a' has 2 rows .*they are equal"),
        ({"seed": "x"}, {"seed": "y"}, "they differ in seed"),
        ({}, GAP, "they differ in .*token"),
    ],
)
def test_a_prompt_measured_twice_is_refused(one, other, words):
    with pytest.raises(InputError, match=words):
        grid(build([{**row, **more} for more in (one, other) for row in rows()], METADATA))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"metric": "jss"}, "unknown metric 'jss'; did you mean 'js'"),
        ({"metric": "layer"}, "unknown metric 'layer'"),
        ({"rows": "interventions"}, "unknown rows .* did you mean 'intervention'"),
        ({"columns": "lair"}, "unknown columns 'lair'"),
        ({"columns": "js"}, "unknown columns 'js'"),
        ({"rows": "layer"}, "both 'layer'"),
        ({"rows": "head"}, "'head' is empty"),
        ({"statistic": "mode"}, "unknown statistic"),
    ],
)
def test_grid_refuses(options, words):
    with pytest.raises(InputError, match=words):
        grid(table(), **options)


def test_grid_refuses_what_is_no_table():
    for bad, words in (
        (pd.DataFrame({"js": [0.1]}), "no knockgrid table"),
        (table()[:0], "no rows"),
    ):
        with pytest.raises(InputError, match=words):
            grid(bad)


def test_a_partly_missing_label_is_called_none():
    made = build([*rows(("a",), layers=(0,), module="mlp"), *rows(("a",), layers=(0,))], METADATA)
    assert list(grid(made, columns="module")) == ["mlp", "none"]


def test_cells_are_the_rows_behind_the_grid():
    long = cells(table(), "js", "intervention", "layer")
    assert list(long.columns) == ["row", "column", "prompt", "value", "status"]
    assert long.value.sum() == table().js.sum()


# put together by pandas


def told(prompt, unit="nats", **more):
    """A table of one prompt with a relation, a subject and metadata of its own."""
    side = {"id": prompt, "relation": f"of {prompt}", "subject": prompt.title()}
    labels = {"relation": side["relation"], "subject": side["subject"], "group": f"group {prompt}"}
    metadata = {"unit": unit, "mode": "prompt_only", "direction": "noising", "prompts": [side]}
    return build([{**row, **labels} for row in rows((prompt,))], {**metadata, **more})


def test_a_table_has_the_prompts_relation_and_subject():
    made = told("rome")
    assert list(made.columns[:4]) == ["prompt", "group", "relation", "subject"]
    assert set(made.relation) == {"of rome"}
    both = pd.concat([made, told("oslo")])
    one = both[both.intervention == "last"]
    assert list(grid(one, rows="relation").index) == ["of rome", "of oslo"]


def test_concat_joins_what_tables_say_of_themselves():
    one = told("rome", seed=0, layer_order=[2, 0], dropped={"last": {"x": "short"}})
    other = told("oslo", seed=1, layer_order=[2, 1], dropped={"last": {"y": "long"}})
    made = pd.concat([one, other], ignore_index=True)
    kept = made.attrs["knockgrid"]
    assert kept["unit"] == "nats"
    assert kept["layer_order"] == [2, 0, 1]
    assert [side["id"] for side in kept["prompts"]] == ["rome", "oslo"]
    assert kept["dropped"] == {"last": {"x": "short", "y": "long"}}
    assert "seed" not in kept  # it is no longer one
    assert one.attrs["knockgrid"]["seed"] == 0
    pd.testing.assert_frame_equal(made[made.prompt == "oslo"].reset_index(drop=True), other)


def test_the_higher_noise_floor_counts():
    floors = [
        {"js": {"overall": f, "cells": {"last": {"0": f, n: f}}}} for f, n in [(1, "1"), (2, "2")]
    ]
    whole = {"js": {"overall": 2, "cells": {"last": {"0": 2, "1": 1, "2": 2}}}}
    for one, other, higher in ((*floors, whole), (0.1, 0.3, 0.3)):
        made = pd.concat([told("rome", noise_floor=one), told("oslo", noise_floor=other)])
        assert made.attrs["knockgrid"]["noise_floor"] == higher


@pytest.mark.parametrize("together", [pd.concat, lambda two: two[0].merge(two[1], on="prompt")])
def test_nats_and_bits_do_not_come_together(together):
    with pytest.raises(InputError, match="nats and bits"):
        together([told("rome"), told("rome", "bits")])


@pytest.mark.parametrize(("name", "value"), [("mode", "persistent"), ("direction", "denoising")])
def test_modes_come_together_under_a_column_only(name, value):
    one, other = told("rome"), told("oslo", **{name: value})
    with pytest.raises(InputError, match=rf"differ in {name} .*{value}.*assign\({name}="):
        pd.concat([one, other])
    made = pd.concat([t.assign(**{name: t.attrs["knockgrid"][name]}) for t in (one, other)])
    with pytest.raises(InputError, match=f"mix several values of '{name}'"):
        grid(made)
    assert grid(made[made[name] == value]).shape == (2, 3)


STEPS = {
    "merge": lambda t: t.merge(pd.DataFrame({"prompt": ["rome"], "year": [753]}), on="prompt"),
    "left merge": lambda t: pd.merge(t, pd.DataFrame({"layer": [0], "site": ["a"]}), how="left"),
    "join": lambda t: t.join(pd.DataFrame({"mine": [1.0] * len(t)})),
    "query": lambda t: t.query("layer > 0"),
    "filter": lambda t: t.groupby("layer").filter(lambda part: part.js.mean() > 0),
    "sort": lambda t: t.sort_values("js", ascending=False),
    "copy": lambda t: t.copy(),
    "reset": lambda t: t.set_index("prompt").reset_index(),
    "concat": lambda t: pd.concat([t[t.layer == 0], t[t.layer > 0]]),
    "named": lambda t: pd.concat({"A": t}, names=["model"]).reset_index("model"),
    "rows": lambda t: pd.concat([t, pd.DataFrame([{**t.iloc[0], "prompt": "more"}])]),
    "assign": lambda t: t.assign(twice=t.js * 2, objs="a", left="b").copy(),
    "apply": lambda t: t.groupby("layer", group_keys=False)[list(t)].apply(lambda part: part),
    "drop": lambda t: t.drop(columns="group").drop_duplicates(),
}


@pytest.mark.parametrize("name", STEPS)
def test_what_pandas_does_keeps_what_a_figure_needs(name):
    made = STEPS[name](told("rome", layer_order=[2, 1, 0], labels={"last": "L"}))
    kept = made.attrs["knockgrid"]
    assert (kept["unit"], kept["labels"]) == ("nats", {"last": "L"})
    assert list(grid(made).columns)[:2] == [2, 1]


def test_tables_without_metadata_are_as_pandas_has_them_and_none_is_copied():
    bare, one = told("rome"), told("oslo")
    bare.attrs = {}
    assert pd.concat([bare, bare]).attrs == {}
    assert pd.concat([bare, one]).attrs["knockgrid"]["unit"] == "nats"
    pd.concat([one, told("bern")]).attrs["knockgrid"]["prompts"].append("x")
    assert len(one.attrs["knockgrid"]["prompts"]) == 1


def test_a_measure_that_a_row_cannot_have_is_empty_there():
    rows = [
        {"prompt": "a", "intervention": name, "layer": 0, "js": 0.1, "js_to_source": value}
        for name, value in (("last", 0.2), ("attention", float("nan")))
    ]
    shown = grid(build(rows, {}), "js_to_source")[0]
    assert shown["last"] == 0.2
    assert np.isnan(shown["attention"])


def test_columns_that_no_row_has_a_value_for():
    """A part of a sweep in which every cell is NA has the columns of the other parts."""
    rows = [{"prompt": "rome", "intervention": "last", "layer": 0, "status": "NA: no"}]
    made = build(rows, {}, ["js", "mine"])
    assert made[["js", "mine"]].isna().all(axis=None)
    assert [str(made[name].dtype) for name in ("js", "mine")] == ["float64", "float64"]
    assert "kl" not in made
