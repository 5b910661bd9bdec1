"""Any bytes are prompts or settings, or they are refused in one short line, and nothing else."""

import json
import warnings
from contextlib import contextmanager

import hostile
import pytest
from counted import target
from hypothesis import given
from hypothesis import strategies as st

from knockgrid import InputError, Prompt, read_prompts
from knockgrid.prompts.rows import pair_swaps, parse
from knockgrid.runs.study import read_spec

LONGEST_MESSAGE = 600
SOUND = hostile.SOUND_JSONL


@contextmanager
def notes():
    """What is said beside the prompts, each in the form of a refusal."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield
    for one in said:
        told(one.message)


def told(error: InputError | Warning | str) -> None:
    """The message of a refusal or a note: one line, printable, short whatever was given."""
    message = str(error)
    assert message.isprintable()
    assert 10 < len(message) < LONGEST_MESSAGE, message


def sound(prompt: Prompt, partner: bool = True) -> None:
    """A prompt that every later step can work with."""
    names = [prompt.id, prompt.relation, prompt.group]
    for text in [prompt.text, *prompt.answers, *prompt.spans, *(n for n in names if n is not None)]:
        assert isinstance(text, str)
        assert "\0" not in text
        text.encode("utf-8")
    assert prompt.text
    for start, end in prompt.spans.values():
        assert type(start) is type(end) is int
        assert 0 <= start < end <= len(prompt.text)
    if prompt.swap is not None:
        assert partner, "partners of partners are not followed"
        assert prompt.swap.id != prompt.id
        sound(prompt.swap, partner=False)


def all_sound(prompts: list[Prompt]) -> None:
    for prompt in prompts:
        sound(prompt)
    assert len({prompt.id for prompt in prompts}) == len(prompts), "two prompts share an id"


def read(folder, name: str, content: bytes, **options) -> None:
    path = folder / name
    path.write_bytes(content)
    try:
        with notes():
            prompts = read_prompts(path, **options)
    except InputError as error:
        told(error)
    else:
        assert prompts
        all_sound(prompts)
    assert not hostile.Planted.called


ARRAYS = [b"[" + text.encode().replace(b"\n", b",\n") + b"]" for text in SOUND]
CSVS = hostile.joined(hostile.CSV)
FILES = {
    "JSONL files": (
        *(22_000, "p.jsonl"),
        hostile.joined(hostile.JSON) | hostile.damaged([text.encode() for text in SOUND]),
    ),
    "JSON files": (
        *(6_000, "p.json"),
        hostile.joined([*hostile.JSON, b"[", b"]", b'{"rows": [', b", "]) | hostile.damaged(ARRAYS),
    ),
    "TSV files": (2_000, "p.tsv", CSVS.map(lambda content: content.replace(b",", b"\t"))),
    "CSV files": (18_000, "p.csv", CSVS | CSVS.map(b"text,subject\n".__add__)),
    "Parquet files, damaged": (6_000, "p.parquet", hostile.damaged(hostile.SOUND_PARQUET)),
    "Parquet files, any schema": (2_000, "p.parquet", hostile.wrong_schema()),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_of_prompts(folder, kind):
    inputs, name, contents = FILES[kind]

    @given(contents)
    @target(kind, inputs)
    def check(content):
        read(folder, name, content)

    check()


COLUMNS = st.dictionaries(
    st.sampled_from(["text", "text.0", "a", "a.a", "subject", "spans.subject", "id", ""]),
    st.sampled_from(["text", "template", "subject", "subject_span", "spans", "answers", "id"]),
    max_size=2,
)


@given(
    st.lists(hostile.row(), min_size=1, max_size=3),
    COLUMNS,
    st.none() | st.sampled_from(["{}", "In {} is", "[X] is [Y].", "is", "\ud800{}", ""]),
)
@target("rows, any columns and template", 2_000)
def test_columns_and_template(folder, rows, columns, template):
    def plain(value):
        return None if isinstance(value, float) else str(value)[:80]

    lines = "\n".join(json.dumps(one, default=plain) for one in rows)
    read(folder, "p.jsonl", lines.encode(), columns=columns, template=template)


@given(st.lists(hostile.row(), min_size=1, max_size=3))
@target("rows, any values", 8_000)
def test_rows(rows):
    try:
        with notes():
            prompts = pair_swaps(parse(one, f"line {n}") for n, one in enumerate(rows, 1))
    except InputError as error:
        told(error)
    else:
        all_sound(prompts)


JSON_VALUES = st.recursive(
    st.none() | hostile.NUMBERS | hostile.WORDS,
    lambda some: st.lists(some, max_size=3) | st.dictionaries(hostile.WORDS, some, max_size=3),
    max_leaves=5,
)


@given(st.lists(hostile.row(JSON_VALUES), min_size=1, max_size=3), st.booleans())
@target("JSONL files, any values", 3_000)
def test_rows_in_a_file(folder, rows, plain):
    lines = "\n".join(json.dumps(one, ensure_ascii=plain) for one in rows)
    read(folder, "p.jsonl", lines.encode("utf-8", "surrogatepass"))


@given(hostile.joined(hostile.YAML))
@target("YAML settings", 10_000)
def test_yaml(folder, content):
    path = folder / "s.yaml"
    path.write_bytes(content)
    try:
        config = read_spec(path, {})
    except InputError as error:
        told(error)
    else:
        assert json.loads(json.dumps(config.plain())) == config.plain()
        config.digest()
    assert not hostile.Planted.called
