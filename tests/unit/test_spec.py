"""Spec: one list of fields for Python, flags, study files and manifests; edits as plain data."""

import inspect
import json
from dataclasses import replace

import pytest
import torch
import yaml
from shell import run as shell

import knockgrid as kg
from knockgrid import edits, sources
from knockgrid.cli import app
from knockgrid.edits.data import as_data, digest_of, from_data
from knockgrid.runs.running import run
from knockgrid.runs.study import as_yaml, read_spec
from knockgrid.spec import FIELDS, OPTIONS, Spec, rows_as_data

LIMA = kg.Prompt("Lima is in", spans={"subject": "Lima"}, id="lima")
ROME = kg.Prompt("Rome is in", spans={"subject": "Rome"}, id="rome", swap=LIMA)
VECTOR = torch.linspace(-1, 1, 4)
SOURCES = {
    "corrupted run": kg.corrupted_run(),
    "swap": kg.corrupted_run(by=kg.swap()),
    "noise elsewhere": kg.corrupted_run(by=kg.noise(2.0, "vocabulary", pos=["bos", "rest"])),
    "zero": kg.zero(),
    "mean": kg.mean_activation(),
    "noise": kg.noise(1.0),
    "ulp": kg.sources.ulp(),
    "direction": kg.sources.random_direction(kg.zero()),
    "donor": kg.donor(LIMA),
    "donors": kg.donor({"lima": ROME, "rome": LIMA}),
    "fixed": kg.fixed(VECTOR),
    "fixed by layer": kg.fixed({0: VECTOR, 3: VECTOR + 1}),
}
PATCH = kg.patch("z", "last")
ROWS = {
    **{
        f"patch {name}": kg.patch("resid_post", "subject", source, window=3, alpha=0.5)
        for name, source in SOURCES.items()
    },
    "knockout": kg.knockout(),
    "knockout of heads": kg.knockout("all", ["rest", "bos"], "from", heads=[0, 2], name="k"),
    "edge patch": kg.edge_patch(source=kg.donor(ROME), window=1, label="E"),
    "flow": kg.information_flow(),
    "contrasts": kg.contrasts(),
    "nulls": kg.nulls(partners={"lima": ROME}),
    "paths": kg.edits.paths(),
    "heads": kg.per_head(kg.knockout(), 2),
    "positions": kg.per_position(PATCH, ["last", 0]),
    "alphas": kg.edits.per_alpha(PATCH, [0.5, 1.0]),
    "windows": kg.edits.per_window(kg.knockout(), [1, 5, "from"]),
    "own layers": kg.knockout(layers=kg.all_but([0, 2]), pairs=kg.pairs.within(3)),
    "inverse": kg.patch("z", "last", window=kg.all_but(3)),
    "listed layers": kg.edge_patch(layers=[0, 2]),
    "rules": [
        kg.knockout(pairs=rule, name=rule.label)
        for rule in (kg.pairs.not_self(), kg.pairs.to_earlier_spans(), kg.pairs.farther_than(2))
    ],
    "random edges": kg.knockout(pairs=kg.pairs.random_share(0.5, 3)),
    "joint": kg.joint([kg.knockout(layers="all"), kg.patch("z", "last")], name="j"),
    "donor's layer": kg.patch("resid_post", "last", kg.donor(ROME, layer=3, pos="subject_last")),
    "spans": kg.per_span(kg.knockout("last", "span"), ["s0", "s1"]),
    "module": replace(PATCH, module="attn. o", role="contrast", of="x"),
}


FLAT = [one for some in ROWS.values() for one in (some if isinstance(some, list) else [some])]


@pytest.mark.parametrize("name", ROWS)
def test_edits_come_back_from_their_data(name):
    for one in ROWS[name] if isinstance(ROWS[name], list) else [ROWS[name]]:
        for dump, load in ((json.dumps, json.loads), (yaml.safe_dump, yaml.safe_load)):
            back = load(dump(as_data(one)))
            made = from_data(back, known=[VECTOR, VECTOR + 1])
            assert digest_of(made) == digest_of(one), back
            assert (type(made), made.name, made.label) == (type(one), one.name, one.label)


def kinds_in(data):
    if isinstance(data, dict):
        yield from [data["kind"]] if isinstance(data.get("kind"), str) else []
        for value in data.values():
            yield from kinds_in(value)


def test_every_kind_of_the_drawers_is_covered():
    seen = {kind for one in FLAT for kind in kinds_in(as_data(one))}
    assert set(sources.__all__) <= seen
    families = {name for name in edits.__all__ if name.startswith("per_")} | set(FAMILIES)
    families.add("pairs")  # a room
    assert {*edits.__all__, *kg.pairs.__all__} - families <= seen


FAMILIES = ["information_flow", "contrasts", "nulls", "paths"]


