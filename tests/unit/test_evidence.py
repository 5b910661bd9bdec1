"""evidence: one command, ordinary runs, figures and a report; nothing is computed twice."""

import json

import numpy as np
import pytest
import torch
from shell import code_of
from transformers import LlamaConfig, LlamaForCausalLM

import knockgrid as kg
from knockgrid.engine.answers import outputs
from knockgrid.passes.prepared import prepare
from knockgrid.prompts.matching import is_answer
from knockgrid.reports import evidence as room
from knockgrid.runs.manifest import read_manifest
from knockgrid.runs.verification import verify
from knockgrid.table.parquet import read_table
from knockgrid.table.table import build, metadata_of

RELATIONS, PER = 7, 6
PLACES = "France Italy Brazil Paris Rome Tower city official language capital".split()


def facts_of(model):
    """Prompts whose answer is what the model says, and as many whose answer it does not say."""
    prompts = [
        kg.Prompt(f"{a} {PLACES[r]} is", spans={"subject": a}, answers=["x"], id=f"{r}-{a}")
        for r in range(RELATIONS)
        for a in PLACES
        if a != PLACES[r]
    ]
    forms = [(prompts, True), (prompts, False), (kg.prompts.in_chat(prompts, room.TEMPLATE), True)]
    said = [outputs(model, prepare(model, some, bos, 1)) for some, bos in forms]
    lines = []
    for number, prompt in enumerate(prompts):
        words = [one[prompt.id].split()[:1] for one in said]
        known = number % 3 > 0 and all(
            word and is_answer(one[prompt.id], word) for one, word in zip(said, words, strict=True)
        )
        line = {"id": prompt.id, "text": prompt.text, "relation": f"r{prompt.id[0]}"}
        partner = next(p for p in prompts if p.id[0] == prompt.id[0] and p is not prompt)
        answers = [word[0] for word in words] if known else ["zzz"]
        lines.append({**line, "subject": prompt.id[2:], "answers": answers, "swap": partner.id})
    return lines


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_tokenizer):
    """An evidence folder of a tiny model, and what was printed."""
    folder = tmp_path_factory.mktemp("evidence")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3}
    sizes |= {"vocab_size": len(tiny_tokenizer), "num_attention_heads": 4}
    torch.manual_seed(0)
    model = folder / "model"
    LlamaForCausalLM(LlamaConfig(**sizes, initializer_range=0.3)).save_pretrained(model)
    tiny_tokenizer.save_pretrained(model)
    lines = facts_of(kg.load(model))
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    arguments = ("--model", model, "--prompts", folder / "prompts.jsonl", "--limit", 20)
    folder_arguments = (*arguments, "--unknown", 12, "--out", folder / "out")
    assert code_of("evidence", *folder_arguments) == 0
    return folder, folder_arguments


def test_every_run_is_an_ordinary_one_that_holds(made):
    folder, _ = made
    runs = sorted(path.name for path in (folder / "out").iterdir() if path.is_dir())
    assert runs == ["figures", "main", "no_bos", "sources", "template"]  # no chat template
    for name in ("main", "no_bos", "sources", "template"):
        found = verify(folder / "out" / name, cells=6)
        assert found.ok, (name, found.mismatches)
    table = kg.open_run(folder / "out" / "main")
    assert set(table["group"].dropna()) == {"FA-high", "FA-low", "AH", "UH"}
    roles = [one["role"] for one in metadata_of(table)["interventions"]]
    assert (roles.count("treatment"), roles.count("contrast")) == (6, 10)
    assert len(roles) - 16 == roles.count("null") >= 5
    assert metadata_of(table)["noise_floor"]["js"]["overall"] > 0
    assert not kg.open_run(folder / "out" / "no_bos").attrs["knockgrid"]["prepend_bos"]
    assert read_manifest(folder / "out" / "template")["selection"]["unknown_kept"] == 0
    first = metadata_of(kg.open_run(folder / "out" / "template"))["prompts"][0]
    assert first["text"].startswith("It is a well-known fact: ")


def test_everything_is_drawn_and_said(made):
    folder, _ = made
    drawn = {path.stem for path in (folder / "out" / "figures").glob("*.png")}
    by_source = {
        f"layer_{kind}_{of}_js" for kind in ("heatmap", "curve") for of in ("noise", "swap")
    }
    others = {"contrast_curves_js", "scaled_curves_js", "claims_card", "reliance", "threshold"}
    assert drawn == by_source | others
    card = read_table(folder / "out" / "claims.parquet")
    assert {"plain", "no BOS", "template"} == set(card["form"])
    plain = card[(card["form"] == "plain") & (card["claim"] == "last: the step begins")]
    sources = ["noise(3.0)", "swap()", "noise(1.0)", "noise(5.0)", "mean_activation()", "zero()"]
    assert plain["corruption"].tolist() == sources
    words = (folder / "out" / "report.md").read_text("utf-8")
    for title in ("Prompts", "More than what?", "More than the nulls?", "survives", "Left out"):
        assert title in words
    assert "has no chat template" in words


def test_a_second_call_computes_nothing(made, monkeypatch):
    _, arguments = made

    def refuse(*_, **__):
        pytest.fail("a model was loaded")

    monkeypatch.setattr("knockgrid.runs.job.loaded", refuse)
    # the chat run never came about, so that it is tried again, and asks for the model
    monkeypatch.setattr(room, "plan", lambda base: dict(list(PLAN(base).items())[:4]))
    drawn = []
    monkeypatch.setattr(room, "draw", lambda tables, *_: drawn.append(tables) or iter(()))
    assert code_of("evidence", *arguments) == 0
    assert [list(tables) for tables in drawn] == [["main", "sources", "no_bos", "template"]]


