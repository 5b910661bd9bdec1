"""Hostile inputs: fragments that have broken other readers, put together and cut up at random."""

import io
import json
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st


class Planted:
    """What a pickle would call if it were loaded."""

    called = False

    @classmethod
    def call(cls):
        cls.called = True

    def __reduce__(self):
        return (_call, ())


def _call():
    Planted.call()


PICKLES = [pickle.dumps(Planted(), protocol) for protocol in (0, 2, 4)]
BYTES = [
    *(b"", b"\0", b"\n", b"\r\n", b"\r", b"\x1a", b"\x0b", b"\x0c", b"\x1b[2J"),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xff", b"\xc0\x80", b"\xed\xa0\x80"),
    *("\u2028", "\x85", "\u202e", "Łódź", "日本"),
    *('{"text": "Rome is in"}'.encode(e) for e in ("utf-16", "utf-16-le", "utf-32", "cp500")),
    *PICKLES,
]
BYTES = [part if isinstance(part, bytes) else part.encode() for part in BYTES]
JSON = [
    *(b'{"text": "Rome is in"}\n', b'{"text": ', b'"Rome is in", "subject": "Rome"', b"}", b"{"),
    *(b'"\\ud800"', b'"\\u0000"', b'"\\udc00\\ud800"', b'"\\n"', b"NaN", b"-Infinity", b"1e999"),
    *(b"[" * 3000, b'{"a":' * 3000, b"9" * 5000, b"-0", b"true", b"null", b'"' + b"a" * 5000),
    *(b'"text": "a", "text": "b"', b", ", b": ", b'"spans": {"subject": [0, 4]}', b"//", b"'"),
]
CSV = [
    *(b"text,subject,answers\n", b"text\n", b"Rome is in,Rome,Italy|Lazio\n", b",", b'"', b'""'),
    *(b'=HYPERLINK("http://a.b")', b"=cmd|' /C calc'!A0", b"@SUM(1)", b'"Rome\nis in"', b"|"),
    *(b"text,text\n", b"id,swap\n", b"a,a\n", b"\\", b";", b"\t", b"," * 3000, b'"' + b"a" * 5000),
]
YAML = [
    *(b"model: demo\n", b"layers: [0, 1]\n", b"noise: .nan\n", b"noise: 1e3\n", b"seed: 0x_\n"),
    *(b"window: [5, 1]\n", b"a: &a [x, x]\n", b"b: [*a, *a]\n", b"<<: *a\n", b"rows: *a\n"),
    *(b"\t", b": "),
    *(b"!!python/object/apply:os.system ['true']", b"!!timestamp x", b"!!int ''", b"!!binary a"),
    *(b"? [a]\n: b\n", b"- ", b"{", b"[" * 500, b"|\n  a\n", b">", b"%YAML 9\n", b"---\n", b"..."),
    *(b"2001-99-99\n", b"1:30\n", b'"\\ud800"', b'"\\0"', b"seed: " + b"9" * 5000 + b"\n", b"~"),
    *(b"relations: [a, b]\n", b"limit: 0\n", b"=", b"@", b"`", b"*", b"&a ", b"'", b"# "),
]


def joined(fragments: list[bytes]) -> st.SearchStrategy[bytes]:
    """Fragments and random bytes in a row."""
    parts = st.sampled_from([*fragments, *BYTES]) | st.binary(max_size=6)
    return st.lists(parts, max_size=10).map(b"".join)


@st.composite
def damaged(draw, documents: list[bytes]) -> bytes:
    """A sound document with bytes overwritten, cut out, repeated or put in."""
    document = bytearray(draw(st.sampled_from(documents)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(len(document) - 1, 0)))
        size = draw(st.integers(0, 8))
        new = draw(st.binary(max_size=4) | st.sampled_from(BYTES))
        document[start : start + size] = new
    return bytes(document)


