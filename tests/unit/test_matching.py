"""Which continuations count as an answer."""

import unicodedata

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import knockgrid as kg
from knockgrid.engine import answers as _answers
from knockgrid.prompts.matching import is_answer, judged, plain_form

LATIN = st.text("abcdefghijklmnopqrstuvwxyzäéñßøçğ", min_size=2, max_size=12)
ARTICLES = ("the", "a", "an")
NAMES = LATIN.filter(lambda name: name not in ARTICLES)
MARKS = ('""', "''", "“”", "«»", "****", "__", "``", "()", "[]", "  ")


RIGHT = {
    "The Hague": [" the Hague", " Hague, in"],
    "Netherlands": [" The Netherlands"],
    "apple": [" an apple"],
    "A": [" A"],
    "Paris": [' "Paris".', " **Paris**", " _Paris_", " ____ Paris", " Ｐａｒｉｓ"],
    "The Louvre": [' the "Louvre"'],
    "Louvre": ['"The Louvre"'],
    '"Paris"': [" Paris"],
    "Paris.": [" Paris"],
    "Washington, D.C.": [" Washington, D.C., the"],
    "Guinea": [" Guinea – a country", " Guinea-"],
    "Guinea-Bissau": [" Guinea\u2011Bissau"],
    "Rome": [" Rome's streets", " Rome’s"],
    "Côte d'Ivoire": [" Cote d’Ivoire"],
    "3": [" 3. It"],
    "5": [" $5"],
    "-5": [" -5 degrees"],
    "C++": [" C++ is"],
    "Bogotá": [" Bogota"],
    "Bogota": [" Bogotá"],
    "São Paulo": [" Sa\u0303o Paulo"],
    "Sao Paulo": [" São  Paulo", " São\nPaulo"],
    "Istanbul": [" İstanbul"],
    "Lego": [" Lego™ bricks"],
    "दिल्ली": [" दिल्ली"],
    "Yahoo!": [" yahoo is"],
    "?": [" ?"],
}
WRONG = {
    "apple": [" another apple", " the the apple"],
    "Hague": [" theHague"],
    "Paris": [" not Paris", " in Paris", " \ufffdParis", ""],
    "Guinea": [" Guinea-Bissau"],
    "L": [" L'Aquila"],
    "Rome": [" Rome'sx"],
    "3": [" 3.14"],
    "1": [" 1,000 men"],
    "12": [" 12:30"],
    "5": [" -5", " .5"],
    "1990": [" 1990s"],
    "C": [" C++ is", " C#"],
    "か": [" が"],
    "и": [" й"],
    "द": [" दिल्ली"],
    "東京": [" 東京\ufffd"],
    "": [" Paris"],
    "the": [" Paris"],
    '"': [" Paris"],
}


def pairs(texts):
    return [(text, answer) for answer, some in texts.items() for text in some]


@pytest.mark.parametrize(("text", "answer"), pairs(RIGHT))
def test_an_answer(text, answer):
    assert is_answer(text, [answer])


@pytest.mark.parametrize(("text", "answer"), pairs(WRONG))
def test_no_answer(text, answer):
    assert not is_answer(text, [answer])


@given(name=NAMES, mark=st.sampled_from(MARKS), article=st.sampled_from(["", *ARTICLES]))
def test_case_articles_marks_and_spelling_in_unicode_do_not_count(name, mark, article):
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        before, after = mark[: len(mark) // 2], mark[len(mark) // 2 :]
        for said in (name.upper(), name.title(), name):
            text = unicodedata.normalize(form, f" {article} {before}{said}{after}")
            assert is_answer(text, [name])
            assert is_answer(f"{text}, which", [f"The {name}"])
            assert is_answer(text, [unicodedata.normalize(form, f"{before}{said}{after}")])


@given(name=NAMES, more=LATIN, joint=st.sampled_from(["", "-", "_", "\u0301", "\u3099", "\ufffd"]))
def test_no_part_of_a_word_counts(name, more, joint):
    assert not is_answer(f" {name}{joint}{more}", [name])


@given(name=NAMES, before=NAMES)
def test_no_word_before_an_answer_but_an_article(name, before):
    assume(plain_form(name) != plain_form(before))
    assert not is_answer(f" {before} {name}", [name])


@given(text=st.text(max_size=20))
def test_the_plain_form_is_its_own(text):
    assert plain_form(plain_form(text)) == plain_form(text)


@given(text=st.text(max_size=20), answer=st.text(max_size=6))
def test_any_text_gets_a_verdict(text, answer):
    assert is_answer(text, [answer]) in (True, False)
    assert not is_answer(text, [])


def test_a_judge_takes_the_place_of_the_rule():
    prompt = kg.Prompt("The capital of Peru is", answers=["Lima"], id="peru")
    seen = []
    assert judged(prompt, "Lima", lambda *given: seen.append(given) or False) is False
    assert seen == [(prompt, "Lima")]
    assert judged(prompt, "Cusco", lambda prompt, text: np.bool_(True)) is True
    with pytest.raises(kg.InputError, match="judge gave 'yes' for prompt 'peru'"):
        judged(prompt, "Lima", lambda prompt, text: "yes")


def test_known_and_probes_ask_the_judge(tiny_llama):
    prompts = [kg.Prompt(f"{name} is", id=name) for name in ("Anna", "Bruno", "Carla", "Dario")]
    seen = {}

    def judge(prompt, text):
        seen[prompt.id] = text
        return prompt.id < "C"

    found = kg.known(tiny_llama, prompts, judge=judge, n_tokens=3)
    assert [one.id for one in found] == ["Anna", "Bruno"]
    assert [one.id for one in found.dropped] == ["Carla", "Dario"]

    ids = torch.tensor([tiny_llama.tokenizer(prompts[0].text)["input_ids"]])
    n = ids.shape[1]
    for _ in range(3):
        ids = torch.cat([ids, tiny_llama(ids)[:, -1:].argmax(-1)], dim=1)
    assert seen["Anna"] == tiny_llama.tokenizer.decode(ids[0, n:])
    few = {"layers": [0], "seeds": 1, "folds": 2, "n_tokens": 2, "progress": False}
    probed = kg.evidence.probe_auc(tiny_llama, prompts, ["last"], judge=judge, **few)
    assert probed.attrs["knockgrid"]["incorrect"] == ["Carla", "Dario"]
    with pytest.raises(kg.InputError, match="has no answers.* or a judge"):
        kg.evidence.probe_auc(tiny_llama, prompts, ["last"], **few)


def test_an_answer_behind_an_article_and_quotes_is_seen_whole(tiny_llama, monkeypatch):
    """The output has to be longer than the answer, or the end of the word would be cut off."""
    tokenizer = tiny_llama.tokenizer
    said = tokenizer(' the "Paris" of', add_special_tokens=False)["input_ids"]
    prompt = kg.Prompt("The capital of France is", answers=["Paris"])
    n = _answers.answer_length(tokenizer, _answers.prepare(tiny_llama, [prompt], True, 1))
    assert is_answer(tokenizer.decode(said[:n]), ["Paris"])
    assert _answers.decode_output(tokenizer, [*said[:2], tokenizer.eos_token_id, 7]) == (
        tokenizer.decode(said[:2])
    )
