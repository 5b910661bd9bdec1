"""Answers: their tokens, and which prompts count as known."""

import pytest
import torch

import knockgrid as kg
from knockgrid.engine.answers import answer_tokens, first_answers
from knockgrid.passes.prepared import Prepared
from knockgrid.prompts.matching import is_answer
from knockgrid.prompts.positions import tokenize


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
    assert is_answer(text, answers) is right


def placed(tokenizer, text, *answers):
    """A prompt with its tokens, as it is made ready for a model."""
    return Prepared(kg.Prompt(text, answers=answers), tokenize(text, tokenizer, True))


def ways(tokenizer, text, *answers):
    """Per alias, what separates it from the prompt and its tokens as text."""
    found = answer_tokens(tokenizer, placed(tokenizer, text, *answers))
    to_text = tokenizer.convert_ids_to_tokens
    return [[(one.separator, to_text(list(one.ids))) for one in some] for some in found]


def test_answer_tokens_follow_one_space(tiny_tokenizer):
    assert ways(tiny_tokenizer, "The capital of France is", "Paris", "Rome") == [
        [(" ", ["ĠParis"])],
        [(" ", ["ĠRome"])],
    ]
    assert ways(tiny_tokenizer, "The") == []
    with pytest.raises(kg.InputError, match="'The capital of France is '.*white space off its end"):
        ways(tiny_tokenizer, "The capital of France is ", "Paris")


def test_answers_of_sentencepiece_tokenizers_begin_behind_the_prompt(pieces):
    """Llama's published tokenizer writes " Paris" alone as a lone space and the word."""
    text = "The capital of France is"
    assert ways(pieces, text, "Paris", "Rome") == [[(" ", ["▁Paris"])], [(" ", ["▁Rome"])]]


@pytest.mark.parametrize(
    ("text", "alias", "there"),
    [
        ("首都は", "東京", [("", ["東", "京"]), (" ", ["▁", "東", "京"])]),
        ("He said (", "Paris", [("", ["Paris"]), (" ", ["▁Paris"])]),
        ('He said "', "Paris", [("", ["Paris"]), (" ", ["▁Paris"])]),
        ('"Paris"', "is", [(" ", ["▁is"])]),
        ("The capital is", "東京", [(" ", ["▁", "東", "京"]), ("", ["東", "京"])]),
    ],
)
def test_text_without_spaces_and_open_quotes_leave_the_choice_to_the_model(
    pieces, text, alias, there
):
    assert ways(pieces, text, alias) == [there]
    for separator, tokens in there:
        logits = torch.zeros(len(pieces))
        logits[pieces.convert_tokens_to_ids(tokens[0])] = 1.0
        assert first_answers(pieces, placed(pieces, text, alias), logits)[0].separator == separator


def test_an_answer_that_changes_the_prompts_own_tokens_is_refused(pieces):
    merged = ways(pieces, "He said", "Paris")
    assert merged == [[(" ", ["▁Paris"])]]
    with pytest.raises(kg.InputError) as caught:
        ways(pieces, "The capital of France is ", "Paris")
    assert "'The capital of France is '" in str(caught.value)
    assert "▁Paris" in str(caught.value)


def test_the_separator_is_recorded_and_the_model_is_asked_for_it(sweep, tiny_llama):
    """Against log-probabilities of the plain logits of both ways."""
    said = kg.Prompt('The capital of "', spans={"subject": "capital"}, answers=["France"], id="q")
    plain = kg.Prompt("The capital of", spans={"subject": "capital"}, answers=["France"], id="p")
    bare = kg.Prompt("The city", spans={"subject": "city"}, id="b")
    table = sweep([said, plain, bare], kg.patch("resid_post", "subject"), layers=[0])
    sides = {side["id"]: side for side in table.attrs["knockgrid"]["prompts"]}
    tokenizer = tiny_llama.tokenizer
    ids = torch.tensor([tokenizer(said.text)["input_ids"]])
    clean = tiny_llama.original_model(ids).logits[0, -1].detach().log_softmax(-1)
    firsts = {
        sep: tokenizer(said.text + sep + "France")["input_ids"][ids.shape[1]] for sep in ("", " ")
    }
    assert firsts[""] != firsts[" "]
    likelier = max(firsts, key=lambda sep: clean[firsts[sep]])
    assert [sides[name]["separator"] for name in "qpb"] == [likelier, " ", None]
    assert sides["q"]["logp_answer_clean"] == pytest.approx(float(clean[firsts[likelier]]))


def test_a_prompt_that_ends_in_a_space_is_refused_before_anything_runs(sweep):
    spaced = kg.Prompt("The capital of France is ", answers=["Paris"])
    with pytest.raises(kg.InputError, match="white space off its end"):
        sweep(spaced, kg.patch("resid_post", "last", kg.zero()), layers=[0])
    sweep(spaced.replace(answers=()), kg.patch("resid_post", "last", kg.zero()), layers=[0])


def test_an_answer_that_begins_with_a_space_alone_is_said(sweep):
    """Years and the like: the first token is the same for all of them."""
    said = [kg.Prompt("The city of", spans={"subject": "city"}, answers=[a], id=a) for a in "7P"]
    with pytest.warns(UserWarning, match="1 of 2 prompts.*is white space alone.*'7'"):
        sweep(said, kg.patch("resid_post", "subject", kg.zero()), layers=[0])


def test_the_best_alias_counts(tiny_tokenizer):
    def firsts(*answers):
        found = first_answers(tiny_tokenizer, placed(tiny_tokenizer, text, *answers), logits)
        return list(dict.fromkeys(one.ids[0] for one in found))

    text = "The capital of France is"
    paris, rome = tiny_tokenizer.convert_tokens_to_ids(["ĠParis", "ĠRome"])
    logits = torch.zeros(400)
    logits[rome] = 1.0
    assert firsts("Paris", "Rome", "Paris.") == [rome, paris]
    logits[paris] = 2.0
    assert firsts("Paris", "Rome", "Paris.") == [paris, rome]
    assert firsts() == []


def test_known_prompts_of_the_demo_model(demo_model):
    """Several tokens, an alias, other lengths in between, the order kept, the rest counted."""
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
    with pytest.warns(UserWarning, match="1 of 3 prompts count as known.*'The Eiffel.*' par'"):
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
    bare = [kg.Prompt("The capital of Japan is", id="none")]
    with pytest.raises(kg.InputError, match="none of the 1 prompts has an answer"):
        kg.known(tiny_llama, bare)
    judged = kg.known(tiny_llama, bare, judge=lambda *_: False).why
    assert judged.startswith("1 of 1 prompts dropped: 1 answered wrong, such as ")


def test_no_prompts(tiny_llama):
    with pytest.raises(kg.InputError, match="the prompt set is empty; give at least one Prompt"):
        kg.known(tiny_llama, [])
