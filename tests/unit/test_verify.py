"""verify: a fresh run holds; every kind of change is found alone and named by its place."""

import json
import shutil
from dataclasses import dataclass

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from shell import code_of, saved, sweep_of

import knockgrid as kg
from knockgrid import InputError, open_run
from knockgrid.host import bridge
from knockgrid.runs import verification as room
from knockgrid.runs.digests import file_digest, row_digests
from knockgrid.runs.finish import read_sides, write_sides
from knockgrid.runs.manifest import run_digest
from knockgrid.runs.shard import Shard, write_shard
from knockgrid.runs.store import compact
from knockgrid.runs.verification import near, verify
from knockgrid.sources.source import Source
from knockgrid.table.measures import MEASURES


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_tokenizer):
    """A saved tiny model, and a run of it with every kind of source and a sample of noise."""
    folder = saved(tmp_path_factory.mktemp("verify"), tiny_tokenizer, initializer_range=0.3)
    sources = [word for name in ("noise", "swap", "mean_activation") for word in ("--source", name)]
    given = sweep_of(folder, *sources, "--set", "samples=2", "--out", folder / "run")
    assert code_of(*given) == 0
    free = ("--n-tokens", 3, "--mode", "free_run", "--out", folder / "free")
    assert code_of(*sweep_of(folder, *free)) == 0
    return folder


@pytest.fixture
def run(made, tmp_path):
    """A copy of the run, to be damaged."""
    return shutil.copytree(made / "run", tmp_path / "run")


SHARD = "shards/00000.parquet"


def added(metric, rows="layer >= 0"):
    """A change of one number in some rows."""

    def change(frame):
        frame.loc[frame.query(rows).index, metric] += 1e-3

    return change


def rewritten(folder, change):
    """The shard with some numbers changed, as someone could who knows the file format."""
    path = folder / SHARD
    with pq.ParquetFile(path) as file:
        arrow = file.read()
    frame = arrow.to_pandas()
    change(frame)
    again = pa.Table.from_pandas(frame, preserve_index=False).cast(arrow.schema)
    pq.write_table(again.replace_schema_metadata(arrow.schema.metadata), path)


def restamped(folder, **changes):
    """The shard with other words on itself."""
    with pq.ParquetFile(folder / SHARD) as file:
        table = file.read()
    about = json.loads(table.schema.metadata[b"knockgrid"])
    write_shard(Shard(table, {**about, **changes}), folder / SHARD)


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())


def stamped_anew(folder, **changes):
    """A shard and a manifest that vouch for what was changed, as a careful forger would write."""
    manifest = {**manifest_of(folder), **changes}
    manifest["run_digest"] = run_digest(manifest)
    restamped(folder, run=manifest["run_digest"])
    for name in manifest["digests"]["files"]:
        manifest["digests"]["files"][name] = file_digest(folder / name)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def edited(folder, **changes):
    (folder / "manifest.json").write_text(json.dumps({**manifest_of(folder), **changes}))


def holds(folder, **options):
    """What was checked of a run, in which nothing was found wrong."""
    found = verify(folder, **options)
    assert found.ok, found.mismatches
    return found


def wrong(folder, *says, **options):
    """What was found wrong in a run; each of some words must be in a line of it."""
    found = verify(folder, **{"cells": 1, **options}).mismatches
    for words in says:
        assert any(words in line for line in found), found
    return found


def test_a_fresh_run_holds(run, capsys):
    assert code_of("verify", run, "--cells", 40) == 0
    said = capsys.readouterr().out
    assert "rows of 2 prompts under 14 digests" in said
    assert "40 cells against the reference executor" in said
    assert "MISMATCH" not in said
    compact(run)
    assert "rows of 2 prompts under 14 digests" in holds(run, cells=20).checked


def test_a_fresh_free_run_holds(made):
    assert "18 cells against the reference executor" in holds(made / "free", cells=18).checked


@pytest.mark.parametrize("metric", ["js", "kl", "logp_answer"])
def test_one_changed_number_is_named_by_its_place(run, capsys, metric):
    at = "prompt == 'paris' and intervention == 'subject swap' and layer == 1"
    rewritten(run, added(metric, at))
    assert code_of("verify", run, "--cells", 1) == 1
    said = capsys.readouterr().out
    assert f"MISMATCH: {SHARD} is not the file that was written" in said
    assert "the rows of prompt 'paris', intervention 'subject swap' are not those" in said
    assert "'rome'" not in said.replace("prompt 'rome', ", "")
    place = "prompt 'paris', intervention 'subject swap', layer 1"
    (named,) = (line for line in said.splitlines() if place in line)
    assert f": {metric} is" in named


