"""Run folders: what is there is not computed again, what does not belong there is refused."""

import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest
import torch

import knockgrid as kg
from knockgrid.divergences import js
from knockgrid.engine import setup
from knockgrid.runs.run_folder import DamagedShard, OtherVersions
from knockgrid.runs.store import UnfinishedRun
from knockgrid.runs.verification import verify
from knockgrid.runs.work import Work
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
    mean = kg.patch("mlp_out", "last", kg.mean_activation())
    return [kg.knockout(), kg.patch("resid_post", "subject"), mean]


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
    numbers, compute = [], Work.carry_out

    def counted(self, number, done=lambda n: None):
        numbers.append(number)
        return compute(self, number, done)

    monkeypatch.setattr(Work, "carry_out", counted)
    return numbers


def unlinked(folder, number=0):
    """The folder, without one of its shards."""
    (folder / "shards" / f"0000{number}.parquet").unlink(missing_ok=True)
    return folder


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def shards_of(folder):
    return sorted(path.name for path in (folder / "shards").iterdir())


def test_a_run_in_pieces_equals_a_sweep_in_memory(folder, undisturbed):
    assert equal(kg.open_run(folder), undisturbed)
    assert shards_of(folder) == [f"0000{i}.parquet" for i in range(4)]
    sides = pd.read_parquet(folder / "prompts.parquet")
    assert list(sides["id"]) == list(TEXTS)
    assert sides.set_index("id").loc["rome", "tokens"][-1] == " in"


def test_what_is_there_is_not_computed_again(folder, run, undisturbed, computed, monkeypatch):
    """Nor are vectors of the whole set: a part with its own mean would give other numbers."""
    before = {path: path.stat().st_mtime_ns for path in (folder / "shards").iterdir()}
    monkeypatch.setattr("knockgrid.engine.setup.with_statistics", lambda *_: pytest.fail("anew"))
    assert equal(run(folder), undisturbed)
    assert computed == []
    assert equal(run(unlinked(folder, 1)), undisturbed)
    assert computed == [1]
    kept = {p: t for p, t in before.items() if p.name != "00001.parquet"}
    assert {p: p.stat().st_mtime_ns for p in kept} == kept


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
    before = contents(folder)
    with pytest.raises(kg.InputError, match=says):
        run(folder, **options)
    assert computed == []
    assert contents(folder) == before


def test_another_vector_is_another_setting(run, tmp_path):
    vectors = torch.eye(32)[17] * 1.0, torch.eye(32)[17] * 1.5
    one, other = ([kg.patch("resid_post", "last", kg.fixed(v), name="fixed")] for v in vectors)
    run(tmp_path / "run", rows=one)
    with pytest.raises(kg.InputError, match=r"\(interventions\)"):
        run(tmp_path / "run", rows=other)


def test_other_prompts_and_another_model_are_refused(folder, run, prompts, tiny_gpt2):
    for _ in range(2):  # of a finished run, and of one that goes on
        for others in (prompts[:-1], prompts[::-1], [prompts[0].replace(group="x"), *prompts[1:]]):
            with pytest.raises(kg.InputError, match=r"with other settings \(prompts\)"):
                run(folder, prompts=others)
        with pytest.raises(kg.InputError, match=r"was begun with another model \(architecture,"):
            run(folder, model=tiny_gpt2)
        unlinked(folder)


def test_another_state_of_the_model_is_refused(folder, run, tiny_llama, monkeypatch):
    """BOS by default, and hooks of the user's own, change numbers without being given."""
    with monkeypatch.context() as patch:
        patch.setattr(tiny_llama.cfg, "default_prepend_bos", False)
        with pytest.raises(kg.InputError, match=r"with other settings \(prepend_bos differ here"):
            run(unlinked(folder))
    hooked = folder.parent / "hooked"
    run(hooked, executor="reference")
    tiny_llama.add_hook("blocks.0.hook_mlp_out", lambda activation, hook: activation * 1.5)
    try:
        with pytest.raises(kg.InputError, match=r"\(receipt differ here"):
            run(unlinked(hooked), executor="reference")
    finally:
        tiny_llama.reset_hooks()


