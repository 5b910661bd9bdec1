"""Prompt: spans by characters or by text, what is refused and how, identity."""

import dataclasses
import json

import pytest

import knockgrid as kg
from knockgrid.prompts.data import prompt_as_data, prompt_from_data

ROME = "Rome is in Italy, and so is old Rome"
OUTSIDE = [(0, 5), (-1, 2), (2, 2), (3, 1), (4, 5)]


def test_a_span_by_its_text():
    prompt = kg.Prompt("In São Paulo, 大阪 is far", spans={"subject": "São Paulo", "other": "大阪"})
    assert prompt.spans == {"subject": (3, 12), "other": (14, 16)}
    assert prompt.span_text("subject") == "São Paulo"
    assert prompt.span_text("other") == "大阪"
    assert prompt.span_text("third") is None
    assert kg.Prompt("Rome", spans={"subject": (0, 4)}).span_text("subject") == "Rome"
    assert kg.Prompt(ROME, spans={"subject": (32, 36)}).span_text("subject") == "Rome"


@pytest.mark.parametrize(
    ("text", "span", "parts"),
    [
        (ROME, "Rome", ["'subject' ('Rome') occurs 2 times", "at 0 and 32;", "(32, 36)"]),
        ("ananana", "ana", ["occurs 3 times in 'ananana'", "at 0, 2 and 4;", "(4, 7)"]),  # overlaps
        ("Rome is in", "rome", ["('rome') does not occur in 'Rome is in'", "spelling"]),
        ("Ma\u0301laga is in", "M\u00e1laga", ["does not occur"]),
        ("Rome", "", ["span 'subject' is empty"]),
        ("", (0, 1), ["a prompt needs text, got ''"]),
        *(("Rome", s, [f"'subject' {s} lies outside 'Rome'", "4 characters"]) for s in OUTSIDE),
    ],
)
def test_a_span_that_is_refused(text, span, parts):
    with pytest.raises(kg.InputError) as caught:
        kg.Prompt(text, spans={"subject": span})
    assert [part for part in parts if part not in str(caught.value)] == []


def test_the_id_depends_on_text_and_spans_alone():
    one = kg.Prompt("Rome or Rome", spans={"subject": (0, 4)})
    assert one.id == kg.Prompt("Rome or Rome", spans={"subject": (0, 4)}, answers=["x"]).id
    assert one.id != kg.Prompt("Rome or Rome", spans={"subject": (8, 12)}).id
    assert one.id != kg.Prompt("Rome or rome", spans={"subject": (0, 4)}).id
    assert kg.Prompt("Rome", id="mine").id == "mine"


def test_replace_changes_one_field():
    one = kg.Prompt("Rome is", spans={"subject": "Rome"}, answers=["in"], group="cities", id="a")
    two = one.replace(group="towns")
    assert (one.group, two.group) == ("cities", "towns")
    assert (two.spans, two.answers, two.id) == ({"subject": (0, 4)}, ("in",), "a")


def test_prompts_are_frozen_and_hashable():
    one = kg.Prompt("Rome is", spans={"subject": "Rome"})
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.text = "Paris"
    assert {one: 1}[kg.Prompt("Rome is", spans={"subject": "Rome"})] == 1
    assert one != kg.Prompt("Rome is", spans={"subject": "Rome"}, answers=["in"])


GIVEN = kg.Prompt(
    "The capital of Italy is",
    continuation=" Rome. It is old.",
    spans={"subject": "Italy", "city": "Rome", "old": (31, 40)},
)


def test_spans_are_counted_in_the_text_and_its_continuation():
    assert GIVEN.whole == "The capital of Italy is Rome. It is old."
    assert GIVEN.spans == {"subject": (15, 20), "city": (24, 28), "old": (31, 40)}
    assert [GIVEN.span_text(name) for name in GIVEN.span_names] == ["Italy", "Rome", "t is old."]
    assert kg.Prompt("Rome is in").whole == "Rome is in"
    with pytest.raises(kg.InputError, match="occurs 2 times in 'Rome is Rome'.*'s': \\(8, 12\\)"):
        kg.Prompt("Rome is", continuation=" Rome", spans={"s": "Rome"})
    with pytest.raises(kg.InputError, match="lies outside 'Rome is Rome', which has 12 char"):
        kg.Prompt("Rome is", continuation=" Rome", spans={"s": (8, 13)})


@pytest.mark.parametrize(
    ("continuation", "part"),
    [
        ("", "the continuation of 'Rome' is empty; leave it out, or give"),
        (" a\0", "NUL"),
        (" \ud800", "half a character"),
    ],
)
def test_a_continuation_that_is_refused(continuation, part):
    with pytest.raises(kg.InputError, match=part):
        kg.Prompt("Rome", continuation=continuation)


def test_the_id_depends_on_the_continuation_and_is_as_before_without_one():
    assert kg.Prompt("Rome or Rome", spans={"subject": (0, 4)}).id == "f28b6f1dc283"
    ids = {kg.Prompt("a", continuation=one).id for one in (None, " b", " c")}
    ids.add(kg.Prompt("a b").id)
    assert len(ids) == 4


def test_with_spans_adds_and_never_replaces():
    more = GIVEN.with_spans({"verb": "is old", "is": (21, 23)})
    assert more.span_names == ("subject", "city", "old", "verb", "is")
    assert (more.spans["verb"], more.spans["city"]) == ((33, 39), (24, 28))
    assert (more.id, more.continuation) == (GIVEN.id, GIVEN.continuation)
    assert GIVEN.span_names == ("subject", "city", "old")
    with pytest.raises(kg.InputError, match="has a span 'city' already; take another name"):
        GIVEN.with_spans({"verb": "is old", "city": "Rome"})
    with pytest.raises(kg.InputError, match="does not occur"):
        GIVEN.with_spans({"verb": "was"})


def test_a_prompt_is_the_same_after_its_data():
    partner = kg.Prompt("The capital of Peru is", continuation=" Lima.", spans={"subject": "Peru"})
    one = GIVEN.replace(swap=partner, answers=["Rome"])
    data = json.loads(json.dumps(prompt_as_data(one)))
    assert (data["continuation"], data["swap"]["continuation"]) == (" Rome. It is old.", " Lima.")
    assert prompt_from_data(data) == one
    assert list(prompt_as_data(kg.Prompt("a"))) == [
        *("id", "text", "spans", "answers", "relation", "group", "swap"),
    ]


def test_a_notebook_shows_the_continuation_on_its_own():
    html = kg.Prompt("a <b", continuation=" c> d", spans={"x": (3, 6)})._repr_html_()
    assert html.count('title="x"') == 2
    for part in (">b</span>", "continuation", "> c</span>&gt; d"):
        assert part in html, html
    assert "continuation" not in kg.Prompt("a")._repr_html_()


def test_a_frame_moves_spans_in_the_continuation_too():
    (one,) = kg.prompts.in_chat([GIVEN], "Q: {}")
    assert (one.text, one.continuation) == ("Q: The capital of Italy is", " Rome. It is old.")
    assert [one.span_text(n) for n in one.span_names] == ["Italy", "Rome", "t is old."]
