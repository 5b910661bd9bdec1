"""Positions: names and spans to token indices, on the edge cases that are easily got wrong."""

import copy
import json
from pathlib import Path

import pytest

import knockgrid as kg
from knockgrid.passes.prepared import prepare
from knockgrid.prompts.positions import lacks, resolve, tokenize, tokenize_prompt

DATA = Path(__file__).parents[1] / "data" / "edge_cases.jsonl"
ROWS = [json.loads(line) for line in DATA.read_text("utf-8").splitlines()]
assert len(ROWS) == 13


@pytest.fixture
def tower():
    return kg.Prompt(
        "The Eiffel Tower is located in the city of",
        spans={"subject": "The Eiffel Tower", "place": "the city"},
    )


@pytest.mark.parametrize("prepend_bos", [False, True])
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["category"])
def test_edge_case(demo_model, row, prepend_bos):
    """Every row names its subject tokens without BOS; with BOS each is one further."""
    tokenizer = demo_model.tokenizer
    prompt = kg.Prompt(row["prompt"], spans={"subject": tuple(row["subject_span"])})
    tokens = tokenize(prompt.text, tokenizer, prepend_bos)
    by = int(prepend_bos)
    assert tokenizer.convert_ids_to_tokens(tokens.ids[by:]) == row["tokens"]
    assert len(tokens) == row["n_tokens"] + by
    assert tokens.ids[:by] == (tokenizer.bos_token_id,) * by
    subject, last = tuple(i + by for i in row["subject_tokens"]), len(tokens) - 1
    expected = {
        "subject": subject,
        "subject_first": subject[:1],
        "subject_last": subject[-1:],
        "last": (last,),
        "all": tuple(range(len(tokens))),
        "bos": (0,) * by,
        "rest": tuple(i for i in range(by, last) if i not in subject),
        "between": tuple(range(subject[-1] + 1, last)),
    }
    assert expected == {
        at: kg.token_positions(prompt, at, tokenizer, prepend_bos) for at in expected
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["category"])
def test_a_subject_by_its_text(row):
    """A unique text gives the same span; one that occurs more often is refused."""
    if row["n_occurrences"] == 1:
        prompt = kg.Prompt(row["prompt"], spans={"subject": row["subject"]})
        assert prompt.spans["subject"] == tuple(row["subject_span"])
    else:
        with pytest.raises(kg.InputError, match=f"occurs {row['n_occurrences']} times"):
            kg.Prompt(row["prompt"], spans={"subject": row["subject"]})


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("place", (7, 8)),
        ("place_first", (7,)),
        ("place_last", (8,)),
        (0, (0,)),
        (-1, (9,)),
        ("last", (9,)),
        (["last", "subject", -1, 2], (1, 2, 3, 9)),
        ("rest", (4, 5, 6)),
    ],
)
def test_other_spans_indices_and_lists(tiny_tokenizer, tower, place, found):
    """Of <s> The Eiffel Tower is located in the city of."""
    assert kg.token_positions(tower, place, tiny_tokenizer, True) == found


@pytest.mark.parametrize(
    ("text", "span", "tokens"),
    [
        ("The Eiffel Tower is", (6, 12), (2, 3)),  # "iffel T": whole tokens
        ("The capital of France is", (14, 15), (4,)),  # a leading space counts with its token
    ],
)
def test_spans_take_whole_tokens(tiny_tokenizer, text, span, tokens):
    prompt = kg.Prompt(text, spans={"subject": span})
    assert kg.token_positions(prompt, "subject", tiny_tokenizer, True) == tokens


def test_a_text_that_brings_its_bos_gets_no_second_one(tiny_tokenizer):
    with_bos = tokenize("<s>The capital of France is", tiny_tokenizer, True)
    assert with_bos.ids == tokenize("The capital of France is", tiny_tokenizer, True).ids
    prompt = kg.Prompt("<s>The capital of France is", spans={"subject": "France"})
    assert kg.token_positions(prompt, "subject", tiny_tokenizer, True) == (4,)
    assert kg.token_positions(prompt, "bos", tiny_tokenizer, True) == (0,)


def refused(prompt, at, tokenizer, **options):
    with pytest.raises(kg.InputError) as caught:
        kg.token_positions(prompt, at, tokenizer, **{"prepend_bos": True, **options})
    return str(caught.value)


@pytest.mark.parametrize(
    ("at", "parts"),
    [
        ("lost", ["position 'lost'", "did you mean 'last'? Allowed: last, all,"]),
        ("plcae", ["did you mean 'place'?"]),
        (10, ["position 10 is out of range", "has 10 tokens"]),
        (-11, ["position -11 is out of range"]),
    ],
)
def test_a_place_that_the_prompt_lacks(tiny_tokenizer, tower, at, parts):
    message = refused(tower, at, tiny_tokenizer)
    assert all(part in message for part in parts), message
    for subject in ("subject", "subject_last", "subject_first"):
        message = refused(kg.Prompt("Rome is"), subject, tiny_tokenizer)
        assert message.startswith("prompt 'Rome is' has no span 'subject'")