NAMES = st.sampled_from(
    ["", "a", "b", "../../etc/passwd", "CON", "a\nb", "$\\frac", "\0", "\ud800", "x" * 5000]
)
WORDS = st.text(st.characters(), max_size=8) | NAMES | st.sampled_from(["Rome", "Rome is in", "{}"])
NUMBERS = (
    st.integers() | st.floats() | st.booleans() | st.sampled_from([10**400, 2**63, -1, 1e308, -0.0])
)
VALUES = st.recursive(
    st.none() | NUMBERS | WORDS | st.binary(max_size=4),
    lambda some: st.lists(some, max_size=3) | st.dictionaries(WORDS, some, max_size=3),
    max_leaves=6,
)
FIELDS = {
    "text": WORDS,
    "prompt": WORDS,
    "template": st.sampled_from(["{} is in", "{} {}", "{}{", "", "{}", "in {}."]),
    "subject": st.sampled_from(["Rome", "is", "Oslo", "", "{}", "R", " "]),
    "subject_span": st.lists(NUMBERS, max_size=3),
    "spans": st.dictionaries(WORDS, st.lists(NUMBERS, max_size=3) | WORDS, max_size=3),
    "answers": st.lists(WORDS, max_size=3) | WORDS,
    "relation": WORDS,
    "group": WORDS,
    "id": st.sampled_from(["a", "b", "c"]) | WORDS,
    "swap": st.sampled_from(["a", "b", "c", "d"]),
}


@st.composite
def row(draw, values: st.SearchStrategy = VALUES) -> dict:
    """A sound row in which some fields are others, or of no right type."""
    made = {"text": "Rome is in Italy", "subject": "Rome", "answers": ["Italy"]}
    for name in draw(st.lists(st.sampled_from(list(FIELDS)), max_size=3)):
        made[name] = draw(FIELDS[name] if draw(st.booleans()) else values)
    for name in draw(st.lists(st.sampled_from(["text", "subject", "answers"]), max_size=1)):
        made.pop(name, None)
    return made


SOUND = [
    {"id": "a", "template": "{} is in", "subject": "Rome", "answers": ["Italy"], "swap": "b"},
    {"id": "b", "template": "{} is in", "subject": "Lima", "answers": ["Peru"], "swap": "a"},
    {"id": "c", "text": "Łódź is in", "spans": {"subject": [0, 4]}, "group": "$x$", "swap": "b"},
]
SOUND_JSONL = ["\n".join(json.dumps(one, ensure_ascii=e) for one in SOUND) for e in (True, False)]


def parquet(table: pa.Table, **options) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    return file.getvalue()


SOUND_PARQUET = [
    parquet(pa.Table.from_pylist(SOUND)),
    parquet(pa.Table.from_pylist(SOUND), compression="zstd", row_group_size=1),
    parquet(pa.table({"text": ["Rome is in"] * 50}), use_dictionary=True, data_page_version="2.0"),
]
TYPES = [
    *(pa.string(), pa.large_string(), pa.binary(), pa.int8(), pa.float64(), pa.bool_(), pa.null()),
    *(pa.dictionary(pa.int8(), pa.string()), pa.list_(pa.string()), pa.list_(pa.int64())),
    *(pa.struct([("subject", pa.list_(pa.int64()))]), pa.map_(pa.string(), pa.string())),
    *(pa.timestamp("ns"), pa.date32(), pa.decimal128(5, 2), pa.list_(pa.list_(pa.binary()))),
]
CELLS = {
    pa.string(): ["Rome is in", "", "a\0b", "=1+1", None],
    pa.binary(): [b"Rome", b"\xff", None],
    pa.int8(): [0, -1, None],
    pa.float64(): [0.0, float("nan"), float("inf"), None],
    pa.bool_(): [True, None],
    pa.null(): [None],
    pa.list_(pa.string()): [["Rome", None], [], None],
    pa.list_(pa.int64()): [[0, 4], [2**62, -1], [None], None],
    pa.struct([("subject", pa.list_(pa.int64()))]): [{"subject": [0, 4]}, {"subject": None}],
    pa.map_(pa.string(), pa.string()): [[("subject", "Rome")], []],
    pa.timestamp("ns"): [0, 2**62, None],
    pa.date32(): [0, 2**31 - 1, None],
    pa.decimal128(5, 2): [1, None],
    pa.list_(pa.list_(pa.binary())): [[[b"\xff"]], None],
}
CELLS[pa.large_string()] = CELLS[pa.dictionary(pa.int8(), pa.string())] = CELLS[pa.string()]


@st.composite
def wrong_schema(draw) -> bytes:
    """A sound Parquet file whose columns have types of their own."""
    names = draw(st.lists(st.sampled_from([*FIELDS, "other", "", "spans.subject"]), max_size=4))
    size = draw(st.integers(0, 3))
    columns = []
    for _ in names:
        kind = draw(st.sampled_from(TYPES))
        cells = draw(st.lists(st.sampled_from(CELLS[kind]), min_size=size, max_size=size))
        columns.append(pa.array(cells, kind))
    return parquet(pa.table(columns, names=names))
