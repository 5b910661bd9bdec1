"""Run folders: what is there is not computed again, what does not belong there is refused."""

import json
import re
import shutil
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import knockgrid as kg
from knockgrid.runs.run_folder import DamagedShard, OtherVersions
from knockgrid.runs.shard import arrow_of, schema, write_rows
from knockgrid.runs.store import UnfinishedRun
from knockgrid.runs.verification import verify
from knockgrid.table.table import metadata_of

TEXTS = {
    "france": ("The capital of France is", "France"),
    "italy": ("The capital of Italy is", "Italy"),
    "tower": ("The Eiffel Tower is located in the city of", "The Eiffel Tower"),
    "rome": ("Rome is in", "Rome"),
    "oslo": ("Oslo is in", "Oslo"),
}


@pytest.fixture(scope="module")
def prompts():
    """Five prompts of three lengths, out of the order in which lengths are computed."""
    return [kg.Prompt(t, spans={"subject": s}, id=i) for i, (t, s) in TEXTS.items()]


@pytest.fixture(scope="module")
def rows():
    """Three rows, one of them with a vector that is taken over the whole set."""
    return [
        kg.knockout(),
        kg.patch("resid_post", "subject"),
        kg.patch("mlp_out", "last", kg.mean_activation()),
    ]


@pytest.fixture(scope="module")
def run(tiny_llama, prompts, rows):
    """A sweep of two prompts per shard, in memory or into a folder."""

    def go(out=None, prompts=prompts, rows=rows, model=tiny_llama, **options):
        plain = {"noise_floor": False, "top": 0} if out else {}
        options = {"layers": [2, 0], "batch": 2, **plain, **options}
        return kg.sweep(model, prompts, rows, out=out, progress=False, **options)

    return go


@pytest.fixture(scope="module")
def undisturbed(run):
    """The same sweep in memory."""
    return run()


@pytest.fixture(scope="module")
def finished(run, tmp_path_factory):
    """A finished run folder, to be copied."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    run(folder)
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    """A run folder of one's own."""
    return shutil.copytree(finished, tmp_path / "run")


def equal(one, other):
    """Whether two tables are the same, to the last bit and entry."""
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    return metadata_of(one) == metadata_of(other)


@pytest.fixture
def computed(monkeypatch):
    """The numbers of the shards that are computed from now on."""
    from knockgrid.runs.work import Work

    numbers, compute = [], Work.carry_out

    def counted(self, number, done=lambda n: None):
        numbers.append(number)
        return compute(self, number, done)

    monkeypatch.setattr(Work, "carry_out", counted)
    return numbers


def shards_of(folder):
    return sorted(path.name for path in (folder / "shards").iterdir())


def test_a_run_in_pieces_equals_a_sweep_in_memory(folder, undisturbed):
    assert equal(kg.open_run(folder), undisturbed)
    assert shards_of(folder) == [f"0000{i}.parquet" for i in range(4)]
    sides = pd.read_parquet(folder / "prompts.parquet")
    assert list(sides["id"]) == list(TEXTS)
    assert sides.set_index("id").loc["rome", "tokens"][-1] == " in"


def test_what_is_there_is_not_computed_again(folder, run, undisturbed, computed):
    before = {path: path.stat().st_mtime_ns for path in (folder / "shards").iterdir()}
    assert equal(run(folder), undisturbed)
    assert computed == []
    (folder / "shards" / "00001.parquet").unlink()
    assert equal(run(folder), undisturbed)
    assert computed == [1]
    kept = {p: t for p, t in before.items() if p.name != "00001.parquet"}
    assert {p: p.stat().st_mtime_ns for p in kept} == kept


def test_vectors_of_the_whole_set_are_not_taken_anew(folder, run, undisturbed, monkeypatch):
    """A part that computed its own mean would give other numbers than the whole."""

    def never(*_):
        raise AssertionError("statistics over the set were computed again")

    monkeypatch.setattr("knockgrid.engine.setup.with_statistics", never)
    (folder / "shards" / "00000.parquet").unlink()
    assert equal(run(folder), undisturbed)


