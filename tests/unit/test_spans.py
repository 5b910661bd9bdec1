"""Spans of a text: sentences, lines, paragraphs, turns and matches."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import knockgrid as kg
from knockgrid.prompts.prompt import trimmed

FUNCTIONS = [kg.sentences, kg.prompts.lines, kg.prompts.paragraphs]
SENTENCES = [  # cut at every bar
    "One. |Two! |Three? |Four",
    "It is 3.14 or 1,000.50. |Then .5 is less.",
    "Dr. No and Mr. Bond, e.g. in Fig. 3, met at 3 p.m. on Jan. 5. |They left.",
    "He lives in the U.S. |She does, too, with Acme Inc. |Both pay tax etc. |Fine.",
    "J. A. Smith left. |J.R.R. Tolkien, too. |Yes.",
    "What?? |ok! |fine.",
    "He has 5$. |I have 6$.",
    "2.3. Results\n\n|a. First, see Eq. (4). |\niv. Then.",
    "So do I. |Then we go.",
    "Wait... no, that is wrong. |Hmm... |Let me see… |Right.",
    "“Stop!” he said. |“Why?” |Because.",
    "She said “Stop.” |He did.",
    "(It is so.) |**Really.** |Yes.",
    "1. First we add. |\n2. Then we divide. |\n- So it is 4. |\n* Done",
    "It costs $5. |He paid $6.",
    "So $x = 1. y$ holds. |And \\[ a. B \\] too. |And \\(p. Q\\) as well.",
    "See example.com or run.py. |Next.",
    "A heading\n\n|A sentence. |\n\nA last one",
    "これは文です。|次の文です！|「はい。」|終わり",
    "Is it?! |Yes.",
    "See vs. the other, cf. the third, viz. the fourth.",
    "The answer is 42. |It is right.",
    "The answer is no. |It stays in no. 5, see p. 3.",
]


def pieces(prompt, spans):
    return [prompt.whole[slice(*span)] for span in spans.values()]


@pytest.mark.parametrize("text", SENTENCES)
def test_sentences(text):
    prompt = kg.Prompt(text.replace("|", ""))
    assert pieces(prompt, kg.sentences(prompt)) == [trimmed(one) for one in text.split("|")]


def test_they_are_those_of_the_continuation_and_become_spans():
    trace = kg.Prompt("Why? Say it.", continuation=" It rains. So I stay.")
    found = kg.sentences(trace)
    assert found == {"s0": (13, 22), "s1": (23, 33)}
    assert trace.with_spans(found).span_names == ("s0", "s1")
    assert pieces(trace, kg.prompts.matches(trace, r"[A-Z]\w+")) == ["Why", "Say", "It", "So"]


def test_lines_and_paragraphs():
    prompt = kg.Prompt("\n one\n two \n \n\nthree\n")
    assert pieces(prompt, kg.prompts.lines(prompt)) == ["one", "two", "three"]
    assert pieces(prompt, kg.prompts.paragraphs(prompt)) == ["one\n two", "three"]


@pytest.mark.parametrize(
    "text",
    [
        "<|im_start|>user\nIs it?<|im_end|>\n<|im_start|>assistant\nIt is.<|im_end|>",
        "<|im_start|>user\nIs it?<|im_end|>\n<|im_start|>assistant\nIt is.",
        "<|start_header_id|>user<|end_header_id|>\n\nIs it?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nIt is.<|eot_id|>",
        "User: Is it?\nAssistant: It is.",
        "Q: Is it?\n A: It is.",
        "user: Is it?\nASSISTANT: It is.",
    ],
)
def test_turns(text):
    prompt = kg.Prompt(text[:9], continuation=text[9:])
    assert pieces(prompt, kg.prompts.turns(prompt)) == ["Is it?", "It is."]


TEXT = st.text(st.sampled_from('aB1 .!?…\n\t$\\[]()"”。 -*J'), min_size=1, max_size=60)


@given(TEXT)
def test_spans_are_in_order_and_cover_all_that_is_written(text):
    if not trimmed(text):
        return
    prompt = kg.Prompt(text)
    for of in FUNCTIONS:
        spans, at = list(of(prompt).values()), 0
        for start, end in spans:
            assert at <= start < end
            assert trimmed(text[at:start]) == ""
            assert text[start:end] == trimmed(text[start:end])
            at = end
        assert trimmed(text[at:]) == ""
        assert prompt.with_spans(of(prompt)).spans == of(prompt)


@pytest.mark.parametrize(
    "part", [".", "a.", "...x", " ", "$", "$a ", "\\[", "\n", "\n ", ".)", "1. ", "<|im_start|>\n"]
)
def test_hostile_texts_take_no_time(part):
    prompt = kg.Prompt("a" + part * (200_000 // len(part)) + "z")
    for of in (*FUNCTIONS, kg.prompts.turns):
        began = time.process_time()
        try:
            of(prompt)
        except kg.InputError:
            assert of is kg.prompts.turns
        assert time.process_time() - began < 3


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda p: kg.prompts.turns(p), "has no turns: neither"),
        (lambda p: kg.prompts.matches(p, "q+"), "has no match of 'q\\+'"),
        (lambda p: kg.prompts.matches(p, "("), "is no regular expression"),
        (lambda p: kg.prompts.matches(p, "a{99999999999999999999}"), "is no regular expression"),
        (lambda p: kg.prompts.matches(p, "(" * 9999), "is no regular expression"),
        (lambda p: kg.prompts.matches(p, "z*"), "has no match"),
        (lambda p: kg.sentences(kg.Prompt("a", continuation=" \n")), "has no sentence"),
    ],
)
def test_what_has_none_is_refused(made, said):
    with pytest.raises(kg.InputError, match=said):
        made(kg.Prompt("A text."))
