"""Exact answers of wrong outputs: each rule alone, against the tokenizer's own offsets."""

import json
import re
from dataclasses import replace

import pytest
import torch

import knockgrid as kg
from knockgrid.engine import exact_answers as exact
from knockgrid.engine.record import outlines
from knockgrid.engine.setup import settings_of
from knockgrid.passes.prepared import prepare
from knockgrid.reports.methods import methods
from knockgrid.runs.manifest import read_manifest
from knockgrid.runs.study import read_spec
from knockgrid.runs.verification import verify
from knockgrid.spec import Spec

ROWS = kg.per_position(kg.patch("resid_post", "last", kg.zero()), ["last_q", "exact_answer_last"])
CAPITALS = {"France": "Paris", "Bahrain": "Manama", "Qatar": "Doha", "Ecuador": "Quito"}
"""The demo model says Paris, Doha, the Al-Qarqul and Bogota, the last two of no capital here."""


@pytest.fixture(scope="module")
def capitals():
    return [
        kg.Prompt(f"The capital of {one} is", answers=[city], relation="capital", id=one)
        for one, city in CAPITALS.items()
    ]


@pytest.fixture(scope="module")
def table(demo_model, capitals):
    """The table of a sweep over the capitals; any prompts and options."""

    def run(prompts=capitals, model=demo_model, **options):
        options = {"layers": [29], "n_tokens": 9, "noise_floor": False, **options}
        return kg.sweep(model, prompts, ROWS, progress=False, **options)

    return run


def whose(table):
    """By prompt, whose exact answer was found and what it is."""
    sides = table.attrs["knockgrid"]["prompts"]
    return {side["id"]: (side["exact_from"], side["exact_answer"]) for side in sides}


def upper(prompt, text):
    """The first word that begins with a capital letter."""
    found = re.search(r"[A-Z]\w+", text)
    return found and found.group()


def test_the_default_is_the_given_answer_and_says_so(table):
    made = table()
    assert whose(made) == dict.fromkeys(CAPITALS, (None, None)) | {"France": ("given", "Paris")}
    at = made[made.position == "exact_answer_last"].set_index("prompt")
    assert at.exact_from.dropna().to_dict() == {"France": "given"}
    assert at.status["Qatar"] == "NA: the answer is not in the output"
    assert made[made.position == "last_q"].exact_from.isna().all()
    said = made.attrs["knockgrid"]
    assert (said["exact_answer"], said["exact_from"], said["exact_empty"]) == (
        "given",
        "given 1",
        3,
    )


def test_another_answer_of_the_relation_is_found(table, capitals):
    made = table(exact_answer="relation")
    found = whose(made)
    assert found["France"] == ("given", "Paris")
    assert found["Bahrain"] == ("relation", "Doha")
    assert found["Ecuador"] == found["Qatar"] == (None, None)
    empty = made[(made.prompt == "Ecuador") & (made.position == "exact_answer_last")]
    assert empty.status.tolist() == ["NA: no exact answer is in the output, by relation"]
    assert made.attrs["knockgrid"]["exact_empty"] == 2
    alone = [one.replace(relation=f"relation of {one.id}") for one in capitals]
    assert whose(table(alone, exact_answer="relation"))["Bahrain"] == (None, None)


def test_the_model_names_it_and_is_held_to_its_output(table, demo_model, capitals):
    """Its replies are those of plain greedy decoding; those that are not in the output are none."""
    made = table(exact_answer="model")
    model, tokenizer = demo_model.original_model, demo_model.tokenizer
    kept = 0
    for side in made.attrs["knockgrid"]["prompts"]:
        said = "".join(side["generated"][:8])
        text = f"{exact.EXAMPLES}Output: {said.strip().splitlines()[0]}\nExact answer:"
        ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(text)["input_ids"]]])
        n = ids.shape[1]
        with torch.no_grad():
            for _ in range(9):
                ids = torch.cat([ids, model(ids).logits[:, -1:].argmax(-1)], 1)
        reply = tokenizer.decode(ids[0, n:]).partition(tokenizer.eos_token)[0]
        reply = reply.strip().splitlines()[0].strip(" \"'.,;:!?")
        held = reply if reply in said else None
        kept += held is not None
        assert (side["exact_from"], side["exact_answer"]) == (held and "model", held)
    assert kept >= 3
    assert made.attrs["knockgrid"]["exact_empty"] == 4 - kept
    assert whose(made)["Ecuador"] == ("model", "Bogota")


def test_a_reply_that_the_output_does_not_hold_is_not_taken(table, monkeypatch):
    monkeypatch.setattr(
        exact, "outputs", lambda model, ready, n: {o.prompt.id: " Rome" for o in ready}
    )
    made = table(exact_answer=["relation", "model"])
    assert whose(made)["Ecuador"] == (None, None)
    assert made.status.str.contains("by relation or model").sum() == 2


def test_rules_are_tried_in_turn_and_only_where_the_ones_before_found_nothing(table, capitals):
    seen = {}

    def last_word(prompt, text):
        seen[prompt.id] = text
        return None if prompt.id == "Qatar" else text.split()[-1]

    found = whose(table(exact_answer=("relation", last_word)))
    assert set(seen) == {"Ecuador", "Qatar"}
    assert found["Ecuador"] == ("last_word", seen["Ecuador"].split()[-1])
    assert found["Bahrain"] == ("relation", "Doha")
    assert found["Qatar"] == (None, None)