def test_a_part_of_the_shards(run, undisturbed, tmp_path, computed):
    with pytest.warns(UnfinishedRun, match="2 of 4 shards, 2 of 5 prompts"):
        part = run(tmp_path / "run", shard="1/2")
    assert sorted(computed) == [0, 2]
    assert metadata_of(part)["unfinished"] == {"shards": 4, "finished": 2}
    plan = [json.loads(line) for line in (tmp_path / "run" / "plan.jsonl").read_text().splitlines()]
    mine = [one["id"] for one in plan if one["shard"] in (0, 2)]
    assert list(dict.fromkeys(part["prompt"])) == mine
    there = undisturbed[undisturbed["prompt"].isin(part["prompt"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(part, there, check_exact=True)
    assert equal(run(tmp_path / "run", shard="2/2"), undisturbed)
    assert sorted(computed) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"seed": 1}, r"holds a run with other settings \(seed\)"),
        ({"layers": [0, 2]}, r"\(layers\)"),
        ({"unit": "bits", "batch": 3}, r"\(batch, unit\)"),
        ({"rows": [kg.knockout()]}, r"\(interventions\)"),
        ({"rows": [kg.knockout(window=9)]}, r"\(interventions\)"),
    ],
)
def test_another_setting_is_refused_with_its_name(folder, run, options, says, computed):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(kg.InputError, match=says):
        run(folder, **options)
    assert computed == []
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_another_vector_is_another_setting(run, tmp_path):
    import torch

    def fixed(value):
        vector = torch.zeros(32)
        vector[17] = value
        return [kg.patch("resid_post", "last", kg.fixed(vector), name="fixed")]

    run(tmp_path / "run", rows=fixed(1.0))
    with pytest.raises(kg.InputError, match=r"\(interventions\)"):
        run(tmp_path / "run", rows=fixed(1.5))


def test_other_prompts_and_another_model_are_refused(folder, run, prompts, tiny_gpt2):
    for _ in range(2):  # of a finished run, and of one that goes on
        for others in (prompts[:-1], prompts[::-1], [prompts[0].replace(group="x"), *prompts[1:]]):
            with pytest.raises(kg.InputError, match=r"with other settings \(prompts\)"):
                run(folder, prompts=others)
        with pytest.raises(kg.InputError, match=r"was begun with another model \(architecture,"):
            run(folder, model=tiny_gpt2)
        (folder / "shards" / "00000.parquet").unlink(missing_ok=True)


def test_another_state_of_the_model_is_refused(folder, run, tiny_llama, monkeypatch):
    """BOS by default, and hooks of the user's own, change numbers without being given."""
    (folder / "shards" / "00000.parquet").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(tiny_llama.cfg, "default_prepend_bos", False)
        with pytest.raises(kg.InputError, match=r"with other settings \(prepend_bos differ here"):
            run(folder)
    hooked = folder.parent / "hooked"
    run(hooked, executor="reference")
    (hooked / "shards" / "00000.parquet").unlink()
    tiny_llama.add_hook("blocks.0.hook_mlp_out", lambda activation, hook: activation * 1.5)
    try:
        with pytest.raises(kg.InputError, match=r"\(receipt differ here"):
            run(hooked, executor="reference")
    finally:
        tiny_llama.reset_hooks()


def test_separators_of_lines_in_a_prompt(run, tmp_path):
    given = [kg.Prompt("Rome\u2028is\x85in", spans={"subject": "Rome"}, id="a\u2029b")]
    assert equal(run(tmp_path / "run", prompts=given), run(prompts=given))
    assert equal(run(tmp_path / "run", prompts=given), run(prompts=given))


def test_a_foreign_manifest_moves_no_file(folder, run, tmp_path):
    (folder / "shards" / "00000.parquet").unlink()
    manifest = json.loads((folder / "manifest.json").read_text())
    victim = tmp_path / "victim"
    victim.write_text("mine")
    other = {**manifest["plan"]["digests"], str(victim): "0"}
    changed = {**manifest, "plan": {**manifest["plan"], "digests": other}}
    (folder / "manifest.json").write_text(json.dumps(changed))
    with pytest.raises(kg.InputError, match="was not written by knockgrid"):
        run(folder)
    (folder / "manifest.json").write_text(json.dumps({**manifest, "begun_by": "../../x"}))
    with pytest.raises(kg.InputError, match="was not written by knockgrid"):
        run(folder)
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("change", [{"plan": None}, {"versions": []}, {"begun_by": None}])
def test_a_manifest_without_what_it_needs(folder, change):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(kg.InputError, match=f"is damaged .no '{next(iter(change))}'"):
        kg.open_run(folder)
    path.write_text("[" * 100_000)
    with pytest.raises(kg.InputError, match="is damaged"):
        kg.open_run(folder)