@pytest.mark.parametrize("prepends", [True, False])
def test_a_model_counts_bos_as_its_sweep_does(prepends):
    """Pythia, Qwen and others get none in front; the index of the subject is that of the side."""
    model = kg.load("demo")
    before = model.cfg.default_prepend_bos
    prompt = kg.Prompt("In Peru, people speak", spans={"subject": "Peru"})
    try:
        model.cfg.default_prepend_bos = prepends
        at = kg.token_positions(prompt, "subject", model)
        table = kg.sweep(
            model, prompt, kg.patch("resid_post", "subject", kg.zero()), layers=[3], progress=False
        )
    finally:
        model.cfg.default_prepend_bos = before
    assert at == ((2,) if prepends else (1,))
    assert list(at) == table.attrs["knockgrid"]["prompts"][0]["subject_tokens"]


def test_a_tokenizer_alone_cannot_know_of_bos(tiny_tokenizer, tower):
    message = refused(tower, "subject", tiny_tokenizer, prepend_bos=None)
    assert "give the model, or prepend_bos=" in message
    bare = copy.deepcopy(tiny_tokenizer)
    bare.bos_token = None
    assert kg.token_positions(tower, "subject", bare) == (0, 1, 2)  # there is none to put in front
    assert "has no BOS token; pass prepend_bos=False" in refused(tower, "last", bare)


def test_a_span_without_a_token(tiny_tokenizer):
    """Characters that the tokenizer drops belong to no token."""
    from tokenizers import normalizers

    dropping = copy.deepcopy(tiny_tokenizer)
    dropping.backend_tokenizer.normalizer = normalizers.Replace("!", "")
    prompt = kg.Prompt("The capital! of", spans={"mark": (11, 12)})
    message = refused(prompt, "mark", dropping)
    assert message == "no token overlaps span 'mark' of 'The capital! of'"


GIVEN = kg.Prompt(
    "The capital of Italy is",
    continuation=" Rome. It is in Italy, too",
    spans={"subject": "capital", "city": "Rome", "verb": "is Rome", "too": "too"},
)


def split(prompt, tokenizer, prepend_bos=True):
    tokens = tokenize_prompt(prompt, tokenizer, prepend_bos)
    to_text = tokenizer.convert_ids_to_tokens
    return to_text(list(tokens.ids)), to_text(list(tokens.given))


def test_a_continuation_has_the_tokens_that_follow_the_prompt(tiny_tokenizer):
    own, given = split(GIVEN, tiny_tokenizer)
    assert own == ["<s>", "The", "Ġcapital", "Ġof", "ĠItaly", "Ġis"]
    assert given[:2] == ["ĠRome", "."]
    tokens = tokenize_prompt(GIVEN, tiny_tokenizer)
    alone = tokenize(GIVEN.text, tiny_tokenizer)
    assert (len(tokens), tokens.ids, tokens.offsets) == (6, alone.ids, alone.offsets)
    assert (alone.given, alone.given_offsets, alone.n_all) == ((), (), 6)
    assert tokens.ids + tokens.given == tokenize(GIVEN.whole, tiny_tokenizer).ids
    assert tokens.given_offsets[:2] == ((23, 28), (28, 29))
    assert tokens.n_all == 6 + len(tokens.given_offsets)
    assert tokens.given_offsets[-1][1] == len(GIVEN.whole)
    assert tokenize_prompt(GIVEN.replace(continuation=None, spans={}), tiny_tokenizer) == alone


@pytest.mark.parametrize(
    ("text", "continuation", "given", "alone"),
    [
        ("He said (", "Paris", ["Paris"], ["▁Paris"]),
        ("The capital", " of France is", ["▁of", "▁France", "▁is"], ["▁of", "▁France", "▁is"]),
        ("首都は", "東京", ["東", "京"], ["▁", "東", "京"]),
    ],
)
def test_what_counts_are_the_tokens_after_the_prompt(pieces, text, continuation, given, alone):
    """SentencePiece puts a space before a text, and none before what goes on."""
    assert split(kg.Prompt(text, continuation=continuation), pieces)[1] == given
    ids = tokenize(continuation, pieces, False).ids
    assert pieces.convert_ids_to_tokens(list(ids)) in (alone, given, ["▁", *alone])


