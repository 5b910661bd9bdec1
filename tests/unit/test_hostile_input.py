"""Input that was written to break things, or to run: it is refused in one line, and never run."""

import datetime
import pickle
import sys

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from refusals import refused

from knockgrid import InputError, Prompt, read_prompts
from knockgrid.errors import shown, unknown
from knockgrid.prompts import files, rows

LINE = b'{"text": "Rome is in"}'


@pytest.fixture
def read(tmp_path):
    """Reads prompts from bytes, or from a table."""

    def reader(name, content):
        path = tmp_path / name
        if isinstance(content, pa.Table):
            pq.write_table(content, path)
        else:
            path.write_bytes(content)
        return read_prompts(path)

    return reader


def test_an_error_is_one_short_line_whatever_it_holds():
    error = InputError("Rome\n\x1b[31m\u202e\ud800 \x85" + "x" * 10**6)
    assert str(error).startswith("Rome\\n\\x1b[31m\\u202e\\ud800 \\x85xxx")
    assert len(str(error)) == 1999
    again = pickle.loads(pickle.dumps(error))  # as other processes hand it on
    assert (type(again), str(again)) == (InputError, str(error))


def test_what_was_given_is_shown_short():
    nested = deep = []
    for _ in range(10**5):
        deep.append([])
        deep = deep[0]
    for given in ("é\n" * 10**6, ["x" * 10**6] * 10**4, {"a" * 10**6: 1}, 10**5000, nested):
        assert len(shown(given)) <= 80
        assert shown(given).isprintable()
    assert shown("a" * 200).startswith("'aaa")
    assert len(str(unknown("metric", "m" * 10**6, ["js"]))) < 200