@pytest.mark.parametrize("where", [{"intervention": 3}, {"layer": [0, "x"]}])
def test_values_that_a_column_cannot_hold(folder, where):
    with pytest.raises(kg.InputError, match="the column holds"):
        kg.open_run(folder, where=where)


def test_a_part_without_shards_and_a_part_with_failures(run, pairs, tmp_path, monkeypatch):
    empty = run(tmp_path / "run", prompts=pairs, shard="8/8")
    assert (len(empty), metadata_of(empty)["unfinished"]["finished"]) == (0, 0)
    with monkeypatch.context() as patch:
        Raising(patch, "a")
        with pytest.raises(kg.runs.PromptsFailed, match="'a'"):
            run(tmp_path / "run", prompts=pairs, shard="1/2")
        with pytest.raises(kg.runs.PromptsFailed, match="'a'"):
            run(tmp_path / "run", prompts=pairs, shard="2/2")  # which ends the run
        with pytest.raises(kg.InputError, match="1 prompt of .* failed"):
            kg.runs.compact(tmp_path / "run")
    with monkeypatch.context() as patch:  # mended, and killed before its end
        patch.setattr("knockgrid.runs.running.finish", lambda folder: None)
        with pytest.raises(kg.runs.PromptsFailed):
            run(tmp_path / "run", prompts=pairs)
    there = kg.open_run(tmp_path / "run")
    assert "failed" not in metadata_of(there)
    assert equal(there, run(prompts=pairs))


def test_an_unfinished_export_says_so(folder, tmp_path):
    (folder / "shards" / "00000.parquet").unlink()
    with pytest.warns(UnfinishedRun, match="3 of 4 shards"):
        kg.runs.export(folder, tmp_path / "a.csv")


def test_too_little_memory_is_the_prompts_fault(run, pairs, tmp_path, monkeypatch):
    from knockgrid.engine import collect as _collect
    from knockgrid.engine.memory import TooLittleMemory

    def never(*_):
        raise TooLittleMemory("prompts of 5 tokens")

    monkeypatch.setattr(_collect, "bind", never)
    with pytest.raises(kg.runs.PromptsFailed) as caught:
        run(tmp_path / "run", prompts=pairs)
    assert set(caught.value.failed) == set("abcd")


def test_errors_that_travel_are_said_once():
    import pickle

    from knockgrid.engine.memory import TooLittleMemory

    for error in (TooLittleMemory("prompts"), kg.runs.PromptsFailed({"a": "no"}, "runs/x")):
        assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_another_executor_is_refused(folder, run, monkeypatch):
    (folder / "shards" / "00000.parquet").unlink()
    monkeypatch.setattr("knockgrid.engine.preflight.staircase", kg.executors.reference)
    with pytest.raises(kg.InputError, match="begun with the staircase executor, which does not"):
        run(folder)


def test_other_versions_are_said(folder, run, undisturbed, monkeypatch):
    from knockgrid.engine.setup import versions

    monkeypatch.setattr("knockgrid.engine.setup.versions", lambda: {**versions(), "torch": "9.9"})
    (folder / "shards" / "00000.parquet").unlink()
    with pytest.warns(OtherVersions, match="under other versions of torch"):
        table = run(folder)
    pd.testing.assert_frame_equal(table, undisturbed, check_exact=True)


def test_a_changed_plan_is_refused(folder, run):
    (folder / "shards" / "00000.parquet").unlink()
    plan = folder / "plan.jsonl"
    plan.write_text(plan.read_text().replace("France", "Fr@nce"))
    with pytest.raises(kg.InputError, match="plan.jsonl is not the file that the run was begun"):
        run(folder)


def test_a_shard_of_another_run_is_set_aside(folder, run, tmp_path, undisturbed):
    """Of the same settings on other prompts, as when somebody copies files."""
    shutil.copy(folder / "shards" / "00000.parquet", folder / "shards" / "00002.parquet")
    other = tmp_path / "other"
    run(other, seed=5)
    shutil.copy(other / "shards" / "00001.parquet", folder / "shards" / "00001.parquet")
    with pytest.warns(DamagedShard) as said:
        table = run(folder)
    reasons = " ".join(str(one.message) for one in said)
    assert "00001.parquet: it belongs to another run" in reasons
    assert "00002.parquet: it is shard 0 under another name" in reasons
    assert equal(table, undisturbed)