@pytest.mark.parametrize("kind", FAMILIES)
def test_a_family_may_be_written_by_its_call(kind):
    made = from_data({"kind": kind})
    assert list(map(digest_of, made)) == list(map(digest_of, getattr(kg.edits, kind)()))
    heads = from_data({"kind": "per_head", "intervention": as_data(kg.knockout()), "heads": [1]})
    assert digest_of(heads) == digest_of(kg.per_head(kg.knockout(), [1]))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"kind": "knockot"}, "did you mean 'knockout'"),
        ({"kind": "patch", "act_name": "z", "poss": "last"}, "pos"),
        ({"kind": "patch", "act_name": "z", "pos": "last", "rol": "x"}, "did you mean 'role'"),
        ({"kind": "patch", "act_name": "z", "pos": "last", "source": "zer"}, "mean 'zero'"),
        (as_data(ROWS["patch fixed"]), r"shape \[4\].*known="),
        ({"kind": "Mine", "class": "here:Mine", "digest": "0"}, r"here:Mine.*known=\[Mine\]"),
    ],
)
def test_data_that_describe_nothing_are_refused(data, says):
    with pytest.raises(kg.InputError, match=says):
        from_data(data)


def test_everything_inside_an_edit_enters_its_digest():
    digests = [digest_of(replace(one, name="same", label="same")) for one in FLAT]
    twins = {digest for digest in digests if digests.count(digest) > 1}
    # rows that differ in their name only: noise at layer windows, and members that repeat a kind
    assert len(twins) <= 4, [one for one, d in zip(FLAT, digests, strict=True) if d in twins]
    assert digest_of(lambda x: 1) != digest_of(lambda x: 2)
    for dtype in (torch.float32, torch.bfloat16, torch.bool):
        one = torch.tensor([[0, 1], [0, 1]]).to(dtype)
        assert digest_of(one) == digest_of(one.clone()) != digest_of(one.t())


def test_python_and_the_shell_have_the_same_fields():
    takes = inspect.signature(kg.sweep).parameters
    for name in OPTIONS:
        assert takes[name].default == FIELDS[name].default
        assert f"{name}: " in kg.sweep.__doc__
    (command,) = (one for one in app.COMMANDS if one.__name__ == "sweep")
    flags = set(inspect.signature(command).parameters)
    assert {name for name, one in FIELDS.items() if one.metadata["flag"]} <= flags
    assert len(flags - {"study"}) <= 30
    with pytest.raises(kg.InputError, match="unknown option 'layer'; did you mean 'layers'"):
        kg.sweep("demo", LIMA, kg.knockout(), layer=[0])


def test_a_study_file_says_what_flags_say(tmp_path, capsys):
    flags = ["--source", "noise:1", "--source", "swap", "--window", "1", "--layers", "0,2-4"]
    flags += ["--known", "--limit", "9", "--set", "samples=2", "--no-noise-floor", "--seed", "4"]
    code, printed, _ = shell(capsys, "sweep", *flags, "--print-spec")
    assert code == 0
    path = tmp_path / "study.yaml"
    path.write_text(printed)
    spec = read_spec(path)
    assert (spec.layers, spec.samples, spec.known, spec.seed) == ((0, 2, 3, 4), 2, True, 4)
    assert spec.interventions == rows_as_data(sources=["noise:1", "swap"], windows=[1])
    assert read_spec(path, {"seed": 5}).seed == 5
    path.write_text(as_yaml(spec))
    assert read_spec(path).digest() == spec.digest() != Spec().digest()


def test_a_study_file_gives_what_python_gives(tiny_llama, prompts, tmp_path):
    rows = [*kg.per_head(kg.knockout(window=1), 2), kg.patch("mlp_out", "last", kg.zero())]
    options = {"layers": [0, 2], "noise_floor": False}
    table = kg.sweep(tiny_llama, prompts, rows, out=tmp_path / "p", progress=False, **options)
    study = tmp_path / "study.yaml"
    study.write_text(as_yaml(Spec(interventions=rows, **options)))
    lines = [{"id": p.id, "text": p.text, "spans": p.spans, "answers": p.answers} for p in prompts]
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    spec = read_spec(study, {"prompts": str(file)})
    other = run(spec, tmp_path / "y", load=lambda: tiny_llama, progress=False)
    columns = ["prompt", "intervention", "layer", "head", "js", "kl", "tv", "logp_clean"]
    assert other[columns].equals(table[columns])


def test_a_run_is_set_up_once(tiny_llama, prompts, tmp_path, monkeypatch):
    from knockgrid.runs import job

    calls, set_up = [], job.set_up
    monkeypatch.setattr(job, "set_up", lambda *given: calls.append(given) or set_up(*given))
    options = {"layers": [0], "noise_floor": False, "progress": False, "out": tmp_path / "r"}
    kg.sweep(tiny_llama, prompts, kg.knockout(), **options)
    assert len(calls) == 1
    (tmp_path / "r" / "shards" / "00000.parquet").unlink()
    kg.sweep(tiny_llama, prompts, kg.knockout(), **options)
    assert len(calls) == 2