def test_an_ambiguous_span_in_a_long_text_is_told_at_once():
    part = "a" * 10**4  # looking for all places would take quadratic time
    assert "occurs more than 9 times" in refused(Prompt, "a" * 2 * 10**4, spans={"subject": part})
    assert "occurs 2 times" in refused(Prompt, "aba", spans={"subject": "a"})


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "BOM"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_line_ends_and_byte_order_marks(read, start, end):
    rows = [b'{"text": "Rome", "subject": ""}', b"", '{"text": "Łódź"}'.encode(), b""]
    assert [p.text for p in read("a.jsonl", start + end.join(rows))] == ["Rome", "Łódź"]
    rows = [b"text,subject", b'"Rome, is in",Rome', b"Lima,Lima", b""]
    found = read("a.csv", start + end.join(rows))
    assert [p.text for p in found] == ["Rome, is in", "Lima"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"text": "\\ud800"}', "line 2: text '\\ud800' holds half a character"),
        (b'{"text": "a\\u0000b"}', "line 2: text 'a\\x00b' holds a NUL character"),
        (b'{"text": "a\0b"}', "line 2 holds a NUL byte"),
        (b'{"text": "\xff"}', "line 2 is not UTF-8 (byte 10)"),
        (b'{"text": "\xed\xa0\x80"}', "line 2 is not UTF-8"),
        (b"\xef\xbb\xbf" + LINE, "line 2 is not JSON (Unexpected UTF-8 BOM"),
        (b'{"text": "a", "x": ' + b"[" * 10**5 + b"]" * 10**5 + b"}", "nested too deeply"),
        (b'{"text": NaN}', "line 2 is not JSON (NaN is no JSON number"),
        (b'{"text": "a", "x": 1e999}', "the number '1e999' is too large"),
        (b'{"text": "a", "x": ' + b"9" * 10**6 + b"}", "a whole number of 1000000 digits"),
        (b'{"text": "a", "x": {"b": 1, "b": 1}}', "the key 'b' comes twice"),
        (b'{"text": true}', "line 2: text is True"),
        (b'{"text": ["Rome"]}', "line 2: text is ['Rome']"),
        (b'{"text": "a", "answers": [null]}', "without nulls"),
        (b'{"text": "a", "answers": [true]}', "answers is [True]"),
        (b'{"text": "a", "answers": {"b": "c"}}', "answers is {'b': 'c'}"),
        (b'{"text": "abcd", "subject_span": [false, true]}', "subject_span is [False, True]"),
        (b'{"text": "abcd", "subject_span": [0, 1.5]}', "whole numbers"),
        (b'{"text": "abcd", "subject_span": [-1, 2]}', "span 'subject' (-1, 2) lies outside"),
        (b'{"text": "a", "subject_span": [0, ' + b"9" * 200 + b"]}", "lies outside 'a'"),
        (b'{"text": "a", "subject_span": [0, 1, 2]}', "(start, end) in characters"),
        (b'{"text": "a", "spans": [0, 1]}', "spans is [0, 1]"),
        (b'{"text": "a", "spans": {"x": 3}}', "spans is {'x': 3}"),
        (b'{"template": "{} {}", "subject": "a"}', "exactly one {}"),
        (b'{"template": "a", "subject": "a"}', "exactly one {}"),
        (b'{"template": "{} is"}', "there is no 'text'"),
        (b'{"text": "a", "swap": "b", "id": "b"}', "names itself as its swap partner"),
        (b'{"text": "a", "swap": "none"}', "which the file lacks"),
        (b"null", "line 2 is not a JSON object"),
        (LINE + LINE, "line 2 is not JSON (Extra data)"),
        (b'{"text": "' + b"x" * 10**6 + b'", "subject": "y"}', "does not occur in 'xxx"),
        (b'{"' + b"x" * 10**6 + b'": 1}', "there is no 'text'"),
        (b'{"text": "a", "spans": {"' + b"x" * 10**6 + b'": [3, 4]}}', "lies outside"),
        (b'{"text": "a", "answers": [' + b"[]," * 10**5 + b"[]]}", "answers is [[], []"),
        (b'{"text": "a\\u001b[31m", "subject": "b"}', "'a\\x1b[31m'"),
        (b'{"text": ', "line 2 is not JSON"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_hostile_line_is_named(read, line, says):
    assert says in refused(read, "a.jsonl", LINE + b"\n" + line + b"\n")


def test_long_lines(read, monkeypatch):
    """A megabyte is a prompt; what is beyond the limit is not read into memory."""
    (prompt,) = read("a.jsonl", b'{"text": "' + b"Rome " * 200_000 + b'"}')
    assert len(prompt.text) == 10**6
    beyond = b'{"text": "' + b"a" * rows.LONGEST + b'"}'
    message = refused(read, "a.jsonl", LINE + b"\n" + beyond)
    assert message == "a.jsonl line 2 is longer than 4,194,304 bytes; a line is one prompt"
    monkeypatch.setattr(rows, "LONGEST", 4)  # a template makes more of a line
    assert "its text has 5 characters" in refused(
        read, "a.jsonl", b'{"template": "{}c", "subject": "abcd"}'
    )


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32-be", "cp500"])
@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_other_encodings(read, encoding, kind):
    text = LINE.decode() if kind == "jsonl" else "text\nRome is in\n"
    message = refused(read, f"a.{kind}", text.encode(encoding))
    assert "UTF-8" in message or "not JSON" in message
    assert "line 1" in message or "no 'text'" in message
    if encoding == "utf-16":
        assert "looks like UTF-16" in message


TEXTS = ["Rome is in", "Lima is in"]
TWICE = pa.Table.from_arrays([pa.array(TEXTS)] * 2, names=["text", "text"])
RAW = pa.array([b"\xff\xfe"], pa.binary()).buffers()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"text\nRome, the capital of\n", "line 2 has 2 cells and the header 1; quote"),
        (b"text,text\na,b\n", "the column 'text' twice"),
        (b"text;answers\nRome is in;Italy\n", "separated by ';'"),
        (b'text\n"Rome', "line 2 is not CSV"),
        (b'text\n"Rome"x\n', "line 2 is not CSV"),
        (b'text\n"' + b"a" * 200_000 + b'"\n', "field larger than field limit"),
        (b"name\nRome\n", "line 2: there is no 'text'"),
        (b"", "holds no prompts"),
        (b"text\n", "holds no prompts"),
        (b"text\na\0b\n", "line 2 holds a NUL byte"),
        ("text\nŁódź\n".encode() + "Łódź\n".encode("iso8859-2"), "line 3 is not UTF-8 (byte 0)"),
        ({"city": TEXTS}, "no column 'text', 'prompt' or 'template'; it has ['city']"),
        ({"name": TEXTS}, "row 1: there is no 'text'"),  # of LRE it would be the relation
        ({"text": pa.array([b"Rome", b"\xff"])}, "row 1: text is b'Rome' (it should be text, not"),
        ({"text": [{"a": "Rome"}, None]}, "row 1: text is {'a': 'Rome'}"),
        ({"text": [datetime.date(1, 1, 1), None]}, "row 1: text is datetime.date(1, 1, 1)"),
        ({"text": [float("inf"), 1.0]}, "row 1: text is inf"),
        ({"text": pa.array([], pa.string())}, "holds no prompts"),
        ({"text": TEXTS, "spans": [{"subject": [0, 99]}] * 2}, "row 1: span 'subject' (0, 99)"),
        ({"text": TEXTS, "subject_span": [[0.0, float("inf")]] * 2}, "row 1: subject_span is [0.0"),
        ({"text": TEXTS, "answers": [[b"Italy"], []]}, "row 1: answers is [b'Italy']"),
        ({"text": TEXTS, "answers": [[float("nan")], []]}, "row 1: answers is [nan]"),
        (TWICE, "the column 'text' twice"),
        ({"text": pa.StringArray.from_buffers(1, *RAW[1:])}, "is not a Parquet file"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_hostile_table(read, content, says):
    if isinstance(content, bytes):
        assert says in refused(read, "a.csv", content)
    else:
        table = content if isinstance(content, pa.Table) else pa.table(content)
        assert says in refused(read, "a.parquet", table)


def test_cells_are_text(read):
    cells = ['=HYPERLINK("http://a.b")', "=cmd|' /C calc'!A0", "@SUM(1+1)", "+1", "-1"]
    table = pd.DataFrame({"text": cells, "empty": "", "id": list("abcde")})
    found = read("a.csv", table.to_csv(index=False).encode())
    assert [prompt.text for prompt in found] == cells
    for content, text in {
        b"text,,\nRome,,\n": "Rome",  # a spreadsheet's empty columns
        b'text\r\n"Rome\r\nis in"\r\n': "Rome\r\nis in",
    }.items():
        assert read("a.csv", content)[0].text == text


def test_partners_of_partners_are_not_followed(read):
    cycle = b'{"text": "a", "id": "x", "swap": "y"}\n{"text": "b", "id": "y", "swap": "x"}'
    one, other = read("a.jsonl", cycle)
    assert (one.swap.id, other.swap.id, one.swap.swap) == ("y", "x", None)


@pytest.mark.parametrize(
    "name", ["text", "continuation", "spans", "answers", "relation", "group", "id"]
)
@pytest.mark.parametrize("bad", ["\ud800", "a\0"])
def test_a_prompt_in_python_is_as_sound_as_one_from_a_file(name, bad):
    sound = {"text": "a b", "spans": {"subject": "a"}, "answers": ("c",)}
    Prompt(**sound)
    given = {"spans": {bad: "a"}, "answers": (bad,)}.get(name, bad)
    assert name.removesuffix("s")[:4] in refused(Prompt, **{**sound, name: given})


def test_parquet_that_can_be_read(read):
    coded = pa.array(TEXTS).dictionary_encode()
    spans = [{"subject": [0, 4], "verb": None}, {"subject": None, "verb": [5, 7]}]
    # a date that Python has not, in a column that is nobody's business
    other = pa.array([2**62, 2**62], pa.timestamp("us"))
    table = pa.table({"text": coded, "spans": spans, "id": [1, 2], "x": other})
    with pytest.warns(UserWarning, match="columns that are not read: 'x'"):
        one, two = read("a.parquet", table)
    assert (one.id, one.spans) == ("1", {"subject": (0, 4)})
    assert (two.id, two.spans) == ("2", {"verb": (5, 7)})


@pytest.mark.filterwarnings("ignore:numbered", "ignore:.*not read")
def test_parquet_that_unpacks_to_too_much(read, monkeypatch):
    """A kilobyte of file can stand for a gigabyte of rows."""
    table = pa.table({"text": ["Rome is in" * 1000] * 1000, "x": ["y" * 10**6] * 1000})
    assert len(read("a.parquet", table)) == 1000  # what is not read does not count
    monkeypatch.setattr(files, "MOST_ROWS", 999)
    assert "more than 999 rows" in refused(read, "a.parquet", table)
    monkeypatch.setattr(files, "MOST_ROWS", 1000)
    monkeypatch.setattr(files, "MOST_BYTES", 1000)
    assert "or 1,000 bytes of prompts" in refused(read, "a.parquet", table)
    monkeypatch.undo()
    monkeypatch.setattr(sys.modules["knockgrid.prompts.read_prompts"], "MOST_TEXT", 10**6)
    assert "more than 1,000,000 characters" in refused(read, "a.parquet", table)


@pytest.mark.parametrize("cut", [0, 3, 4, 8, 100, -9, -8, -5, -1])
def test_parquet_cut_short(read, tmp_path, cut):
    read("whole.parquet", pa.table({"text": TEXTS}))
    content = (tmp_path / "whole.parquet").read_bytes()
    assert "is not a Parquet file" in refused(read, "a.parquet", content[:cut])


@pytest.mark.filterwarnings("ignore:numbered", "ignore:.*not read")
def test_parquet_damaged_in_every_place(tmp_path):
    """The process must outlive it too: some of what pyarrow tells of a damaged file ends it."""
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"text": TEXTS}).replace_schema_metadata(None), path, store_schema=False
    )
    content = path.read_bytes()
    read, refusals = set(), []
    for place in range(len(content)):
        for value in (0, 255, content[place] ^ 1, content[place] + 16 & 255):
            path.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
            try:
                read.add(len(read_prompts(path)))
            except InputError as error:
                refusals.append(str(error))
    assert {2} <= read <= {1, 2}
    assert len(refusals) > len(content)
    assert all(message.isprintable() and len(message) < 500 for message in refusals)


@pytest.mark.parametrize("number", [10**400, 10**5000, -0.0, 1.5], ids=lambda n: type(n).__name__)
def test_numbers_of_any_size_stand_for_text(number):
    def made():
        return rows.parse({"text": number}, "line 1").prompt.text

    if number == 10**5000:
        assert "line 1: text is a value of type int" in refused(made)
    else:
        assert made() == str(number)