def test_a_column_of_one_s_own(run, tmp_path):
    """A measure that the schema does not know keeps its place, in shards without a value too."""
    from dataclasses import replace

    from knockgrid.divergences import js

    mine = replace(js, name="mine", label="mine")
    table = run(tmp_path / "run", metrics=["js", mine])
    assert equal(table, run(metrics=["js", mine]))
    assert (table["mine"] == table["js"]).all()


def test_some_columns_and_rows(folder, undisturbed):
    some = kg.open_run(
        folder, columns=["prompt", "js"], where={"layer": 2, "prompt": ["rome", "tower"]}
    )
    there = undisturbed[(undisturbed["layer"] == 2) & undisturbed["prompt"].isin(["rome", "tower"])]
    pd.testing.assert_frame_equal(some, there[["prompt", "js"]].reset_index(drop=True))
    with pytest.raises(kg.InputError, match="unknown column 'jss'; did you mean 'js'"):
        kg.open_run(folder, columns=["jss"])
    with pytest.raises(kg.InputError, match="unknown column 'layr'; did you mean 'layer'"):
        kg.open_run(folder, where={"layr": 2})


def test_nothing_finished_yet(folder):
    for path in (folder / "shards").iterdir():
        path.unlink()
    with pytest.raises(kg.InputError, match="of which no shard is finished"):
        kg.open_run(folder)


def test_a_compact_run_is_the_same(folder, run, undisturbed, computed):
    path = kg.runs.compact(folder)
    assert path == folder / "table.parquet"
    assert shards_of(folder) == []
    assert equal(kg.open_run(folder), undisturbed)
    assert equal(run(folder), undisturbed)
    assert computed == []
    assert kg.runs.compact(folder) == path
    unfinished = folder.parent / "unfinished"
    with pytest.warns(UnfinishedRun):
        run(unfinished, shard="1/2")
    with pytest.raises(kg.InputError, match="is not finished; end the run"):
        kg.runs.compact(unfinished)


def test_exports_read_back(folder, undisturbed, tmp_path):
    kg.runs.export(folder, tmp_path / "a.csv")
    kg.runs.export(folder, tmp_path / "a.jsonl", "jsonl")
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    # what is written has every digit, but pandas 2 reads fewer by itself
    numbers = ("js", "kl", "logp_clean", "js_to_source")
    whole = dict.fromkeys(numbers, lambda text: float(text or "nan"))
    read = pd.read_csv(tmp_path / "a.csv", converters=whole)
    for back in (read, pd.DataFrame(lines)):
        assert len(back) == len(undisturbed)
        key = ["prompt", "intervention", "layer"]
        one, other = (t.set_index(key).sort_index() for t in (back, undisturbed))
        for name in numbers:
            np.testing.assert_array_equal(
                one[name].to_numpy(float),
                other[name].astype("Float64").to_numpy(float, na_value=np.nan),
            )
    with pytest.raises(kg.InputError, match="unknown format 'xlsx'"):
        kg.runs.export(folder, tmp_path / "a.xlsx", "xlsx")


def test_a_formula_stays_a_text(run, tmp_path):
    """A spreadsheet would carry it out."""
    given = [kg.Prompt("Rome is in", spans={"subject": "Rome"}, id="=1+1", group="@SUM(A1)")]
    run(tmp_path / "run", prompts=given)
    kg.runs.export(tmp_path / "run", tmp_path / "a.csv")
    kg.runs.export(tmp_path / "run", tmp_path / "a.jsonl", "jsonl")
    back = pd.read_csv(tmp_path / "a.csv")
    assert (set(back["prompt"]), set(back["group"])) == ({"'=1+1"}, {"'@SUM(A1)"})
    assert (back["logp_clean"] < 0).all()  # a number stays one
    assert json.loads((tmp_path / "a.jsonl").read_text().splitlines()[0])["prompt"] == "=1+1"


def test_what_json_has_no_word_for(folder, tmp_path):
    from knockgrid.runs.store import as_lines

    rows = {"prompt": ["a"], "kl": [float("inf")], "js": [4.7e-12], "js_to_source": [None]}
    frame = pd.DataFrame({**rows, "intervention": "last", "layer": 0})
    line = json.loads(as_lines(arrow_of(frame, pa.Schema.from_pandas(frame))))
    assert (line["kl"], line["js"], line["js_to_source"]) == ("inf", 4.7e-12, None)


