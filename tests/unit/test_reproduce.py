"""Studies: one file each, tables on disk, figures drawn from them, and what is refused."""

import json
import runpy
import shutil
import sys

import pandas as pd
import pytest
from shell import run

from knockgrid import InputError
from knockgrid.cli import reproduce as studies_of
from knockgrid.cli.reproduce import (
    RELATIONS,
    chosen,
    evenly,
    read_study,
    reproduce,
    some_layers,
    studies,
    swept,
)
from knockgrid.engine.answers import Known
from knockgrid.runs.running import run as compute
from knockgrid.runs.study import read_spec

SETTINGS = {"model": "demo", "quick": True}
NAMES = {
    *("information_flow", "sources", "generated_tokens", "error_detection", "modules"),
    *("heads", "paths", "token_positions", "labels", "pathways", "layer_pairs", "thought_anchors"),
    *("induction", "ioi", "removed_sentences", "trajectories"),
    *("edges", "reasoning", "head_sets", "all_for_one"),
}
LONGEST = 55
ONE = """
import knockgrid as kg
from knockgrid.table.table import build

def make(model, quick):
    model.append(quick)
    row = {"prompt": "rome", "intervention": "last", "layer": 0, "js": 0.3}
    return {"one": build([row], {"unit": "nats"})}

def draw(tables):
    return {"one_js": kg.layer_heatmap(tables["one"])}

# study(__file__)
"""


@pytest.fixture
def one(tmp_path):
    """A study that says on its model, a list, whether it was made quickly."""
    (tmp_path / "one.py").write_text(ONE)
    return read_study(tmp_path / "one.py")


def test_figures_are_drawn_again_without_the_model(one, tmp_path):
    made = []
    first = list(reproduce(one, lambda: made, SETTINGS, tmp_path / "out"))
    names = ["one.parquet", "one_js.pdf", "one_js.svg", "one_js.png"]
    assert [path.name for path in first] == names
    (tmp_path / "out" / "one_js.svg").unlink()
    assert list(reproduce(one, pytest.fail, SETTINGS, tmp_path / "out")) == first
    assert all(path.is_file() for path in first)
    assert made == [True]


def test_other_settings_are_refused_and_an_interrupted_study_begins_again(one, tmp_path):
    made, settings = [], tmp_path / "out" / "study.json"
    list(reproduce(one, lambda: made, SETTINGS, tmp_path / "out"))
    with pytest.raises(InputError, match=r"\(quick\); choose another --out"):
        list(reproduce(one, list, {**SETTINGS, "quick": False}, tmp_path / "out"))
    assert json.loads(settings.read_text()) == SETTINGS
    settings.unlink()  # it is written last
    list(reproduce(one, lambda: made, SETTINGS, tmp_path / "out"))
    assert len(made) == 2


def test_names_and_scripts(tmp_path):
    assert set(studies()) == NAMES
    assert list(chosen(["paths", "paths", "heads"])) == ["paths", "heads"]
    assert chosen(["heads", "all"]) == studies()
    own = tmp_path / "heads.py"
    own.write_text(ONE)
    (tmp_path / "benchmark.py").write_text("print('no study')")
    assert studies(tmp_path) == chosen([str(own)]) == {"heads": own}
    for names, says in (
        (["headz"], r"'headz'.*'heads'.*information_flow.*all"),
        (["heads", str(own)], "two studies are called heads"),
        ([str(tmp_path / "nowhere.py")], "nowhere.py is not there"),
    ):
        with pytest.raises(InputError, match=says):
            chosen(names)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_study_is_short_and_complete(name):
    script = studies()[name]
    study = read_study(script)
    assert study.__doc__.split("\n")[0].endswith(".")
    assert f"python experiments/{name}.py" in study.__doc__
    text = script.read_text("utf-8")
    assert len(text.splitlines()) <= LONGEST
    assert "argparse" not in text


def test_what_is_no_study_is_refused(tmp_path):
    (tmp_path / "half.py").write_text("def make(model, quick): ...")
    with pytest.raises(InputError, match=r"half\.py has no draw\(\)"):
        read_study(tmp_path / "half.py")


@pytest.fixture
def knows_all(monkeypatch, tiny_llama):
    """A tiny model in place of any other, which is held to know every fact."""
    everything = lambda model, some, **options: (Known(tuple(some), ()), [])  # noqa: E731
    monkeypatch.setattr("knockgrid.runs.choose.sorted_out", everything)
    monkeypatch.setattr("knockgrid.runs.job.load_model", lambda config: tiny_llama)


def test_a_new_study_is_one_file(knows_all, capsys, tmp_path):
    new = shutil.copy(studies()["heads"], tmp_path / "mine.py")
    assert set(studies(tmp_path)) == {"mine"}
    code, printed, said = run(capsys, "reproduce", new, "--quick", "--out", tmp_path / "out")
    assert code == 0, said
    written = {path.name for path in (tmp_path / "out").iterdir()}
    tables = [one.removesuffix(".parquet") for one in written if one.endswith(".parquet")]
    kinds = ("pdf", "png", "svg")
    pictures = {f"head_heatmap_{name}_js.{kind}" for name in tables for kind in kinds}
    assert written == pictures | {f"{name}.parquet" for name in tables} | {"study.json"}
    assert printed.count("\n") == len(written) - 1


FILES = ("information_flow", "sources", "generated_tokens", "error_detection", "modules")


@pytest.mark.parametrize("name", FILES)
def test_a_study_and_its_file_give_the_same_bits(knows_all, tiny_llama, tmp_path, name):
    """`knockgrid sweep NAME.yaml` is what `knockgrid reproduce NAME` sweeps."""
    file = studies()[name].with_suffix(".yaml")
    less: dict = {"limit": 3, "layers": (0, 2)}
    if name == "error_detection":  # the tiny model's context is too short for the examples
        less["exact_answer"] = "relation"
    table = swept(file, tiny_llama, **less)
    spec = read_spec(file, {**less, "noise_floor": False})
    kept = compute(spec, tmp_path / "run", load=lambda: tiny_llama, progress=False)
    pd.testing.assert_frame_equal(kept[table.columns], table, check_exact=True)
    assert spec.relations[: len(RELATIONS)] == RELATIONS


def test_a_script_runs_on_its_own(monkeypatch):
    called = []
    monkeypatch.setattr("knockgrid.cli.app.main", lambda: called.extend(sys.argv))
    script = str(studies()["paths"])
    monkeypatch.setattr(sys, "argv", [script, "--quick"])
    runpy.run_path(script, run_name="__main__")
    assert called == [script, "reproduce", script, "--quick"]


def test_the_installed_studies_come_before_those_of_the_tree(monkeypatch, tmp_path):
    package = tmp_path / "site-packages" / "knockgrid"
    monkeypatch.setattr(studies_of, "__file__", str(package / "cli" / "reproduce.py"))
    assert studies_of.folder() == tmp_path / "experiments"
    (package / "experiments").mkdir(parents=True)
    assert studies_of.folder() == package / "experiments"


def test_relations_take_turns(prompts):
    facts = [prompts[0].replace(id=i, relation=i[0]) for i in "a0 b0 b1 b2 b3 c0 c1".split()]
    assert [one.id for one in evenly(facts, 5)] == ["a0", "b0", "b1", "c0", "c1"]
    assert len(evenly(facts, 99)) == 7


def test_some_layers(tiny_llama):
    n = tiny_llama.cfg.n_layers
    assert some_layers(tiny_llama, 1) == list(range(n))
    assert some_layers(tiny_llama, 99) == sorted({0, n - 1})
