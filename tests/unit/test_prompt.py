"""Prompt: spans by characters or by text, what is refused and how, identity."""

import dataclasses

import pytest

import knockgrid as kg

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