@pytest.mark.parametrize("n_tokens", [1, 2])
def test_every_column_survives_the_disk(run, tmp_path, rows, n_tokens):
    """Several tokens and samples, a corruption without a partner, families of heads."""
    several = [*rows, kg.patch("resid_post", "subject", kg.corrupted_run(by=kg.swap()), name="s")]
    several += kg.per_head(kg.knockout(name="heads"), 2)
    options = {"rows": several, "n_tokens": n_tokens, "samples": 2}
    assert equal(run(tmp_path / "run", **options), run(**options))


def test_ten_million_rows_stay_queryable(tmp_path, folder):
    """The recipe of the documentation, on a run of 111,112 prompts."""
    columns = schema(["js", "kl"])
    (tmp_path / "big" / "shards").mkdir(parents=True)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["plan"]["shards"] = 10
    (tmp_path / "big" / "manifest.json").write_text(json.dumps(manifest))
    per, cells = 11_112, 90
    random = np.random.default_rng(0)
    layer = np.tile(np.arange(30), per * 3)
    name = np.tile(np.repeat(["subject", "attention", "last"], 30), per)
    frame = pd.DataFrame({"layer": layer, "intervention": name, "token": 0, "samples": 1})
    frame["status"] = "ok"
    frame = frame.reindex(columns=columns.names)
    sums = np.zeros(30)
    for number in range(10):
        frame["prompt"] = np.repeat([f"p{number}-{i}" for i in range(per)], cells)
        frame["js"] = random.random(per * cells)
        sums += np.bincount(layer[name == "last"], frame["js"][name == "last"], 30)
        with (tmp_path / "big" / "shards" / f"{number:05d}.parquet").open("wb") as file:
            write_rows(arrow_of(frame, columns), file)
    rows = duckdb.sql(
        f"SELECT layer, avg(js), count(*) FROM '{tmp_path}/big/shards/*.parquet' "
        "WHERE intervention = 'last' GROUP BY layer ORDER BY layer"
    ).fetchall()
    assert [(one[0], one[2]) for one in rows] == [(i, 10 * per) for i in range(30)]
    np.testing.assert_allclose([one[1] for one in rows], sums / (10 * per), rtol=1e-12)
    lazily = kg.runs.scan_run(tmp_path / "big")
    assert lazily.count_rows() == 10 * per * cells
    counted = duckdb.sql("SELECT count(DISTINCT prompt) FROM lazily").fetchall()
    assert counted == [(10 * per,)]


@pytest.mark.parametrize("state", ["shards", "compact", "other files beside"])
def test_the_recipe_of_the_documentation(folder, undisturbed, state, tmp_path):
    """The SQL of docs/runs.md, as it stands there."""
    folder = shutil.copytree(folder, tmp_path / "copy")
    if state != "shards":
        kg.runs.compact(folder)
    if state == "other files beside":
        shutil.copy(folder / "prompts.parquet", folder / "labels.parquet")
    page = (Path(__file__).parents[2] / "docs" / "runs.md").read_text(encoding="utf-8")
    recipe = re.search(r"```sql\n(.*?)```", page, re.DOTALL)
    assert recipe is not None
    found = duckdb.sql(recipe[1].replace("runs/mine", str(folder))).df()
    ok = undisturbed[undisturbed["status"] == "ok"]
    there = ok.groupby(["intervention", "layer"])["js"].agg(["mean", "size"])
    both = found.set_index(["intervention", "layer"]).join(there)
    np.testing.assert_allclose(both["js"], both["mean"], rtol=1e-12)
    assert (both["n"] == both["size"]).all()
    assert len(both) == len(there)


def test_relation_and_subject_are_columns_of_rows_and_exports(run, tmp_path):
    given = [
        kg.Prompt("Rome is in", spans={"subject": "Rome"}, id="rome", relation="in", group="g"),
        kg.Prompt("Oslo is in", id="oslo"),
    ]
    rows = [kg.patch("resid_post", "last", kg.zero())]
    made = run(tmp_path / "run", prompts=given, rows=rows)
    assert equal(made, run(prompts=given, rows=rows))
    kg.runs.export(tmp_path / "run", tmp_path / "a.csv")
    kg.runs.export(tmp_path / "run", tmp_path / "a.jsonl", "jsonl")
    lines = (tmp_path / "a.jsonl").read_text().splitlines()
    scanned = kg.runs.scan_run(tmp_path / "run").to_table().to_pandas()
    read = pd.read_csv(tmp_path / "a.csv")
    for back in (made, scanned, read, pd.DataFrame(map(json.loads, lines))):
        labels = back.drop_duplicates("prompt").set_index("prompt")[
            ["relation", "subject", "group"]
        ]
        assert labels.loc["rome"].tolist() == ["in", "Rome", "g"]
        assert labels.loc["oslo"].isna().all()


