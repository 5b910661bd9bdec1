"""Which prompts a run takes: relation by relation, by what the model knows, in which form."""

import json

import pytest

import knockgrid as kg
from knockgrid.engine.answers import Known
from knockgrid.runs import choose
from knockgrid.runs.choose import choose_prompts, in_turn
from knockgrid.runs.running import run
from knockgrid.spec import Spec
from knockgrid.table.left_out import LeftOut


@pytest.fixture
def file(tmp_path):
    """Twelve prompts of three relations, the first of which has the most."""
    sizes = {"a": 6, "b": 4, "c": 2}
    lines = [
        {"id": f"{r}{i}", "text": f"{r} {i} is", "subject": str(i), "answers": ["x"], "relation": r}
        for r, n in sizes.items()
        for i in range(n)
    ]
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.fixture
def knows(monkeypatch):
    """A model that knows the prompts with an even number, and counts what it was asked."""
    asked = []

    def sorted_out(_, prompts, **__):
        asked.extend(prompts)
        even = [int(p.span_text("subject")) % 2 == 0 for p in prompts]
        found = Known(
            tuple(p for p, right in zip(prompts, even, strict=True) if right),
            tuple(p for p, right in zip(prompts, even, strict=True) if not right),
        )
        return found, []

    monkeypatch.setattr(choose, "sorted_out", sorted_out)
    monkeypatch.setattr(choose, "CHUNK", 4)
    return asked


def config(file, **changes):
    return Spec(prompts=str(file), **changes)


@pytest.fixture
def choice(file, tiny_llama):
    """The ids that settings choose, and the counts of the selection."""

    def choose_by(**changes):
        chosen = choose_prompts(config(file, **changes), tiny_llama)
        return " ".join(prompt.id for prompt in chosen.prompts), chosen.selection

    return choose_by


def test_relations_take_turns(file):
    order = " ".join(p.id for p in in_turn(kg.read_prompts(file)))
    assert order == "a0 b0 c0 a1 b1 c1 a2 b2 a3 b3 a4 a5"


@pytest.mark.parametrize(
    ("asked", "ids", "counts", "n_asked"),
    [
        # it stops when it has enough of both
        ({"known": True, "limit": 3, "unknown": 2}, "a0 b0 c0 a1 b1", (8, 5, 3, 2), 8),
        ({"known": True, "limit": 1, "unknown": 5}, "a0 a1 b1 c1 a3 b3", (12, 6, 1, 5), 12),
        ({"known": True}, "a0 b0 c0 a2 b2 a4", (12, 6, 6, 0), 12),
        ({"limit": 4}, "a0 b0 c0 a1", None, 0),
    ],
)
def test_known_and_unknown_prompts_are_counted(choice, knows, asked, ids, counts, n_asked):
    names = ("considered", "known", "known_kept", "unknown_kept")
    assert choice(**asked) == (ids, counts and dict(zip(names, counts, strict=True)))
    assert len(knows) == n_asked


def test_a_model_that_knows_none_is_told_apart_from_no_prompts(file, tiny_llama, monkeypatch):
    nothing = choose.Chosen([], {"known": 0})
    monkeypatch.setattr(choose, "by_knowledge", lambda *_: nothing)
    with pytest.raises(kg.InputError, match=r"answers none of the \d+ right; leave out --known"):
        choose_prompts(config(file, known=True), tiny_llama)


def test_relations_that_are_not_there_leave_nothing(file, tiny_llama):
    with pytest.raises(kg.InputError, match="no prompt is left"):
        choose_prompts(config(file, relations=("z",)), tiny_llama)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"file": "nosuch.jsonl"}, "there is no prompt file 'nosuch.jsonl'"),
        ({"relations": ("z",)}, "no prompt is left"),
        ({"file": "facts", "relations": ("dish_cuisin",)}, "did you mean 'dish_cuisine'"),
    ],
)
def test_prompts_are_refused_before_a_model_is_loaded(file, tmp_path, change, says):
    def load():
        raise AssertionError("a model was loaded")

    with pytest.raises(kg.InputError, match=says):
        run(config(**{"file": file, **change}), tmp_path / "run", load=load)
    assert not (tmp_path / "run").exists()
    with pytest.raises(AssertionError, match="a model was loaded"):
        run(config(file), tmp_path / "run", load=load)


def test_a_hub_is_asked_once(monkeypatch):
    monkeypatch.setattr(choose.datasets, "read_prompts", None)
    choose.check_prompts(config("hf:owner/name:train"))


def test_forms(file, tiny_llama):
    framed = choose_prompts(config(file, form="Well: {}"), tiny_llama).prompts[0]
    assert (framed.text, framed.span_text("subject")) == ("Well: a 0 is", "0")
    with pytest.raises(kg.InputError, match="has no chat template"):
        choose_prompts(config(file, form="chat"), tiny_llama)
    with pytest.raises(kg.InputError, match="unknown form 'chatt'; did you mean 'chat'"):
        choose_prompts(config(file, form="chatt"), tiny_llama)


def test_what_known_drops_is_said_with_counts(file, knows, tiny_llama, tmp_path):
    """Prompts without answers are asked nothing, and count on their own."""
    lines = file.read_text().splitlines()
    bare = [json.dumps({"id": f"d{i}", "text": f"d {i} is", "subject": str(i)}) for i in (0, 2)]
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text("\n".join([*lines, *bare]))
    with pytest.warns(
        LeftOut, match="8 of 14 prompts dropped: 6 answered wrong; 2 without answers"
    ):
        chosen = choose_prompts(config(mixed, known=True), tiny_llama)
    assert chosen.selection["without_answers"] == 2
    assert not [prompt for prompt in knows if not prompt.answers]
    mixed.write_text("\n".join(bare))
    with pytest.raises(kg.InputError, match="none of the 2 prompts has an answer"):
        choose_prompts(config(mixed, known=True), tiny_llama)
