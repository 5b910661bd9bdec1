"""Positions named by their role in the answer, against a hand count and the tokenizer."""

import pytest

import knockgrid as kg
from knockgrid.passes.answer_positions import answer_positions, is_answer_position, shortest_span


class Pieces:
    """A tokenizer of fixed pieces of bytes, so that spans can be counted by hand."""

    def __init__(self, *pieces):
        self.pieces = [one if isinstance(one, bytes) else one.encode() for one in pieces]

    def decode(self, ids):
        return b"".join(self.pieces[i] for i in ids).decode("utf-8", "replace")


LETTERS = Pieces(" It", " is", " Par", "is", " now", ".", "\n", " paris", " Lyon")


def prompt(*answers):
    return kg.Prompt("Where", answers=answers)


def test_names_follow_the_published_indices():
    """q tokens of prompt: last_q = q - 1, first_answer = q, second_answer = q + 1."""
    found = answer_positions(LETTERS, prompt("Paris"), [0, 1, 2, 3, 4, 5], 10)
    assert (found["last_q"], found["first_answer"], found["second_answer"]) == (9, 10, 11)
    parts = ("before_first", "first", "last", "after_last")
    assert [found[f"exact_answer_{part}"] for part in parts] == [11, 12, 13, 14]
    assert (found["-1"], found["-6"], found["-8"]) == (15, 10, 8)


def test_the_first_mention_and_the_shortest_span_count():
    assert shortest_span(LETTERS, [4, 7, 2, 3], ["Paris"]) == range(1, 2)
    assert shortest_span(LETTERS, [0, 1, 2, 3, 7], ["PARIS"]) == range(2, 4)
    assert shortest_span(LETTERS, [8, 2, 3], ["Paris", "Lyon"]) == range(0, 1)


def test_an_answer_inside_another_word_is_no_mention():
    words = Pieces(" the", " Roman", " Empire", " then", " Oman")
    assert shortest_span(words, [0, 1, 2, 3, 4], ["Oman"]) == range(4, 5)
    assert shortest_span(words, [0, 1, 2], ["Oman"]) is None


def test_the_last_byte_of_a_character_belongs_to_its_span():
    """A byte token is written as a placeholder, as long as the character that it begins."""
    characters = Pieces(b" \xe6", b"\x9d", b"\xb1", "京", ".")
    assert shortest_span(characters, [0, 1, 2, 3, 4], ["東京"]) == range(0, 4)
    assert shortest_span(characters, [3, 0, 1, 2, 4], ["東"]) == range(1, 4)


def test_an_answer_at_the_end_has_no_token_after_it():
    found = answer_positions(LETTERS, prompt("Paris"), [2, 3], 4)
    assert found["exact_answer_after_last"] == found["exact_answer_last"] == 5
    assert found["exact_answer_before_first"] == found["last_q"] == 3


def test_nothing_is_guessed():
    for answers in (("Berlin",), ()):
        found = answer_positions(LETTERS, prompt(*answers), [0, 1], 4)
        assert not [name for name in found if name.startswith("exact")]
    short = answer_positions(LETTERS, prompt("Paris"), [0], 4)
    assert "second_answer" not in short
    assert "first_answer" in short


def test_what_is_a_name_of_the_answer():
    names = ("last_q", "-3", "exact_answer_last")
    others = ("last", "-0", "-x", -1, "exact_answer", "1")
    assert all(map(is_answer_position, names))
    assert not any(map(is_answer_position, others))


def test_cells_are_measured_right_after_their_position(sweep, tower):
    family = kg.per_position(
        kg.patch("resid_post", "last", kg.zero()), ["subject_last", "last_q", "first_answer", "-1"]
    )
    table = sweep(tower, family, layers=[0, 1], n_tokens=4)
    tokens = table.groupby("position", sort=False)["token"].unique().map(list).to_dict()
    assert tokens == {"subject_last": [0], "last_q": [0], "first_answer": [1], "-1": [3]}
    assert (table.js > 1e-9).all()  # at token 0 a position of the answer would be 0 by causality


def test_absent_places_are_na_and_not_0(sweep, prompts):
    named = kg.Prompt("Lima is the capital of Peru", spans={"subject": "Lima", "land": "Peru"})
    family = kg.per_position(kg.patch("resid_post", "last"), ["land", "exact_answer_first"])
    table = sweep([prompts[0], named.replace(answers=["zzz"])], family, layers=[1], n_tokens=3)
    status = dict(zip(zip(table.prompt, table.position, strict=True), table.status, strict=True))
    assert status["france", "land"] == "NA: the prompt has no 'land'"
    assert status[named.id, "land"] == "ok"
    assert {s for (_, at), s in status.items() if at == "exact_answer_first"} == {
        "NA: the answer is not in the output"
    }
    assert kg.grid(table, rows="layer", columns="position")["exact_answer_first"].isna().all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": ["subject_lost"], "n_tokens": 3}, "unknown position 'subject_lost'"),
        ({"positions": ["first_answer"]}, "give n_tokens=2 or more"),
        (
            {"positions": ["-1"], "n_tokens": 3, "source": "mean_activation"},
            "taken over the prompts",
        ),
        ({"positions": ["-1"], "n_tokens": 3, "mode": "free_run"}, "placed in the clean answer"),
        ({"positions": ["last", "last"]}, "each once"),
        ({"positions": [-1]}, "counts from the end, of the prompt or of its answer"),
    ],
)
def test_bad_positions(sweep, tower, options, message):
    source = kg.mean_activation() if options.pop("source", None) else None
    one, positions = kg.patch("resid_post", "last", source), options.pop("positions")
    with pytest.raises(kg.InputError, match=message):
        sweep(tower, kg.per_position(one, positions), layers=[0], **options)


def test_a_kind_is_tried_even_where_the_trial_prompt_lacks_its_place(sweep, tower):
    """Which places the answer has is known only after the clean run."""
    family = kg.per_position(kg.patch("resid_post", "last"), ["exact_answer_first"])
    prompt = tower.replace(answers=["zzz"])
    table = sweep(prompt, family, layers=[1], n_tokens=3)
    receipt = table.attrs["knockgrid"]["receipt"]
    assert receipt["maximal_effects"]["patch resid_post"] > 0
    assert receipt["unseen"] == []
    assert table["js"].isna().all()  # the column is there, with nothing in it
    ax = kg.position_heatmap(table)
    assert ax.get_legend().get_texts()[0].get_text() == "NA: the answer is not in the output"
