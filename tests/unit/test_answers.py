"""Answers: their tokens, and which prompts count as known."""

import pytest


@pytest.mark.parametrize(
    ("text", "answers", "right"),
    [
        (" Paris, the", ["Paris"], True),
        (" paris", ["Paris"], True),
        (" Parisian", ["Paris"], False),
        (" Paris2", ["Paris"], False),
        ("\nNew York City", ["York", "New York"], True),
        (" New", ["New York"], False),
        (" STRASSE.", ["Straße"], True),
        (" 大阪府", ["大阪"], False),
        (" Paris", [], False),
    ],
)
def test_whole_words_count(text, answers, right):
    from knockgrid._matching import is_answer

    assert is_answer(text, answers) is right


def test_answer_tokens_follow_one_space(tiny_tokenizer):
    import knockgrid as kg
    from knockgrid._answers import answer_tokens

    prompt = kg.Prompt("The capital of France is", answers=("Paris", "Rome"))
    spaced = kg.Prompt("The capital of France is ", answers=("Paris", "Rome"))

    def ids(*texts):
        return [tuple(tiny_tokenizer(t, add_special_tokens=False)["input_ids"]) for t in texts]

    assert answer_tokens(tiny_tokenizer, prompt) == ids(" Paris", " Rome")
    assert answer_tokens(tiny_tokenizer, spaced) == ids("Paris", "Rome")
    assert ids(" Paris") != ids("Paris")
    assert answer_tokens(tiny_tokenizer, kg.Prompt("The")) == []


def test_the_best_alias_counts(tiny_tokenizer):
    import torch

    import knockgrid as kg
    from knockgrid._answers import first_tokens

    prompt = kg.Prompt("The capital of France is", answers=("Paris", "Rome", "Paris."))
    paris, rome = (
        tiny_tokenizer(t, add_special_tokens=False)["input_ids"][0] for t in (" Paris", " Rome")
    )
    logits = torch.zeros(400)
    logits[rome] = 1.0
    assert first_tokens(tiny_tokenizer, prompt, logits) == (rome, paris)
    logits[paris] = 2.0
    assert first_tokens(tiny_tokenizer, prompt, logits) == (paris, rome)
    assert first_tokens(tiny_tokenizer, kg.Prompt("The"), logits) == ()


def test_known_prompts_of_the_demo_model(demo_model):
    """Several tokens, an alias, other lengths in between, the order kept, the rest counted."""
    import knockgrid as kg

    known = {
        "italy": kg.Prompt("The capital of Italy is", answers=["Milan", "Rome"], id="italy"),
        "tower": kg.Prompt(
            "The Eiffel Tower is located in the city of", answers=["paris"], id="tower"
        ),
        "france": kg.Prompt("The capital of France is", answers=["Paris"], id="france"),
    }
    wrong = {
        "lie": kg.Prompt("The capital of Spain is", answers=["Berlin"], id="lie"),
        "begin": kg.Prompt("The capital of Germany is", answers=["Ber"], id="begin"),
        "none": kg.Prompt("The capital of Japan is", id="none"),
    }
    every = {**wrong, **known}
    order = ("lie", "italy", "begin", "tower", "none", "france")
    found = kg.known(demo_model, [every[name] for name in order])
    assert [prompt.id for prompt in found] == ["italy", "tower", "france"]
    assert [prompt.id for prompt in found.dropped] == ["lie", "begin", "none"]
    assert len(found) == 3
    assert found[1] is every["tower"]
    assert found.said["italy"].startswith(" Rome")
    assert (
        "3 of 6 prompts dropped: 2 answered wrong, such as 'The capital of Spain is' with ' "
        in (found.why)
    )
    assert found.said["lie"][:10] in found.why
    assert found.why.endswith(" instead of 'Berlin'; 1 without answers")
    assert repr(found).startswith("Known(3 of 6 prompts, 3 dropped: 2 answered wrong, such as ")
    assert kg.known(demo_model, [every["tower"]]).why == ""


def test_prompts_without_any_answers_cannot_be_known(tiny_llama):
    """With a judge they can: it needs none."""
    import knockgrid as kg

    bare = [kg.Prompt("The capital of Japan is", id="none")]
    with pytest.raises(kg.InputError, match="none of the 1 prompts has answers"):
        kg.known(tiny_llama, bare)
    judged = kg.known(tiny_llama, bare, judge=lambda *_: False).why
    assert judged.startswith("1 of 1 prompts dropped: 1 answered wrong, such as ")


def test_no_prompts(tiny_llama):
    import knockgrid as kg

    with pytest.raises(kg.InputError, match="the prompt set is empty; give at least one Prompt"):
        kg.known(tiny_llama, [])