def test_numbers_that_were_stamped_anew_are_found_by_their_cells(run):
    rewritten(run, added("js"))
    stamped_anew(run)
    assert len(wrong(run, ": js is", cells=3)) == 3


def test_many_changed_rows_are_counted_and_not_all_listed(run, monkeypatch):
    monkeypatch.setattr(room, "NAMED", 3)
    rewritten(run, added("kl"))
    found = wrong(run, "and those of 11 more prompts and interventions")
    assert len([line for line in found if "are not those" in line]) == 3


def test_another_model_is_named_and_no_cell_is_compared(run, made):
    model = kg.load(made / "model")
    weight = next(p for n, p in model.original_model.named_parameters() if "mlp" in n)
    with torch.no_grad():
        weight.mul_(1.0001)
    found = verify(run, model=model)
    (mismatch,) = found.mismatches
    assert "another one: weights_digest" in mismatch
    assert not [line for line in found.checked if "cells against" in line]
    half = kg.load(made / "model", dtype=torch.bfloat16)
    wrong(run, "dtype is bfloat16, in the run float32", model=half)


def test_a_manifest_that_does_not_fit_its_table(run):
    edited(run, seed=5, rows=7)
    wrong(run, "the manifest is not what the shards were computed under", "rows, the manifest 7")


def test_settings_that_were_changed_afterwards(run):
    manifest = manifest_of(run)
    rows = manifest["interventions"]
    row = next(row for row in rows if row["name"] == "subject noise")
    row["data"]["source"] = {"kind": "corrupted_run", "by": {"kind": "noise", "k": 2.0}}
    edited(run, config={**manifest["config"], "samples": 7}, interventions=rows)
    wrong(run, "do not have their stamped digest", "'subject noise'", cells=30)


def test_sigma_is_computed_anew(run):
    stamped_anew(run, sigma={"subject": manifest_of(run)["sigma"]["subject"] * 1.01})
    assert len(wrong(run, "sigma over 'subject'")) == 1


def test_cells_that_cannot_be_computed_anew_are_a_mismatch(run):
    sides = read_sides(run / "prompts.parquet")
    write_sides([{**side, "swap": None} for side in sides], run / "prompts.parquet")
    stamped_anew(run)
    found = wrong(run, cells=60)
    assert len(found) == 2 * 2 * 3  # prompts, rows with a swap, layers
    assert all("computed anew there is none" in line for line in found)


def test_a_missing_and_a_damaged_shard(run):
    path = run / SHARD
    path.write_bytes(path.read_bytes()[:200])
    wrong(run, "cannot be read")
    path.unlink()
    wrong(run, f"{SHARD} is missing")


def test_a_shard_that_nobody_has_written(run):
    shutil.copy(run / SHARD, run / "shards" / "00001.parquet")
    found = wrong(run, "shards/00001.parquet is a file that the run has not written")
    assert len(found) == 1  # the table is read from what was planned


def test_rows_of_another_shard(run):
    """Whole in itself, and in the wrong place."""
    restamped(run, number=7)
    wrong(run, "it is shard 7 under another name")


@dataclass(frozen=True)
class Halved(Source):
    """A source of the user's own."""

    share: float = 0.5

    @property
    def label(self):
        return f"halved({self.share})"

    def value(self, where):
        return where.base * self.share


def test_a_run_from_python_is_recomputed(tiny_llama, tmp_path):
    prompt = kg.Prompt("Rome is in", spans={"subject": "Rome"}, id="rome")
    vector = torch.linspace(-1, 1, 32, dtype=torch.float64)
    rows = [
        kg.knockout(window=1),
        *kg.per_head(kg.patch("z", "last", kg.zero()), 2),
        kg.patch("mlp_out", "last", kg.fixed(vector)),
        kg.patch("mlp_out", "subject", Halved(0.25)),
    ]
    kg.sweep(tiny_llama, prompt, rows, out=tmp_path / "run", progress=False)
    assert ["verify(model=)" in note for note in holds(tmp_path / "run").notes] == [True]
    for known, lacks in (((), "fixed"), ((vector,), "Halved")):
        with pytest.raises(InputError, match=f"took part.*known=.*|{lacks}"):
            verify(tmp_path / "run", model=tiny_llama, known=known)
    whole = {"model": tiny_llama, "known": [vector, Halved], "cells": 15}
    assert "15 cells against the reference executor" in holds(tmp_path / "run", **whole).checked
    own = manifest_of(tmp_path / "run")["config"]["interventions"][-1]["source"]
    assert (own["kind"], own["share"]) == ("Halved", 0.25)
    edited(tmp_path / "run", seed=3)
    assert not verify(tmp_path / "run", **whole).ok


