"""The command line, as a user runs it: on a tiny model saved in a folder."""

import json

import pytest
from shell import LINES, run, saved, sweep

from knockgrid import InputError, open_run
from knockgrid.runs.manifest import read_manifest
from knockgrid.runs.study import read_spec
from knockgrid.spec import Spec


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_tokenizer):
    return saved(tmp_path_factory.mktemp("cli"), tiny_tokenizer)


def test_a_sweep_writes_table_manifest_and_figures(capsys, folder, tmp_path, monkeypatch):
    """And one of them is drawn again without the model."""
    out = tmp_path / "run"
    code, printed, _ = sweep(capsys, folder, out)
    assert code == 0
    table, manifest = open_run(out), read_manifest(out)
    assert len(table) == manifest["rows"] == 2 * 3 * 3
    assert table["js"].max() > 0
    assert manifest["config"]["layers"] == "all"
    assert manifest["receipt"]["executor"] == "staircase"
    assert {"weights_digest", "dtype"} <= set(manifest["model"])
    written = {path.name for path in (out / "figures").iterdir()}
    assert {f"layer_heatmap_js.{suffix}" for suffix in ("svg", "pdf", "png")} <= written
    assert "manifest.json" in printed

    monkeypatch.setattr("knockgrid.host.bridge.load", lambda *_, **__: pytest.fail("loaded"))
    code, printed, _ = run(capsys, "figure", out, "--kind", "layer_curve", "--metric", "kl")
    assert code == 0
    assert (out / "figures" / "layer_curve_kl.pdf").exists()
    assert "layer_curve_kl.svg" in printed


def test_several_tokens_are_drawn_over_layer_and_token(capsys, folder, tmp_path):
    more = ("--n-tokens", 2, "--mode", "free_run")
    code, _, said = sweep(capsys, folder, tmp_path / "run", *more)
    assert code == 0, said
    drawn = sorted(path.name for path in (tmp_path / "run" / "figures").glob("*.png"))
    names = ("attention", "last", "subject")
    assert drawn == [f"token_heatmap_{name}_kl.png" for name in names]
    assert open_run(tmp_path / "run").attrs["knockgrid"]["mode"] == "free_run"


def test_a_study_is_reproduced_by_name(capsys, tmp_path):
    code, _, said = run(capsys, "reproduce", "f7", "--out", tmp_path)
    assert (code, list(tmp_path.iterdir())) == (2, [])
    assert said.startswith("knockgrid: unknown study 'f7'")


def test_sources_side_by_side(capsys, folder, tmp_path):
    more = ("--source", "noise", "--source", "zero", "--window", 1)
    assert sweep(capsys, folder, tmp_path / "run", *more)[0] == 0
    names = set(open_run(tmp_path / "run")["intervention"])
    assert names == {"subject noise", "subject zero", "attention", "last noise", "last zero"}


def test_a_dry_run_counts_and_writes_nothing(capsys, folder, tmp_path):
    code, printed, _ = sweep(capsys, folder, tmp_path / "run", "--dry-run", "--layers", "0,2")
    assert code == 0
    assert "2 prompts, 12 cells, about" in printed
    assert not (tmp_path / "run").exists()