@pytest.mark.parametrize(
    ("text", "continuation", "parts"),
    [
        ("The capital of ", "Italy", ["' Italy'", "move the white space from the prompt's end"]),
        ("The cap", "ital of", ["' capital'", "let the prompt end where a word ends"]),
    ],
)
def test_a_token_over_the_end_is_refused(tiny_tokenizer, demo_model, text, continuation, parts):
    prompt = kg.Prompt(text, continuation=continuation)
    for tokenizer in (tiny_tokenizer, demo_model.tokenizer):
        message = refused(prompt, "last", tokenizer)
        begin = f"the continuation {continuation!r} changes the tokens of {text!r}: both together"
        assert message.startswith(begin)
        assert [part for part in parts if part not in message] == []


@pytest.mark.parametrize(
    ("text", "continuation", "part"),
    [
        ("The capital of ", "Italy", "' Italy'"),
        ("He sa", "id (", "' said'"),
        ("The ЖЖ", "Ж is", "'ЖЖЖ'"),  # the unknown ones are one token, however many
    ],
)
def test_a_token_over_the_boundary_of_sentencepiece(pieces, text, continuation, part):
    assert part in refused(kg.Prompt(text, continuation=continuation), "last", pieces)


def test_a_boundary_without_a_token_over_it(tiny_tokenizer):
    """Where later characters change an earlier token, that one is shown."""
    from tokenizers import Regex, normalizers

    changing = copy.deepcopy(tiny_tokenizer)
    changing.backend_tokenizer.normalizer = normalizers.Replace(Regex("x(?= Rome)"), "The")
    message = refused(kg.Prompt("a x", continuation=" Rome"), "last", changing)
    assert "both together have a token 'x' there; let the prompt end" in message
    dropping = copy.deepcopy(tiny_tokenizer)
    dropping.backend_tokenizer.normalizer = normalizers.Replace("!", "")
    message = refused(kg.Prompt("The capital", continuation="!!"), "last", dropping)
    expected = "the continuation '!!' has no tokens after 'The capital'; give one with a word in it"
    assert message == expected


def test_places_in_a_continuation(tiny_tokenizer):
    n = 6 + len(tokenize_prompt(GIVEN, tiny_tokenizer).given)
    too = kg.token_positions(GIVEN, "too", tiny_tokenizer, True)
    assert too[-1] == n - 1
    spans = {2, 5, 6, *too}
    expected = {
        "subject": (2,),
        "city": (6,),
        "city_last": (6,),
        "verb": (5, 6),  # over the boundary
        "last": (5,),
        "all": tuple(range(n)),
        "bos": (0,),
        "between": (3, 4),
        "rest": tuple(i for i in range(1, n) if i not in spans),
    }
    found = {at: kg.token_positions(GIVEN, at, tiny_tokenizer, True) for at in expected}
    assert found == expected
    (random,) = kg.token_positions(GIVEN, "random", tiny_tokenizer, True)
    assert random in (1, 3, 4)
    assert 7 in found["rest"]


def test_indices_reach_a_continuation_and_negative_ones_do_not(tiny_tokenizer):
    tokens = tokenize_prompt(GIVEN, tiny_tokenizer)
    n = tokens.n_all
    assert resolve(GIVEN, tokens, [-1, 6, n - 1]) == (5, 6, n - 1)
    assert lacks(GIVEN, tokens, n - 1) is None
    assert lacks(GIVEN, tokens, n) == f"the prompt has no position {n}"
    message = refused(GIVEN, n, tiny_tokenizer)
    assert message.endswith(f"has 6 tokens and {n - 6} of its continuation")
    assert "position -7 is out of range" in refused(GIVEN, -7, tiny_tokenizer)
    bare = GIVEN.replace(continuation=None, spans={})
    assert refused(bare, 6, tiny_tokenizer).endswith("has 6 tokens")


def test_a_span_of_the_continuation_needs_its_tokens(tiny_tokenizer):
    message = "no token overlaps span 'too' of 'The capital of Italy is Rome. It is in Italy, too'"
    with pytest.raises(kg.InputError, match=message):
        resolve(GIVEN, tokenize(GIVEN.text, tiny_tokenizer), "too")


def test_a_prompt_is_prepared_with_its_continuation(tiny_llama):
    (one,) = prepare(tiny_llama, GIVEN, True, 1)
    assert one.tokens == tokenize_prompt(GIVEN, tiny_llama.tokenizer)
    long = kg.Prompt("The capital of Italy is", continuation=" Rome" * 124, id="long")
    with pytest.raises(kg.InputError, match="'long' needs 130 tokens.*holds 128"):
        prepare(tiny_llama, long, True, 1)
    fits = long.replace(continuation=" Rome" * 122)
    assert prepare(tiny_llama, fits, True, 1)[0].tokens.n_all == 128