def test_a_model_that_load_made_is_loaded_again(tiny_llama, tmp_path, monkeypatch):
    prompt = kg.Prompt("Rome is in", spans={"subject": "Rome"}, id="rome")
    named = {"model": "somewhere/tiny", "dtype": "float64", "revision": None}
    monkeypatch.setitem(bridge._LOADED_FROM, tiny_llama, named)
    kg.sweep(tiny_llama, prompt, kg.knockout(), out=tmp_path / "run", progress=False)
    asked = []
    monkeypatch.setattr(room, "load_model", lambda spec: asked.append(spec) or tiny_llama)
    holds(tmp_path / "run", cells=2)
    assert (asked[0].model, asked[0].dtype) == ("somewhere/tiny", "float64")


def test_other_versions_are_a_note(run):
    stamped_anew(run, versions={**manifest_of(run)["versions"], "torch": "0.1"})
    found = holds(run, cells=1)
    assert any(line.startswith("torch was 0.1 and is") for line in found.notes)


def test_json_for_scripts(run, capsys):
    edited(run, seed=5)
    assert code_of("verify", run, "--cells", 1, "--json") == 1
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] is False
    assert said["mismatches"] == ["the manifest is not what the shards were computed under"]


def test_refusals(run, tmp_path):
    with pytest.raises(InputError, match="cells is 0"):
        verify(run, cells=0)
    with pytest.raises(InputError, match="holds no run"):
        verify(tmp_path)
    edited(run, finished=None)
    with pytest.raises(InputError, match="is not finished"):
        verify(run)


def test_digests_tell_order_names_and_missing_values_apart():
    values = {"js": [0.1, float("nan")], "text": ["x", None]}
    table = pd.DataFrame({"prompt": ["a", "a"], "intervention": "last", **values})
    same = row_digests(table)
    assert same == row_digests(table.set_index(pd.Index([7, 8])))
    assert same == row_digests(table.astype({"text": "string"}))
    for other in (
        table.iloc[::-1],
        table.rename(columns={"js": "kl"}),
        table.fillna({"js": 0.0}),
        table.fillna({"text": ""}),
        table.assign(text=["x", "None"]),
    ):
        assert row_digests(other) != same


@pytest.mark.parametrize(
    ("name", "stored", "now", "half", "same"),
    [
        ("js", 0.5, 0.50004, False, True),
        ("js", 0.5, 0.5001, False, False),
        ("js", 0.0, 6e-6, False, False),
        ("js", 0.5, 0.5001, True, True),
        ("kl", 3.0, 3.0003, False, True),
        ("kl", 3.0, 3.001, False, False),
        ("rank_answer", 10.0, 11.0, False, True),
        ("rank_answer", 10.0, 12.0, False, False),
        ("kl", float("inf"), float("inf"), False, True),
        ("kl", float("inf"), 3.0, False, False),
        ("logp_answer", float("nan"), float("nan"), False, True),
        ("logp_answer", float("nan"), 0.0, False, False),
        ("logit_diff", 0.0, 9e-4, False, True),
        ("logit_diff", 0.0, 2e-3, False, False),
        ("recovered", 0.5, 0.509, False, True),
        ("recovered", 0.5, 0.52, False, False),
        ("p_change", -1.0, -1.09, False, True),
        ("p_change", -1.0, -1.2, False, False),
    ],
)
def test_near(name, stored, now, half, same):
    assert near(MEASURES[name], stored, now, half) is same


def test_damaged_folders_are_named(run, tmp_path):
    manifest = manifest_of(run)
    edited(run, config={**manifest["config"], "limit": -1})
    with pytest.raises(InputError, match="settings in the manifest of .* cannot be read"):
        verify(run)
    edited(run, config=manifest["config"])
    (run / SHARD).unlink()
    with pytest.raises(InputError, match="of which no shard is finished"):
        open_run(run)
    (run / "manifest.json").write_text("[]")
    with pytest.raises(InputError, match="holds no settings"):
        open_run(run)
