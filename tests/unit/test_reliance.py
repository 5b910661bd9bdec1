"""Reliance: what is masked, on which prompt, and what is said where there is none."""

import importlib
import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy

import knockgrid as kg


@pytest.fixture(scope="module")
def facts():
    """Subjects at the start, in the middle, next to the last token, last, and missing."""

    def prompt(name, text, subject):
        spans = {"subject": subject} if subject else {}
        return kg.Prompt(text, spans=spans, answers=["x"], id=name, relation="r")

    return [
        prompt("start", "Rome is the capital of", "Rome"),
        prompt("middle", "The capital of France is the city of", "France"),
        prompt("beside", "The capital of Italy is", "Italy"),
        prompt("end", "The official language of Brazil", "Brazil"),
        prompt("none", "The capital is", None),
    ]


@pytest.fixture
def relied(tiny_llama, facts):
    def run(prompts=facts, **options):
        found = kg.evidence.reliance(tiny_llama, prompts, progress=False, **options)
        return found.set_index("prompt")

    return run


@pytest.fixture
def masked_js(plain, tiny_tokenizer, scipy_js):
    """JS divergence on the plain model, attention forbidden by a mask that is written by hand."""

    def run(prompt, n_tokens=1):
        ids = tiny_tokenizer(prompt.text, return_offsets_mapping=True)
        row, offsets = list(ids["input_ids"]), ids["offset_mapping"]
        start, end = prompt.spans["subject"]
        inside = [i for i, (a, b) in enumerate(offsets) if a < end and b > start]
        n_prompt = len(row)
        for _ in range(n_tokens - 1):
            row.append(int(plain(torch.tensor([row])).logits[0, -1].argmax()))
        n, least = len(row), torch.finfo(torch.float64).min
        mask = torch.full((n, n), least, dtype=torch.float64).triu(1)
        clean = plain(torch.tensor([row]), attention_mask=mask[None, None]).logits[0]
        mask[max(inside) + 1 :, inside] = least
        moved = plain(torch.tensor([row]), attention_mask=mask[None, None]).logits[0]
        return np.mean([scipy_js(clean[i], moved[i]) for i in range(n_prompt - 1, n)])

    return run


@pytest.mark.parametrize("n_tokens", [1, 3])
def test_the_subject_is_masked_from_all_later_queries_in_all_layers(
    relied, facts, masked_js, n_tokens
):
    frame = relied(n_tokens=n_tokens)
    for prompt in facts[:3]:
        expected = masked_js(prompt, n_tokens)
        assert expected > 1e-3
        np.testing.assert_allclose(frame.loc[prompt.id, "reliance"], expected, rtol=1e-9)


def test_blocking_the_last_query_alone_is_less(relied, facts, sweep):
    only_last = sweep([facts[1]], kg.knockout(window=8), layers=[2]).js[0]
    assert abs(relied().loc["middle", "reliance"] - only_last) > 1e-4


def test_certainty_is_that_of_the_clean_next_token(relied, facts, plain, ids_of):
    frame = relied()
    for prompt in facts:
        p = plain(ids_of(prompt.text)).logits[0, -1].softmax(-1).numpy()
        np.testing.assert_allclose(frame.loc[prompt.id, "entropy"], scipy_entropy(p), rtol=1e-9)
        np.testing.assert_allclose(frame.loc[prompt.id, "p_top"], p.max(), rtol=1e-9)


def test_prompts_without_a_later_query_or_a_subject_are_named_not_dropped(relied, facts):
    frame = relied()
    assert list(frame.index) == [one.id for one in facts]
    assert frame.reliance.isna().tolist() == [False, False, False, True, True]
    assert "the last token belongs to the subject" in frame.note["end"]
    assert "no span 'subject'" in frame.note["none"]
    assert frame.note.isna().tolist() == [True, True, True, False, False]
    alone = relied(facts[3:])
    assert alone.reliance.isna().all()
    assert (alone.entropy > 0).all()


def test_the_frame_says_what_was_asked_and_answered(relied, facts, tiny_llama, answer_in):
    seen = {}

    def judge(prompt, text):
        seen[prompt.id] = text
        return prompt.id == "middle"

    frame = relied(judge=judge)
    assert frame.correct.tolist() == [False, True, False, False, False]
    assert frame.output.to_dict() == seen
    assert frame.subject.tolist()[:4] == ["Rome", "France", "Italy", "Brazil"]
    assert frame.text.tolist() == frame.measured_on.tolist() == [one.text for one in facts]
    said = seen["start"].strip()
    right = facts[0].replace(answers=[answer_in(said)])
    assert relied([right]).correct.tolist() == [True]
    assert [one.id for one in kg.known(tiny_llama, [right])] == ["start"]


def test_a_paraphrase_gives_reliance_and_the_prompt_itself_the_rest(relied, facts, masked_js):
    other = kg.Prompt("In France, the capital is", spans={"subject": "France"})
    plain_frame, frame = relied([facts[1]]), relied([facts[1]], label_with={"middle": other})
    np.testing.assert_allclose(frame.reliance["middle"], masked_js(other), rtol=1e-9)
    assert frame.measured_on["middle"] == other.text
    for name in ("text", "output", "correct", "entropy", "p_top"):
        assert frame[name].equals(plain_frame[name])
    assert frame.attrs["knockgrid"]["label_with"] == "paraphrase"
    last = kg.Prompt("I love France", spans={"subject": "France"})
    assert "belongs to the subject" in relied([facts[1]], label_with={"middle": last}).note.iloc[0]


def test_another_intervention_gives_reliance(relied, facts, sweep):
    zero = kg.patch("resid_pre", "subject", kg.zero())
    frame = relied(facts[:4], label_with=zero, layer=1)
    table = sweep(facts[:4], zero, layers=[1])
    np.testing.assert_array_equal(frame.reliance, table.js)
    assert frame.reliance.notna().all()  # a patch needs no later query
    default = relied(facts[:4], label_with=zero)
    np.testing.assert_array_equal(default.reliance, sweep(facts[:4], zero, layers=[2]).js)
    assert (default.attrs["knockgrid"]["layer"], default.attrs["knockgrid"]["unit"]) == (2, "nats")


def test_an_edge_that_no_layer_has_is_named(relied, facts, monkeypatch):
    room = importlib.import_module("knockgrid.evidence.reliance")
    real = room.sweep_in_memory

    def none(*given, **options):
        table = real(*given, **options)
        table.loc[0, "status"] = "NA: no such edge"
        return table

    monkeypatch.setattr(room, "sweep_in_memory", none)
    frame = relied(facts[:2])
    assert math.isnan(frame.reliance["start"])
    assert frame.note["start"] == "NA: no such edge"


@pytest.mark.parametrize(
    ("n", "options", "words"),
    [
        (2, {"label_with": {}}, "no paraphrase for 2 prompts, first 'start'"),
        (2, {"layer": 9}, "layer 9 is out of range"),
        (2, {"n_tokens": 0}, "n_tokens is 0"),
        (0, {}, "prompt set is empty"),
    ],
)
def test_bad_input(relied, facts, n, options, words):
    with pytest.raises(kg.InputError, match=words):
        relied(facts[:n], **options)
    with pytest.raises(kg.InputError, match="a paraphrase for 'rome', which is no prompt here"):
        relied(facts[:1], label_with=dict.fromkeys(["start", "rome"], facts[0]))
    with pytest.raises(kg.InputError, match="'start' has no answers"):
        relied([facts[0].replace(answers=[])])
