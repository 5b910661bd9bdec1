"""Other forms of a prompt: the spans move along, the partner too, and nothing else changes."""

import pytest

import knockgrid as kg


@pytest.fixture
def pair():
    """Two prompts, each other's partners."""
    names = {"answers": ["Rome"], "relation": "capital", "group": "FA", "id": "rome"}
    rome = kg.Prompt("The capital of Italy is", spans={"subject": "Italy", "verb": "is"}, **names)
    oslo = kg.Prompt("The capital of Norway is", spans={"subject": "Norway"}, id="oslo")
    return rome.replace(swap=oslo.replace(swap=rome))


def test_a_template_moves_every_span_and_keeps_the_rest(pair):
    cat = kg.Prompt("A cat is in the category of a", spans={"subject": (2, 5)})
    assert kg.prompts.in_chat([cat], "On cat and category: {}")[0].spans["subject"] == (23, 26)
    made = kg.prompts.in_chat([pair], "Fact — {}")[0]
    assert made.text == "Fact — The capital of Italy is"
    assert {name: made.span_text(name) for name in made.spans} == {"subject": "Italy", "verb": "is"}
    kept = (made.id, made.answers, made.relation, made.group)
    assert kept == ("rome", ("Rome",), "capital", "FA")
    assert made.swap.text == "Fact — The capital of Norway is"
    assert made.swap.span_text("subject") == "Norway"


@pytest.mark.parametrize("template", ["no slot", "{} after", "{} twice {}", ""])
def test_a_template_must_end_with_the_prompt(pair, template):
    with pytest.raises(kg.InputError, match="exactly one {}, at its end"):
        kg.prompts.in_chat([pair], template)


def test_chat_puts_the_prompt_into_the_models_turn(pair, demo_model):
    tokenizer = demo_model.tokenizer
    made = kg.prompts.in_chat([pair], tokenizer, "Say it.")[0]
    turns = [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": pair.text}]
    whole = tokenizer.apply_chat_template(turns, tokenize=False)
    assert whole.startswith(made.text)
    assert made.text.endswith("assistant\nThe capital of Italy is")
    places = kg.token_positions(made, "subject", tokenizer, True)
    ids = tokenizer(made.text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode([ids[i] for i in places]) == " Italy"  # one BOS, that of the template


def test_a_tokenizer_without_a_chat_template(pair, tiny_tokenizer):
    with pytest.raises(kg.InputError, match="has no chat template.*ends with {}"):
        kg.prompts.in_chat([pair], tiny_tokenizer)