PLAN = room.plan


def test_claims_are_about_the_prompts_that_the_model_knows(made):
    folder, _ = made
    table = kg.open_run(folder / "out" / "main")
    kept = room.known_of(table)
    assert set(kept["group"].dropna()) == {"FA-high", "FA-low"}
    assert kept["prompt"].nunique() == 20
    assert table["prompt"].nunique() == 32
    unlabelled = kg.open_run(folder / "out" / "sources")
    assert room.known_of(unlabelled)["prompt"].nunique() == 20


def test_labels_of_another_form_are_measured_there(made, tmp_path):
    folder, arguments = made
    settings = ("labels=true", "label_form='Well: {}'", "unknown=12")
    more = [word for one in settings for word in ("--set", one)]
    assert code_of("sweep", *arguments[:6], "--known", *more, "--out", tmp_path / "run") == 0
    frame = read_table(tmp_path / "run" / "labels.parquet")
    assert frame["measured_on"].str.startswith("Well: ").all()
    assert not frame["text"].str.startswith("Well: ").any()
    table = kg.open_run(tmp_path / "run")
    groups = {side["id"]: side["group"] for side in metadata_of(table)["prompts"]}
    assert groups == dict(zip(frame["prompt"], frame["label"], strict=True))
    path = tmp_path / "run" / "labels.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    assert any("labels.parquet is not" in line for line in verify(tmp_path / "run").mismatches)


def test_every_sweep_carries_a_floor_unless_told_not_to(made, tmp_path):
    _, arguments = made
    for name, more in (("with", ()), ("without", ("--no-noise-floor",))):
        assert code_of("sweep", *arguments[:6], "--out", tmp_path / name, *more) == 0
    assert metadata_of(kg.open_run(tmp_path / "with"))["noise_floor"]["js"]["overall"] > 0
    assert "noise_floor" not in metadata_of(kg.open_run(tmp_path / "without"))


CURVES = {"subject": [0.5, 0.4, 0.1], "subject | bos": [0.1, 0.2, 0.0], "last": [0.0, 0.2, 0.6]}


def table_of(groups=("FA", "UH"), **metadata):
    described = [
        {"name": name, "role": "contrast" if "|" in name else "treatment", "of": name.split(" ")[0]}
        for name in CURVES
    ]
    sides = [{"id": f"{g}{p}", "relation": f"r{p}"} for g in groups for p in range(7)]
    rows = [
        {"prompt": s["id"], "group": s["id"][:2], "intervention": name, "layer": i, "js": js}
        for n, s in enumerate(sides)
        for name, curve in CURVES.items()
        for i, js in enumerate(np.array(curve) * (1 + n / 20))
    ]
    return build(rows, {"unit": "nats", "interventions": described, "prompts": sides, **metadata})


def test_a_treatment_stands_beside_its_contrasts_in_every_group():
    figure = kg.figures.contrast_curves(table_of(), by="group", order=["UH", "FA"])
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["UH, n = 7", "FA, n = 7"]
    for ax, scale in zip(figure.axes, (1 + 10 / 20, 1 + 3 / 20), strict=True):
        assert [line.get_label() for line in ax.lines] == ["Subj.", "bos"]
        drawn = [line.get_ydata() for line in ax.lines]
        np.testing.assert_allclose(drawn[0], np.array(CURVES["subject"]) * scale)
        np.testing.assert_allclose(drawn[1], np.array(CURVES["subject | bos"]) * scale)
        assert len(ax.collections) == 1  # the band of the treatment


def test_a_visible_floor_is_a_line_and_an_invisible_one_is_not():
    for floor, lines in ((0.02, 3), (1e-9, 2)):
        figure = kg.figures.contrast_curves(table_of(noise_floor={"js": floor}))
        assert len(figure.axes[0].lines) == lines


def test_contrast_curves_refuse_what_they_cannot_draw():
    plain = table_of()
    plain.attrs["knockgrid"]["interventions"] = []
    for table, options, words in (
        (table_of(), {"by": "group", "order": ["AH"]}, "unknown group 'AH'"),
        (table_of(), {"by": "grp"}, "unknown column 'grp'"),
        (plain, {}, "the table has no contrasts"),
    ):
        with pytest.raises(kg.InputError, match=words):
            kg.figures.contrast_curves(table, **options)


def test_groups_of_ones_own_are_no_labels():
    table = table_of(groups=("sc", "FA"))
    assert room.known_of(table)["prompt"].nunique() == 14
    labelled = table_of(group_order=["FA-high", "FA-low", "AH", "UH"])
    for side in labelled.attrs["knockgrid"]["prompts"]:
        side["group"] = None if side["id"] == "FA0" else side["id"][:2]
    assert set(room.known_of(labelled)["prompt"]) == {f"FA{i}" for i in range(1, 7)}


def test_too_few_prompts_are_refused_before_anything_is_computed(made, tmp_path):
    _, arguments = made
    few = [*arguments[:4], "--limit", 10, "--out", tmp_path / "out"]
    assert code_of("evidence", *few) == 2
    assert not (tmp_path / "out").exists()
