"""The bundled facts and the readers of prompt files."""

import json
from collections import Counter

import pandas as pd
import pytest

from knockgrid import InputError, facts, read_prompts
from knockgrid.prompts.rows import parse


@pytest.fixture(scope="module")
def bundled():
    return facts()


def test_there_are_enough_facts_and_each_is_sound(bundled):
    relations = Counter(prompt.relation for prompt in bundled)
    assert len(bundled) >= 600
    assert len(relations) >= 12
    assert min(relations.values()) >= 10
    assert len({prompt.id for prompt in bundled}) == len(bundled)
    for prompt in bundled:
        assert prompt.answers, prompt.id
        assert prompt.text == prompt.text.strip(), prompt.id
        assert prompt.span_text("subject"), prompt.id
        for answer in prompt.answers:
            copied = len(answer) >= 3 and answer.casefold() in prompt.text.casefold()
            assert not copied, f"{prompt.id}: {answer!r} can be copied from the prompt"


def test_swap_partners_share_the_template_and_no_answer(bundled):
    for prompt in bundled:
        other = prompt.swap
        assert other.relation == prompt.relation, prompt.id
        assert other.span_text("subject") != prompt.span_text("subject"), prompt.id
        assert not {a.casefold() for a in prompt.answers} & {a.casefold() for a in other.answers}
        assert _template(prompt) == _template(other), prompt.id


def _template(prompt):
    start, end = prompt.spans["subject"]
    return prompt.text[:start], prompt.text[end:]


def test_partners_are_equally_long_on_a_tokenizer(demo_model, tiny_tokenizer):
    def equal(prompts, tokenizer):
        def length(prompt):
            return len(tokenizer(prompt.text, add_special_tokens=False)["input_ids"])

        return sum(length(one) == length(one.swap) for one in prompts) / len(prompts)

    assert equal(facts(tokenizer=demo_model.tokenizer), demo_model.tokenizer) > 0.98
    plain = facts("country_language")
    fitted = facts("country_language", tokenizer=tiny_tokenizer)
    assert equal(plain, tiny_tokenizer) < equal(fitted, tiny_tokenizer) <= 1


ROWS = [
    {"id": "a", "template": "{} is in", "subject": "Rome", "answers": ["Italy"], "swap": "b"},
    {"id": "b", "template": "{} is in", "subject": "Lima", "answers": ["Peru", "the Andes"]},
]


def _write(path):
    lines = "\n".join(json.dumps(row) for row in ROWS)
    if path.suffix == ".csv":
        flat = [{**row, "answers": "|".join(row["answers"])} for row in ROWS]
        pd.DataFrame(flat).to_csv(path, index=False)
    elif path.suffix == ".parquet":
        pd.DataFrame(ROWS).to_parquet(path)
    else:
        path.write_bytes(b"\xef\xbb\xbf" + lines.encode() + b"\n\n")
    return path


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_every_kind_of_file_gives_the_same_prompts(tmp_path, kind):
    first, second = read_prompts(_write(tmp_path / f"prompts.{kind}"))
    assert (first.text, first.spans["subject"], first.answers) == ("Rome is in", (0, 4), ("Italy",))
    assert first.swap.id == "b"
    assert second.answers == ("Peru", "the Andes")
    assert second.swap is None


def test_a_data_set_on_disk_is_read_by_split(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "validation.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    prompts = read_prompts(f"hf:{tmp_path / 'data'}:validation")
    assert [prompt.text for prompt in prompts] == ["Rome is in", "Lima is in"]


@pytest.mark.parametrize(
    ("read", "says"),
    [
        (lambda: read_prompts("absent.jsonl"), "there is no prompt file"),
        (lambda: read_prompts("absent.txt"), "kind of prompt file '.txt'"),
        (lambda: facts("country_langage"), "did you mean 'country_language'"),
    ],
)
def test_what_is_not_there_is_refused(read, says):
    with pytest.raises(InputError, match=says):
        read()


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_a_column_of_continuations(tmp_path, kind):
    rows = [
        {"text": "Rome is in", "continuation": " Italy, far from Lima. ", "subject": "Lima"},
        {"text": "Lima is in", "continuation": None, "subject": "Lima"},
    ]
    path = tmp_path / f"prompts.{kind}"
    if kind == "parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif "sv" in kind:
        pd.DataFrame(rows).to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    else:
        text = json.dumps(rows) if kind == "json" else "\n".join(map(json.dumps, rows))
        path.write_text(text, "utf-8")
    first, second = read_prompts(path)
    assert (first.text, first.continuation) == ("Rome is in", " Italy, far from Lima. ")
    assert (first.spans, second.continuation) == ({"subject": (27, 31)}, None)


def test_a_continuation_of_another_name_a_template_and_one_too_long(tmp_path):
    path = tmp_path / "p.jsonl"
    row = {"template": "{} is in", "subject": "Rome", "goes_on": " Italy"}
    path.write_text(json.dumps(row))
    (one,) = read_prompts(path, columns={"goes_on": "continuation"})
    assert (one.whole, one.spans) == ("Rome is in Italy", {"subject": (0, 4)})
    long = {"text": "x" * 2**21, "continuation": "y" * (2**21 + 1)}
    with pytest.raises(InputError, match="its text has 4,194,305 characters, at most 4,194,304"):
        parse(long, "row 1")