@pytest.mark.parametrize("rule", ["relation", "model", upper])
def test_places_are_those_of_the_tokenizers_offsets(demo_model, capitals, rule):
    """A substring search in the whole text, and the tokens that cover it."""
    rules, tokenizer = exact.exact_answers(rule, capitals), demo_model.tokenizer
    plain, checked = settings_of(Spec(n_tokens=9), ROWS, [0], True), 0
    for prompt in capitals:
        ready = prepare(demo_model, [prompt], True, 9)
        (run,) = outlines(demo_model, ready, replace(plain, exact=rules))
        if run.exact.text is None:
            continue
        whole = tokenizer.decode(run.ids)
        again = tokenizer(whole, return_offsets_mapping=True, add_special_tokens=False)
        assert again["input_ids"] == run.ids.tolist()
        start = whole.index(run.exact.text, whole.index(prompt.text) + len(prompt.text))
        stop = start + len(run.exact.text)
        cover = [i for i, (a, b) in enumerate(again["offset_mapping"]) if a < stop and b > start]
        named = [
            run.named[f"exact_answer_{part}"]
            for part in ("before_first", "first", "last", "after_last")
        ]
        assert named == [cover[0] - 1, cover[0], cover[-1], min(len(run.ids) - 1, cover[-1] + 1)]
        checked += 1
    assert checked >= 2


def raising(prompt, text):
    raise KeyError("lost")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (raising, r"function 'raising' raised KeyError for prompt 'tower': 'lost'"),
        (lambda p, t: "not in there", "'<lambda>' gave 'not in there' for prompt 'tower'"),
        (lambda p, t: 7, "gave 7 for prompt 'tower', which is no substring of its output"),
        (lambda p, t: " ", "gave ' ' for prompt 'tower'"),
        ("relaton", "unknown exact_answer 'relaton'; did you mean 'relation'"),
        (None, "unknown exact_answer None"),
        ((), "give at least one rule"),
        (("given", "given"), "each once"),
        ("model", "exact_answer='model' asks with examples before it: prompt 'tower' needs"),
    ],
)  # fmt: skip
def test_bad_rules_are_refused(sweep, tower, rule, message):
    with pytest.raises(kg.InputError, match=message):
        sweep(tower, ROWS, layers=[0], n_tokens=4, exact_answer=rule)


def test_a_function_that_is_called_like_a_rule_is_refused(sweep, tower):
    def model(prompt, text):
        return None

    with pytest.raises(kg.InputError, match="called 'model'; rename it"):
        sweep(tower, ROWS, layers=[0], n_tokens=4, exact_answer=model)


def first_characters(prompt, text):
    return text[:3] if text[:3].strip() else None


def test_a_run_folder_keeps_rules_and_whose_answers_they_are(tiny_llama, prompts, tmp_path):
    some = [one.replace(answers=["zzz"], swap=None) for one in prompts]
    options = {"layers": [0, 1], "n_tokens": 4, "exact_answer": ["given", first_characters]}
    made = kg.sweep(tiny_llama, some, ROWS, out=tmp_path / "a", progress=False, **options)
    alone = kg.sweep(tiny_llama, some, ROWS, progress=False, **options)
    told, told_alone = (one.attrs["knockgrid"] for one in (made, alone))
    keys = ("exact_answer", "exact_from", "exact_empty")
    assert [told[key] for key in keys] == [told_alone[key] for key in keys]
    assert whose(made) == whose(alone)
    assert made.exact_from.tolist() == alone.exact_from.tolist()
    rule = read_manifest(tmp_path / "a")["config"]["exact_answer"][1]
    assert rule["name"] == "first_characters"
    assert verify(tmp_path / "a", model=tiny_llama, known=[first_characters]).ok
    with pytest.raises(kg.InputError, match=r"give it in known=\[first_characters\]"):
        verify(tmp_path / "a", model=tiny_llama)
    n = told["exact_empty"]
    text = methods(tmp_path / "a").replace("\\_", "_")
    assert (
        "else what the user's own function first_characters gives "
        f"({told['exact_from']}; {n} prompt" in text
    )
    assert "orgad2024" in text


def test_settings_files_and_the_shell_name_rules(tmp_path):
    (tmp_path / "a.yaml").write_text("exact_answer: [relation, model]\n")
    spec = read_spec(tmp_path / "a.yaml")
    assert tuple(spec.exact_answer) == ("relation", "model")
    assert json.loads(json.dumps(spec.plain()))["exact_answer"] == ["relation", "model"]
    assert spec.digest() != Spec().digest() == Spec(exact_answer="given").digest()
    (tmp_path / "a.yaml").write_text("exact_answer: relations\n")
    with pytest.raises(kg.InputError, match="exact_answer"):
        read_spec(tmp_path / "a.yaml")


def test_probes_read_at_what_was_found_and_count_it(demo_model, capitals):
    pytest.importorskip("sklearn")
    options = {"layers": [29], "n_tokens": 9, "seeds": 1, "folds": 2, "progress": False}
    places = ["last_q", "exact_answer_last"]
    made = kg.evidence.probe_auc(demo_model, capitals, places, exact_answer="relation", **options)
    assert made.n_prompts.tolist() == [4, 2]
    assert made.exact_from.fillna("").tolist() == ["", "given 1, relation 1"]
    assert made.attrs["knockgrid"]["exact_empty"] == 2


def test_probes_and_a_sweep_of_other_rules_do_not_meet(table):
    from knockgrid.table.table import build

    row = {"prompt": "a", "intervention": "one", "position": "exact_answer_last", "layer": 0}
    probes = build([{**row, "auc": 0.9, "auc_shuffled": 0.5}], {"exact_answer": ["relation"]})
    moved = build([{**row, "js": 0.1}], {"unit": "nats", "exact_answer": "given"})
    with pytest.raises(kg.InputError, match="give both the same"):
        kg.evidence.readable_not_used(probes, moved)
