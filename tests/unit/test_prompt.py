"""Prompt: spans by characters or by text, what is refused and how, identity."""

import pytest


def error(*args, **kwargs):
    import knockgrid as kg

    with pytest.raises(kg.InputError) as caught:
        kg.Prompt(*args, **kwargs)
    return str(caught.value)


def test_a_span_by_its_text():
    import knockgrid as kg

    prompt = kg.Prompt("In São Paulo, 大阪 is far", spans={"subject": "São Paulo", "other": "大阪"})
    assert prompt.spans == {"subject": (3, 12), "other": (14, 16)}
    assert prompt.span_text("subject") == "São Paulo"
    assert prompt.span_text("other") == "大阪"
    assert prompt.span_text("third") is None


def test_a_span_that_occurs_twice():
    assert error("Rome is in Italy, and so is old Rome", spans={"subject": "Rome"}) == (
        "span 'subject' ('Rome') occurs 2 times in 'Rome is in Italy, and so is old Rome', "
        "at 0 and 32; give spans={'subject': (32, 36)}"
    )


def test_a_span_that_occurs_three_times_and_overlaps_itself():
    assert error("ananana", spans={"subject": "ana"}) == (
        "span 'subject' ('ana') occurs 3 times in 'ananana', at 0, 2 and 4; "
        "give spans={'subject': (4, 7)}"
    )


def test_the_advice_of_the_error_works():
    import knockgrid as kg

    text = "Rome is in Italy, and so is old Rome"
    assert kg.Prompt(text, spans={"subject": (32, 36)}).span_text("subject") == "Rome"


def test_a_span_that_does_not_occur():
    assert error("Rome is in", spans={"city": "rome"}) == (
        "span 'city' ('rome') does not occur in 'Rome is in'; check the spelling"
    )


def test_a_composed_letter_is_not_its_decomposed_twin():
    assert "does not occur" in error("Ma\u0301laga is in", spans={"subject": "M\u00e1laga"})


def test_an_empty_span():
    message = "span 'subject' is empty; give the characters it covers"
    assert error("Rome", spans={"subject": ""}) == message


@pytest.mark.parametrize("span", [(0, 5), (-1, 2), (2, 2), (3, 1), (4, 5)])
def test_a_span_outside_the_text(span):
    assert error("Rome", spans={"subject": span}) == (
        f"span 'subject' {span} lies outside 'Rome', which has 4 characters; "
        "spans are half-open and not empty"
    )


def test_the_whole_text_is_a_span():
    import knockgrid as kg

    assert kg.Prompt("Rome", spans={"subject": (0, 4)}).span_text("subject") == "Rome"


def test_an_empty_prompt():
    assert error("") == "a prompt needs text, got ''"


def test_the_id_depends_on_text_and_spans_alone():
    import knockgrid as kg

    one = kg.Prompt("Rome or Rome", spans={"subject": (0, 4)})
    assert one.id == kg.Prompt("Rome or Rome", spans={"subject": (0, 4)}, answers=["x"]).id
    assert one.id != kg.Prompt("Rome or Rome", spans={"subject": (8, 12)}).id
    assert one.id != kg.Prompt("Rome or rome", spans={"subject": (0, 4)}).id
    assert kg.Prompt("Rome", id="mine").id == "mine"


def test_replace_changes_one_field():
    import knockgrid as kg

    one = kg.Prompt("Rome is", spans={"subject": "Rome"}, answers=["in"], group="cities", id="a")
    two = one.replace(group="towns")
    assert (one.group, two.group) == ("cities", "towns")
    assert (two.spans, two.answers, two.id) == ({"subject": (0, 4)}, ("in",), "a")


def test_prompts_are_frozen_and_hashable():
    import dataclasses

    import knockgrid as kg

    one = kg.Prompt("Rome is", spans={"subject": "Rome"})
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.text = "Paris"
    assert {one: 1}[kg.Prompt("Rome is", spans={"subject": "Rome"})] == 1
    assert one != kg.Prompt("Rome is", spans={"subject": "Rome"}, answers=["in"])