def test_separators_of_lines_in_a_prompt(run, tmp_path):
    given = [kg.Prompt("Rome\u2028is\x85in", spans={"subject": "Rome"}, id="a\u2029b")]
    assert equal(run(tmp_path / "run", prompts=given), run(prompts=given))
    assert equal(run(tmp_path / "run", prompts=given), run(prompts=given))


def test_a_foreign_manifest_moves_no_file(folder, run, tmp_path):
    path, victim = unlinked(folder) / "manifest.json", tmp_path / "victim"
    manifest = json.loads(path.read_text())
    victim.write_text("mine")
    other = {**manifest["plan"]["digests"], str(victim): "0"}
    for change in ({"plan": {**manifest["plan"], "digests": other}}, {"begun_by": "../../x"}):
        path.write_text(json.dumps({**manifest, **change}))
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


def test_another_executor_is_refused(folder, run, monkeypatch):
    monkeypatch.setattr("knockgrid.engine.preflight.staircase", kg.executors.reference)
    with pytest.raises(kg.InputError, match="begun with the staircase executor, which does not"):
        run(unlinked(folder))


def test_other_versions_are_said(folder, run, undisturbed, monkeypatch):
    other = {**setup.versions(), "torch": "9.9"}
    monkeypatch.setattr(setup, "versions", lambda: other)
    with pytest.warns(OtherVersions, match="under other versions of torch"):
        table = run(unlinked(folder))
    pd.testing.assert_frame_equal(table, undisturbed, check_exact=True)


def test_a_changed_plan_is_refused(folder, run):
    plan = folder / "plan.jsonl"
    plan.write_text(plan.read_text().replace("France", "Fr@nce"))
    with pytest.raises(kg.InputError, match="plan.jsonl is not the file that the run was begun"):
        run(unlinked(folder))


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
    mine = replace(js, name="mine", label="mine")
    table = run(tmp_path / "run", metrics=["js", mine])
    assert equal(table, run(metrics=["js", mine]))
    assert (table["mine"] == table["js"]).all()


def test_some_columns_and_rows(folder, undisturbed):
    where = {"layer": 2, "prompt": ["rome", "tower"]}
    some = kg.open_run(folder, columns=["prompt", "js"], where=where)
    there = undisturbed.query("layer == 2 and prompt in ['rome', 'tower']")[["prompt", "js"]]
    pd.testing.assert_frame_equal(some, there.reset_index(drop=True))


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"columns": ["jss"]}, "unknown column 'jss'; did you mean 'js'"),
        ({"where": {"layr": 2}}, "unknown column 'layr'; did you mean 'layer'"),
        ({"where": {"intervention": 3}}, "the column holds"),
        ({"where": {"layer": [0, "x"]}}, "the column holds"),
    ],
)
def test_columns_and_values_that_are_not_there(folder, asked, says):
    with pytest.raises(kg.InputError, match=says):
        kg.open_run(folder, **asked)


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


@pytest.mark.parametrize("n_tokens", [1, 2])
def test_every_column_survives_the_disk(run, tmp_path, rows, n_tokens):
    """Several tokens and samples, a corruption without a partner, families of heads."""
    several = [*rows, kg.patch("resid_post", "subject", kg.corrupted_run(by=kg.swap()), name="s")]
    several += kg.per_head(kg.knockout(name="heads"), 2)
    options = {"rows": several, "n_tokens": n_tokens, "samples": 2}
    assert equal(run(tmp_path / "run", **options), run(**options))


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
    assert equal(run(unlinked(out, 1), prompts=given), run(prompts=given))
    assert not lacks & set(kg.runs.scan_run(out).schema.names)
    assert set(kg.open_run(out, columns=["relation"])["relation"]) == {f"of {i}" for i in TEXTS}
    for name in ("row", "kind", "source", "place"):
        assert set(kg.open_run(out, columns=[name])[name]) == set(run(prompts=given)[name])
    kg.runs.export(out, tmp_path / "a.csv")
    assert set(pd.read_csv(tmp_path / "a.csv")["subject"]) == {s for _, s in TEXTS.values()}
    assert not verify(out).mismatches
    kg.runs.compact(out)
    assert equal(kg.open_run(out), run(prompts=given))