@pytest.mark.parametrize(
    ("layout", "lacks"),
    [
        (2, {"relation", "subject", "row", "kind", "source", "place"}),
        (3, {"row", "kind", "source", "place"}),
    ],
)
def test_a_run_of_an_older_layout_is_read_exported_and_continued(
    run, tmp_path, monkeypatch, layout, lacks
):
    """Its rows lack what stands in the side table or with the interventions."""
    given = [
        kg.Prompt(t, spans={"subject": s}, id=i, relation=f"of {i}") for i, (t, s) in TEXTS.items()
    ]
    out = tmp_path / "run"
    with monkeypatch.context() as before:
        before.setattr("knockgrid.runs.running.SCHEMA", layout)
        run(out, prompts=given)
    assert not lacks & set(kg.runs.scan_run(out).schema.names)
    (out / "shards" / "00001.parquet").unlink()
    assert equal(run(out, prompts=given), run(prompts=given))
    assert not lacks & set(kg.runs.scan_run(out).schema.names)
    assert set(kg.open_run(out, columns=["relation"])["relation"]) == {f"of {i}" for i in TEXTS}
    for name in ("row", "kind", "source", "place"):
        assert set(kg.open_run(out, columns=[name])[name]) == set(run(prompts=given)[name])
    kg.runs.export(out, tmp_path / "a.csv")
    assert set(pd.read_csv(tmp_path / "a.csv")["subject"]) == {s for _, s in TEXTS.values()}
    assert not verify(out).mismatches
    kg.runs.compact(out)
    assert equal(kg.open_run(out), run(prompts=given))


class Raising:
    """A source of values for some prompts, and of an error for the others."""

    def __init__(self, monkeypatch, *ids):
        from knockgrid.engine import collect as _collect

        inner = _collect.bind

        def bind(model, batch, places, settings):
            if any(one.prompt.id in ids for one in batch):
                raise RuntimeError("no such prompt")
            return inner(model, batch, places, settings)

        monkeypatch.setattr(_collect, "bind", bind)


@pytest.fixture(scope="module")
def pairs():
    """Two pairs of prompts of equal length each."""
    texts = {"a": "Rome is in", "b": "Rome is in", "c": "Rome is there", "d": "Rome is there"}
    return [
        kg.Prompt(t + " x" * (i > 1), spans={"subject": "Rome"}, id=k)
        for i, (k, t) in enumerate(texts.items())
    ]


def test_a_pair_that_always_raises_does_not_hold_up_its_run(run, pairs, tmp_path, monkeypatch):
    """Once anything was finished, the fault is the prompts'."""
    with monkeypatch.context() as patch:
        Raising(patch, "c", "d")
        patch.setattr("random.SystemRandom.sample", lambda self, numbers, n: sorted(numbers))
        for _ in range(2):  # the second time only that shard is missing
            with pytest.raises(kg.runs.PromptsFailed) as caught:
                run(tmp_path / "run", prompts=pairs)
            assert set(caught.value.failed) == {"c", "d"}
    assert equal(run(tmp_path / "run", prompts=pairs), run(prompts=pairs))


def test_a_fault_of_the_run_ends_it(run, pairs, tmp_path, monkeypatch):
    """When the first prompts all raise the same, the others would as well."""
    with monkeypatch.context() as patch:
        Raising(patch, *"abcd")
        with pytest.raises(RuntimeError, match="no such prompt"):
            run(tmp_path / "run", prompts=pairs)
    assert equal(run(tmp_path / "run", prompts=pairs), run(prompts=pairs))


def test_progress_counts_no_cell_twice(run, pairs, tmp_path, monkeypatch):
    from knockgrid.runs.work import Work

    told, compute = [], Work.carry_out
    monkeypatch.setattr(Work, "carry_out", lambda self, i, done=None: compute(self, i, told.append))
    with monkeypatch.context() as patch:
        inner = __import__("knockgrid.engine.collect", fromlist=["finished"]).finished

        def finished(model, bound, meter, executor, at_once):
            for i, one in enumerate(inner(model, bound, meter, executor, at_once)):
                if i == 3 and len(bound.clean) == 2:
                    raise RuntimeError("in the middle")
                yield one

        patch.setattr("knockgrid.engine.collect.finished", finished)
        run(tmp_path / "run", prompts=pairs)
    assert sum(told) == 4 * 3 * 2  # prompts, rows, layers