def test_flags_override_a_settings_file(tmp_path):
    (tmp_path / "a.yaml").write_text("layers: [0, 1]\nseed: 4\n")
    spec = read_spec(tmp_path / "a.yaml", {"seed": 7, "unit": None})
    assert (spec.layers, spec.seed, spec.unit) == ((0, 1), 7, "nats")
    assert Spec(seed=7).digest() != Spec(seed=8).digest()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("laiers: [0]", "unknown setting 'laiers'; did you mean 'layers'"),
        ("seed: many", "setting 'seed' is 'many'"),
        ("- a", "holds no settings"),
        ("a: [", "is not YAML"),
    ],
)
def test_a_bad_settings_file_is_refused(tmp_path, text, says):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=says):
        read_spec(tmp_path / "a.yaml", {})


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--layers", "7"), "layer 7 is out of range: the model has layers 0 to 2"),
        (("--layers", "1-x"), "write all, or numbers and ranges"),
        (("--source", "swapp"), "did you mean 'swap'"),
        (("--set", "unit=nat"), "did you mean 'nats'"),
        (("--row", "subjekt"), "did you mean 'subject'"),
        (("--window", "0"), "window is 0"),
        (("--set", "executor=stair"), "did you mean 'staircase'"),
        (("--dtype", "float8"), "unknown dtype 'float8'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(capsys, folder, tmp_path, more, says):
    code, printed, complained = sweep(capsys, folder, tmp_path / "run", *more)
    assert code == 2
    last = complained.strip().splitlines()[-1]
    assert last.startswith("knockgrid: ")
    assert says in last
    assert "Traceback" not in complained
    assert printed == ""
    assert not list(tmp_path.glob("run/*"))


def test_another_run_is_not_overwritten(capsys, folder, tmp_path):
    sweep(capsys, folder, tmp_path / "run", "--layers", "0")
    shard = tmp_path / "run" / "shards" / "00000.parquet"
    before = shard.read_bytes()
    code, _, complained = sweep(capsys, folder, tmp_path / "run", "--layers", "1")
    assert code == 2
    assert "holds a run with other settings (layers)" in complained
    assert shard.read_bytes() == before


def test_check_tries_every_kind(capsys, folder):
    code, printed, _ = run(capsys, "check", folder / "model")
    assert code == 0
    assert all(kind in printed for kind in ("patch resid_post", "knockout", "edge_patch"))
    assert "refused" not in printed


def test_check_fails_where_the_executor_is_slow(capsys, folder, monkeypatch):
    """Simulated: a host whose models take no cache under any name that is known."""
    monkeypatch.setattr("knockgrid.host.cache.NAMES", ())
    code, printed, _ = run(capsys, "check", folder / "model")
    assert code == 1
    assert "failed  the sweep runs on the reference executor" in printed
    printed = " ".join(printed.split())  # however it is wrapped
    assert "models of this kind have a cache, but transformers" in printed
    assert 'pip install "transformers==' in printed


def test_facts_are_listed_and_printed(capsys):
    code, printed, _ = run(capsys, "facts", "--relation", "country_language", "--jsonl")
    assert code == 0
    rows = [json.loads(line) for line in printed.splitlines()]
    assert {row["relation"] for row in rows} == {"country_language"}
    assert all(row["text"][slice(*row["spans"]["subject"])] for row in rows)


def test_a_prompt_file_that_has_changed_is_refused(capsys, folder, tmp_path):
    """The plan would go on with the old prompts, and say nothing of the new ones."""
    prompts, more = tmp_path / "prompts.jsonl", ("--layers", "0", "--prompts")
    lines = [json.dumps({"text": f"{city} is in", "subject": city}) for city in ("Rome", "Oslo")]
    prompts.write_text(lines[0])
    assert sweep(capsys, folder, tmp_path / "run", *more, prompts)[0] == 0
    prompts.write_text("\n".join(lines))
    code, _, complained = sweep(capsys, folder, tmp_path / "run", *more, prompts)
    assert code == 2
    assert "was begun with other prompts (the file has another sha256)" in complained
    assert len(open_run(tmp_path / "run")["prompt"].unique()) == 1


def test_prompts_that_took_no_part_in_a_row_are_told(capsys, folder, tmp_path):
    """A swap needs a partner of equal length; without one a row would be missing without a word."""
    lines = [{**LINES[0], "swap": "paris"}, {**LINES[1], "swap": "rome"}]
    long = "Bosnia and Herzegovina"
    other = {"id": "x", "text": f"The capital of {long} is", "subject": long, "swap": "rome"}
    paths = {"some": [*lines, other], "none": [{**lines[0], "swap": "x"}, other]}
    said, more = {}, ("--source", "swap", "--no-noise-floor", "--prompts")
    for name, of in paths.items():
        prompts = tmp_path / f"{name}.jsonl"
        prompts.write_text("\n".join(map(json.dumps, of)))
        code, _, said[name] = sweep(capsys, folder, tmp_path / name, *more, prompts)
        assert code == 0
    assert "knockgrid: rows 'subject', 'last': 1 of 3 prompts took no part (" in said["some"]
    assert "rows 'subject', 'last' skipped: no usable prompt among 2 (" in said["none"]
    assert "'attention'" not in said["none"]
