"""Input that was written to break things, or to run: it is refused in one line, and never run."""

import datetime
import json
import os
import pickle
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from matplotlib import cbook, rc_context
from matplotlib.figure import Figure
from matplotlib.text import Text
from transformers import LlamaConfig, LlamaForCausalLM

import knockgrid as kg
from knockgrid import InputError, Prompt, read_prompts
from knockgrid.cli.reproduce import SETTINGS, kept
from knockgrid.display.escape import file_name, html, latex, spreadsheet
from knockgrid.prompts import (
    lines as _lines,
)
from knockgrid.prompts import (
    parquet_file as _parquet,
)
from knockgrid.prompts import (
    read_prompts as _read_prompts,
)
from knockgrid.prompts import (
    rows as _rows,
)
from knockgrid.report.draw import draw
from knockgrid.report.evidence import of_main
from knockgrid.report.references import bibtex
from knockgrid.runs import config as settings
from knockgrid.runs.config import SweepConfig, read_config
from knockgrid.table.table import build

LINE = b'{"text": "Rome is in"}'


class MakesAFolder:
    """What a hostile pickle does when it is loaded."""

    def __init__(self, folder: Path):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def refused(call, *args, **kwargs) -> str:
    """The message of a refusal: one line, printable, short whatever was given."""
    started = time.process_time()
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 500
    assert time.process_time() - started < 2.0
    return message


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


# errors


def test_an_error_is_one_short_line_whatever_it_holds():
    error = InputError("Rome\n\x1b[31m\u202e\ud800 \x85" + "x" * 10**6)
    assert str(error).startswith("Rome\\n\\x1b[31m\\u202e\\ud800 \\x85xxx")
    assert len(str(error)) == 1999
    again = pickle.loads(pickle.dumps(error))  # as other processes hand it on
    assert (type(again), str(again)) == (InputError, str(error))


def test_what_was_given_is_shown_short():
    from knockgrid.errors import shown, unknown

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


# prompt files of text


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "BOM"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_line_ends_and_byte_order_marks(read, start, end):
    rows = [b'{"text": "Rome"}', b"", b'{"text": "\xc5\x81\xc3\xb3d\xc5\xba"}', b""]
    assert [p.text for p in read("a.jsonl", start + end.join(rows))] == ["Rome", "Łódź"]
    rows = [b"text,subject", b'"Rome, is in",Rome', b"Lima,Lima", b""]
    found = read("a.csv", start + end.join(rows))
    assert [p.text for p in found] == ["Rome, is in", "Lima"]


def test_a_line_break_in_a_quoted_cell_is_kept(read):
    (prompt,) = read("a.csv", b'text\r\n"Rome\r\nis in"\r\n')
    assert prompt.text == "Rome\r\nis in"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"text": "\\ud800"}', "line 2: text '\\\\ud800' holds half a character"),
        (b'{"text": "a", "answers": ["\\udfff"]}', r"line 2: answer '\\udfff' holds half"),
        (b'{"text": "a", "id": "\\ud800"}', r"line 2: id '\\ud800' holds half"),
        (b'{"text": "a", "spans": {"\\ud800": [0, 1]}}', "line 2: span name"),
        (b'{"text": "a\\u0000b"}', "line 2: text 'a\\\\x00b' holds a NUL character"),
        (b'{"text": "a", "id": "\\u0000"}', "line 2: id '\\\\x00' holds a NUL"),
        (b'{"text": "a\0b"}', "line 2 holds a NUL byte"),
        (b'{"text": "\xff"}', "line 2 is not UTF-8 (byte 10)"),
        (b'{"text": "\xed\xa0\x80"}', "line 2 is not UTF-8"),
        (b"\xef\xbb\xbf" + LINE, "line 2 is not JSON (Unexpected UTF-8 BOM"),
        (b"[" * 10**5, "line 2 is JSON nested too deeply"),
        (b'{"text": "a", "x": ' + b"[" * 10**5 + b"]" * 10**5 + b"}", "nested too deeply"),
        (b'{"text": NaN}', "line 2 is not JSON (NaN is no JSON number"),
        (b'{"text": "a", "x": -Infinity}', "-Infinity is no JSON number"),
        (b'{"text": "a", "x": 1e999}', "the number '1e999' is too large"),
        (b'{"text": "a", "x": ' + b"9" * 10**6 + b"}", "a whole number of 1000000 digits"),
        (b'{"text": "a", "text": "b"}', "the key 'text' comes twice"),
        (b'{"text": "a", "x": {"b": 1, "b": 1}}', "the key 'b' comes twice"),
        (b'{"text": true}', "line 2: text is True"),
        (b'{"text": ["Rome"]}', "line 2: text is ['Rome']"),
        (b'{"text": "a", "answers": [null]}', "without nulls"),
        (b'{"text": "a", "answers": [true]}', "answers is [True]"),
        (b'{"text": "a", "answers": {"b": "c"}}', "answers is {'b': 'c'}"),
        (b'{"text": "abcd", "subject_span": [false, true]}', "subject_span is [False, True]"),
        (b'{"text": "abcd", "subject_span": [0, 1.5]}', "whole numbers"),
        (b'{"text": "abcd", "subject_span": [-1, 2]}', "span 'subject' (-1, 2) lies outside"),
        (b'{"text": "abcd", "subject_span": [2, 2]}', "half-open and not empty"),
        (b'{"text": "abcd", "subject_span": [0, 9]}', "which has 4 characters"),
        (b'{"text": "a", "subject_span": [0, ' + b"9" * 200 + b"]}", "lies outside 'a'"),
        (b'{"text": "a", "subject_span": [0, 1, 2]}', "(start, end) in characters"),
        (b'{"text": "a", "spans": [0, 1]}', "spans is [0, 1]"),
        (b'{"text": "a", "spans": {"x": 3}}', "spans is {'x': 3}"),
        (b'{"text": "a", "subject": ""}', None),
        (b'{"text": "a", "spans": {"x": ""}}', "span 'x' is empty"),
        (b'{"template": "{} {}", "subject": "a"}', "exactly one {}"),
        (b'{"template": "a", "subject": "a"}', "exactly one {}"),
        (b'{"template": "{} is"}', "there is no 'text'"),
        (b'{"text": "a", "swap": "b", "id": "b"}', "names itself as its swap partner"),
        (b'{"text": "a", "swap": "none"}', "which the file lacks"),
        (b"null", "line 2 is not a JSON object"),
        (b'"Rome"', "line 2 is not a JSON object"),
        (LINE + LINE, "line 2 is not JSON (Extra data)"),
        (b'{"text": "' + b"x" * 10**6 + b'", "subject": "y"}', "does not occur in 'xxx"),
        (b'{"' + b"x" * 10**6 + b'": 1}', "there is no 'text'"),
        (b'{"text": "a", "spans": {"' + b"x" * 10**6 + b'": [3, 4]}}', "lies outside"),
        (b'{"text": "a", "answers": [' + b"[]," * 10**5 + b"[]]}", "answers is [[], []"),
        (b'{"text": "a\\u001b[31m", "subject": "b"}', "'a\\\\x1b[31m'"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_hostile_line_is_named(read, line, says):
    content = LINE + b"\n" + line + b"\n"
    if says is None:
        assert len(read("a.jsonl", content)) == 2
        return
    assert says.replace("\\\\", "\\") in refused(read, "a.jsonl", content)


def test_long_lines(read, monkeypatch):
    """A megabyte is a prompt; what is beyond the limit is not read into memory."""
    (prompt,) = read("a.jsonl", b'{"text": "' + b"Rome " * 200_000 + b'"}')
    assert len(prompt.text) == 10**6
    beyond = b'{"text": "' + b"a" * _lines.LONGEST + b'"}'
    message = refused(read, "a.jsonl", LINE + b"\n" + beyond)
    assert message == "a.jsonl line 2 is longer than 4,194,304 bytes; a line is one prompt"
    monkeypatch.setattr(_rows, "LONGEST", 4)  # a template makes more of a line
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


def test_a_file_of_mixed_encodings(read):
    mixed = "text\nŁódź\n".encode() + "Łódź\n".encode("iso8859-2")
    assert "line 3 is not UTF-8 (byte 0)" in refused(read, "a.csv", mixed)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"text\nRome, the capital of\n", "line 2 has 2 cells and the header 1; quote"),
        (b"text,text\na,b\n", "the column 'text' twice"),
        (b'text\n"Rome', "line 2 is not CSV"),
        (b'text\n"Rome"x\n', "line 2 is not CSV"),
        (b'text\n"' + b"a" * 200_000 + b'"\n', "field larger than field limit"),
        (b"name\nRome\n", "line 2: there is no 'text'"),
        (b"", "holds no prompts"),
        (b"text\n", "holds no prompts"),
        (b"text\na\0b\n", "line 2 holds a NUL byte"),
    ],
)
def test_a_hostile_csv(read, content, says):
    assert says in refused(read, "a.csv", content)


def test_formulas_are_text(read):
    cells = ['=HYPERLINK("http://a.b")', "=cmd|' /C calc'!A0", "@SUM(1+1)", "+1", "-1"]
    table = pd.DataFrame({"text": cells, "empty": "", "id": list("abcde")})
    found = read("a.csv", table.to_csv(index=False).encode())
    assert [prompt.text for prompt in found] == cells
    (prompt,) = read("a.csv", b"text,,\nRome,,\n")  # a spreadsheet's empty columns
    assert prompt.text == "Rome"


def test_ids_come_once(read):
    twice = b'{"text": "a", "id": "x"}\n{"text": "b", "id": "x"}'
    with pytest.warns(UserWarning, match="numbered 1 of 2 prompts.*'x' at a.jsonl line 1 and a.js"):
        assert [prompt.id for prompt in read("a.jsonl", twice)] == ["x", "x-2"]
    swapped = twice + b'\n{"text": "c", "swap": "x"}'
    assert "'x', an id at ['a.jsonl line 1', 'a.js" in refused(read, "a.jsonl", swapped)
    cycle = b'{"text": "a", "id": "x", "swap": "y"}\n{"text": "b", "id": "y", "swap": "x"}'
    one, other = read("a.jsonl", cycle)
    assert (one.swap.id, other.swap.id, one.swap.swap) == ("y", "x", None)


def test_a_prompt_in_python_is_as_sound_as_one_from_a_file():
    sound = {"text": "a b", "spans": {"subject": "a"}, "answers": ("c",)}
    bad = [
        {"text": "\ud800"},
        {"text": "a\0"},
        {"spans": {"\ud800": "a"}},
        {"answers": ("\ud800",)},
        {"relation": "\ud800"},
        {"group": "\0"},
        {"id": "\ud800"},
    ]
    Prompt(**sound)
    for changes in bad:
        assert next(iter(changes)).removesuffix("s")[:4] in refused(Prompt, **{**sound, **changes})


# Parquet


TEXTS = ["Rome is in", "Lima is in"]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"city": TEXTS}, "no column 'text', 'prompt' or 'template'; it has ['city']"),
        ({"name": TEXTS}, "row 1: there is no 'text'"),  # of LRE it would be the relation
        ({"text": pa.array([b"Rome", b"\xff"])}, "row 1: text is b'Rome' (it should be text, not"),
        ({"text": [["Rome"], ["Lima"]]}, "row 1: text is ['Rome']"),
        ({"text": [{"a": "Rome"}, None]}, "row 1: text is {'a': 'Rome'}"),
        ({"text": [datetime.date(1, 1, 1), None]}, "row 1: text is datetime.date(1, 1, 1)"),
        ({"text": [True, None]}, "row 1: text is True"),
        ({"text": [float("inf"), 1.0]}, "row 1: text is inf"),
        ({"text": [None, "Rome"]}, "row 1: there is no 'text'"),
        ({"text": pa.array([], pa.string())}, "holds no prompts"),
        ({"text": TEXTS, "spans": [{"subject": [0, 99]}] * 2}, "row 1: span 'subject' (0, 99)"),
        ({"text": TEXTS, "subject_span": [[0.0, float("inf")]] * 2}, "row 1: subject_span is [0.0"),
        ({"text": TEXTS, "answers": [[b"Italy"], []]}, "row 1: answers is [b'Italy']"),
        ({"text": TEXTS, "answers": [[float("nan")], []]}, "row 1: answers is [nan]"),
    ],
)
def test_parquet_of_another_schema(read, columns, says):
    assert says in refused(read, "a.parquet", pa.table(columns))


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


def test_parquet_with_a_column_twice(read):
    twice = pa.Table.from_arrays([pa.array(TEXTS)] * 2, names=["text", "text"])
    assert "the column 'text' twice" in refused(read, "a.parquet", twice)


def test_parquet_text_that_is_not_utf8(read):
    raw = pa.array([b"\xff\xfe"], pa.binary())
    bad = pa.StringArray.from_buffers(1, raw.buffers()[1], raw.buffers()[2])
    assert "is not a Parquet file" in refused(read, "a.parquet", pa.table({"text": bad}))


@pytest.mark.filterwarnings("ignore:numbered", "ignore:.*not read")
def test_parquet_that_unpacks_to_too_much(read, monkeypatch):
    """A kilobyte of file can stand for a gigabyte of rows."""
    table = pa.table({"text": ["Rome is in" * 1000] * 1000, "x": ["y" * 10**6] * 1000})
    assert len(read("a.parquet", table)) == 1000  # what is not read does not count
    monkeypatch.setattr(_parquet, "MOST_ROWS", 999)
    assert "more than 999 rows" in refused(read, "a.parquet", table)
    monkeypatch.setattr(_parquet, "MOST_ROWS", 1000)
    monkeypatch.setattr(_parquet, "MOST_BYTES", 1000)
    assert "or 1,000 bytes of prompts" in refused(read, "a.parquet", table)
    monkeypatch.undo()
    monkeypatch.setattr(_read_prompts, "MOST_TEXT", 10**6)
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
        return _rows.parse({"text": number}, "line 1")[1].text

    if number == 10**5000:
        assert "line 1: text is a value of type int" in refused(made)
    else:
        assert made() == str(number)


# nothing is run


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet", "a.yaml", "a.toml", "t.parquet"])
def test_a_pickle_under_another_name_is_not_loaded(tmp_path, name, protocol):
    marker = tmp_path / "marker"
    content = pickle.dumps(MakesAFolder(marker), protocol)
    (tmp_path / name).write_bytes(content)
    if name[0] == "t":
        refused(kg.read_table, tmp_path / name)
    elif name.endswith(("yaml", "toml")):
        refused(read_config, tmp_path / name, {})
    else:
        refused(read_prompts, tmp_path / name)
    assert not marker.exists()
    pickle.loads(content)
    assert marker.exists()  # it would have been made


def test_a_data_set_runs_no_code(tmp_path, monkeypatch):
    marker = tmp_path / "marker"
    (tmp_path / "data").mkdir()
    script = f"import os\nos.mkdir({str(marker)!r})\n"
    for name in ("data.py", "dataset.py"):
        (tmp_path / "data" / name).write_text(script)
    (tmp_path / "data" / "train.pkl").write_bytes(pickle.dumps(MakesAFolder(marker)))
    assert "could not be loaded" in refused(read_prompts, f"hf:{tmp_path / 'data'}")
    (tmp_path / "data" / "data.py").unlink()
    (tmp_path / "data" / "train.jsonl").write_bytes(LINE)
    assert [p.text for p in read_prompts(f"hf:{tmp_path / 'data'}")] == ["Rome is in"]
    assert not marker.exists()

    import datasets

    given = {}
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: given.update(kwargs))
    refused(read_prompts, "hf:name\n\x1b[2J" + "x" * 10**5 + ":train")
    assert given == {"split": "train", "trust_remote_code": False}


TINY = {"vocab_size": 400, "hidden_size": 8, "intermediate_size": 8}
SIZES = {**TINY, "num_hidden_layers": 1, "num_attention_heads": 2}


@pytest.fixture
def model_folder(tmp_path, tiny_tokenizer):
    """A folder with a tiny Llama's config and tokenizer, and no weights."""
    config = LlamaConfig(architectures=["LlamaForCausalLM"], **SIZES)
    config.save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("form", ["torch.save", "pickle"])
def test_weights_that_would_run_are_refused(model_folder, form):
    marker = model_folder / "marker"
    weights = model_folder / "pytorch_model.bin"
    if form == "pickle":
        weights.write_bytes(pickle.dumps(MakesAFolder(marker), 2))
    else:
        torch.save({"lm_head.weight": MakesAFolder(marker)}, weights)
    assert "a pickle that holds more than tensors" in refused(kg.load, model_folder)
    assert not marker.exists()


def test_weights_in_a_plain_pickle_are_read(model_folder):
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    torch.save(model.state_dict(), model_folder / "pytorch_model.bin")
    loaded = kg.load(model_folder).original_model.state_dict()
    kept = {name.replace("_original_component.", ""): value for name, value in loaded.items()}
    assert torch.equal(kept["model.norm.weight"], model.state_dict()["model.norm.weight"])
    name = "model.embed_tokens.weight"
    assert torch.equal(kept[name], model.state_dict()[name])


def test_damaged_weights_are_refused(model_folder):
    (model_folder / "model.safetensors").write_bytes(b"\xff" * 100)
    assert "could not be loaded" in refused(kg.load, model_folder)


def test_code_that_a_model_brings_is_not_run(model_folder, monkeypatch, tiny_llama):
    marker = model_folder / "marker"
    (model_folder / "evil.py").write_text(
        f"import os\nos.mkdir({str(marker)!r})\n"
        "from transformers import LlamaConfig as C, LlamaForCausalLM as M\n"
    )
    config = json.loads((model_folder / "config.json").read_text())
    config |= {
        "model_type": "evil",
        "auto_map": {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"},
    }
    (model_folder / "config.json").write_text(json.dumps(config))
    assert "could not be loaded" in refused(kg.load, model_folder)
    assert not marker.exists()

    from knockgrid.host import bridge as _model

    given = {}
    boot = _model.TransformerBridge
    monkeypatch.setattr(
        boot, "boot_transformers", lambda _, **more: given.update(more) or tiny_llama
    )
    kg.load(model_folder)
    assert given["trust_remote_code"] is False


# settings


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a: &a [x]\nb: &b [*a, *a]\nrelations: [*b, *b]\n", "anchor 'a' is not read"),
        (b"relations: *a\n", "anchor 'a' is not read"),
        (b"x: &a {model: demo}\n<<: *a\n", "anchor 'a' is not read"),
        (b"model: !!python/object/apply:os.getcwd []\n", "tag "),
        (b"model: !!binary aGk=\n", "tag 'tag:yaml.org,2002:binary' is not read"),
        (b"!!set {model}\n", "tag "),
        (b"model: demo\nmodel: other\n", "the key 'model' comes twice"),
        (b"layers: " + b"[" * 5000, "nested too deeply"),
        (b"model: demo\n" + b"#" * settings.LARGEST, "larger than 65,536 bytes"),
        (b'model: "\\ud800"\n', "setting 'model' is '\\ud800', which is not text"),
        (b'model: "\\0"\n', "which is not text that can be kept"),
        (b'rows: [last, "\\0"]\n', "which is not text that can be kept"),
        (b"noise: .nan\n", "setting 'noise' is '.nan'"),
        (b"noise: 1e999\n", "setting 'noise' is inf; give a finite number"),
        (b"seed: " + b"9" * 5000 + b"\n", "is not YAML (Exceeds the limit"),
        (b"seed: 2020-01-01\n", "setting 'seed' is '2020-01-01'"),
        (b"limit: 1:30\n", "setting 'limit' is '1:30'"),
        (b"1: 2\n", "unknown setting 1"),
        (b"? [a]\n: b\n", "is not YAML"),
        (b"modle: demo\n", "unknown setting 'modle'"),
        (b"x" * 1000 + b": demo\n", "unknown setting 'xxx"),
        (b"- model\n", "holds no settings"),
        (b"false\n", "holds no settings"),
        (b"model: {a: {b: c}}\n", "setting 'model' is {'a': {'b': 'c'}}"),
        (b"model: d\xe9mo\n", "is not UTF-8 (byte 8)"),
        ("model: demo\n".encode("utf-16"), "is not UTF-8 (byte 0)"),
        (b"model: demo\0\n", "is not YAML"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_hostile_yaml(tmp_path, content, says):
    (tmp_path / "a.yaml").write_bytes(content)
    assert says in refused(read_config, tmp_path / "a.yaml", {})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"noise = nan\n", "setting 'noise' is nan; give a finite number"),
        (b"layers = " + b"[" * 5000, "nested too deeply"),
        (b"seed = " + b"9" * 5000, "is not TOML"),
        (b"model = 'a'\nmodel = 'b'\n", "is not TOML"),
        (b'model = "\\ud800"\n', "is not TOML"),
        (b'model = "\\u0000"\n', "which is not text that can be kept"),
        (b"[model]\na = 1\n", "setting 'model' is {'a': 1}"),
        (b"model = 'demo'\n" + b"#" * settings.LARGEST, "larger than 65,536 bytes"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_hostile_toml(tmp_path, content, says):
    (tmp_path / "a.toml").write_bytes(content)
    assert says in refused(read_config, tmp_path / "a.toml", {})


def test_settings_that_are_fine(tmp_path):
    (tmp_path / "a.yaml").write_bytes(
        b"\xef\xbb\xbfmodel: demo\r\nknown: yes\nnoise: 1e-1\nwindow: [5, all_but]\nlimit: ~\n"
        b"layers: [0, 3]\nprepend_bos: false\nseed: -3\n"
    )
    found = read_config(tmp_path / "a.yaml", {})
    want = {"known": True, "noise": 0.1, "window": (5, "all_but"), "layers": (0, 3), "seed": -3}
    assert found == SweepConfig(**want, prepend_bos=False)
    (tmp_path / "b.yaml").write_bytes(b"# nothing\n")
    assert read_config(tmp_path / "b.yaml", {}) == SweepConfig()


def test_paths_that_are_none(tmp_path):
    (tmp_path / "a.jsonl").mkdir()
    (tmp_path / "a.yaml").mkdir()
    for name in ("a.jsonl", "b.jsonl", "\0.jsonl", "x" * 5000 + ".jsonl", "\n\x1b[2J.jsonl"):
        assert "there is no prompt file" in refused(read_prompts, tmp_path / name)
    for name in ("a.yaml", "b.yaml", "\0.yaml", "x" * 5000 + ".toml"):
        assert "settings file" in refused(read_config, tmp_path / name, {})


# files that a run folder holds


def test_a_damaged_table_is_refused(tmp_path):
    table = build([{"prompt": "rome", "intervention": "last", "layer": 0, "js": 0.4}], {})
    content = kg.write_table(table, tmp_path / "a.parquet").read_bytes()
    for cut in (4, 40, len(content) // 2, -5):
        (tmp_path / "b.parquet").write_bytes(content[:cut])
        refused(kg.read_table, tmp_path / "b.parquet")
    for metadata in ("[", "[]", "1", "[" * 10**5):
        arrow = pq.read_table(tmp_path / "a.parquet")
        pq.write_table(
            arrow.replace_schema_metadata({"knockgrid": metadata}), tmp_path / "c.parquet"
        )
        assert "damaged" in refused(kg.read_table, tmp_path / "c.parquet")


def test_damaged_settings_of_a_study_are_refused(tmp_path):
    for content in ("", "[", "3", "[" * 10**5):
        (tmp_path / SETTINGS).write_text(content)
        assert "is damaged" in refused(kept, tmp_path, {"quick": True})
    (tmp_path / SETTINGS).write_text('{"quick": true}')
    assert kept(tmp_path, {"quick": True})


# what leaves: figures, file names, LaTeX

EVIL = "_$\\frac$\x01\n<b>&"
NAMES = [
    "../../etc/passwd",
    "/etc/passwd",
    "CON",
    "",
    "attn. q",
    "a" * 300,
    EVIL,
    "A",
    "a",
    "ä",
    ".",
]


def cells(**more):
    """A small table whose every text is hostile, unless told otherwise."""
    rows = [
        {"prompt": prompt, "group": EVIL, "intervention": EVIL, "layer": layer, "js": 0.1 * layer}
        | ({"status": EVIL, "js": np.nan} if layer == 2 else {})
        | {name: value[i] if isinstance(value, tuple) else value for name, value in more.items()}
        for i, prompt in enumerate((EVIL, "b"))
        for layer in range(3)
    ]
    return rows


METADATA = {"unit": EVIL, "mode": EVIL, "n_tokens": 2, "labels": {EVIL: EVIL}}
DESCRIBED = [
    {"name": EVIL, "role": "treatment", "of": None, "source": EVIL, "window": 1},
    {"name": f"{EVIL} | b", "role": "contrast", "of": EVIL, "source": EVIL, "window": 1},
]


def contrasted():
    rows = cells() + [{**row, "intervention": f"{EVIL} | b"} for row in cells()]
    return build(rows, {**METADATA, "interventions": DESCRIBED})


def claimed():
    texts = dict.fromkeys(("claim", "form", "corruption", "window", "value", "confirmed"), EVIL)
    frame = pd.DataFrame([{**texts, "outcome": "held"}])
    frame.attrs = {"knockgrid": {"model": {"name": EVIL}}}
    return frame


def threshold():
    names = ("FA-high", "FA-low", "AH", "UH")
    frame = pd.DataFrame(
        {"threshold": [0.1, 0.3], **dict.fromkeys(names, [1, 1]), "agreement": 1.0}
    )
    frame.attrs = {"knockgrid": {"marks": {EVIL: 0.2}}}
    return frame


def probed():
    rows = [{**row, "position": EVIL, "auc": 0.7, "auc_shuffled": 0.5} for row in cells()]
    table = build([{**row, "position": EVIL} for row in cells()], METADATA)
    apart = pd.DataFrame([[0.1], [0.2]], index=[0, 1], columns=[EVIL])
    return kg.probe_twin(build(rows, METADATA), table, apart)


def reliance():
    return pd.DataFrame(
        {"prompt": ["a", "b"], "relation": [EVIL, "x"], "correct": [True, False], "reliance": 0.5}
    )


def one_prompt():
    rows = [row | {"position": "0"} for row in cells()[:3]]
    side = {"id": EVIL, "tokens": [EVIL], "subject_tokens": [0]}
    return build(rows, {**METADATA, "prompts": [side]})


DRAWN = {
    "claims_card": lambda: kg.claims_card(claimed()),
    "contrast_curves": lambda: kg.contrast_curves(contrasted(), by="group"),
    "dose_heatmap": lambda: kg.dose_heatmap(build(cells(alpha=0.5), METADATA)),
    "head_heatmap": lambda: kg.head_heatmap(build(cells(head=1), METADATA)),
    "interval": lambda: kg.interval(build(cells(), METADATA)),
    "layer_curve": lambda: kg.layer_curve(build(cells(), METADATA)),
    "layer_heatmap": lambda: kg.layer_heatmap(build(cells(**{EVIL: 0.5}), METADATA), EVIL),
    "module_heatmap": lambda: kg.module_heatmap(build(cells(module=EVIL), METADATA)),
    "normalised_curves": lambda: kg.normalised_curves(contrasted()),
    "panels": lambda: kg.panels(build(cells(group=(EVIL, "b")), METADATA)),
    "position_heatmap": lambda: kg.position_heatmap(build(cells(position=EVIL), METADATA)),
    "probe_twin": probed,
    "reliance_plot": lambda: kg.reliance_plot(reliance()),
    "side_by_side": lambda: kg.side_by_side(
        {EVIL: build(cells(), METADATA), "b$": build(cells(), METADATA)}
    ),
    "threshold_curve": lambda: kg.threshold_curve(threshold()),
    "token_heatmap": lambda: kg.token_heatmap(
        build([row | {"token_text": EVIL} for row in cells()[:3]], METADATA), "js"
    ),
    "position_heatmap of one prompt": lambda: kg.position_heatmap(one_prompt()),
}


def test_every_figure_is_drawn_below():
    from knockgrid import figures

    assert {name.split(" ")[0] for name in DRAWN} == set(figures.__all__) - {"save"}


@pytest.mark.parametrize("name", DRAWN)
def test_text_from_data_is_no_formula_in_a_figure(tmp_path, name):
    drawn = DRAWN[name]()
    whole = drawn if isinstance(drawn, Figure) else drawn.figure
    texts = [text.get_text() for text in whole.findobj(Text)]
    assert any("frac" in text for text in texts), "the hostile text is not in the figure"
    for text in texts:
        assert not cbook.is_math_text(text), text
        assert all(c.isprintable() or c == "\n" for c in text), text
        if "frac" in text:
            shown = text.replace(r"\$", "$")
            assert r"_$\frac$\x01⏎<b>&" in shown.replace("\n", "") or name == "claims_card"
    (path,) = kg.save(drawn, tmp_path / "a.svg")
    ElementTree.parse(path)


def test_a_row_that_begins_with_an_underscore_is_in_the_legend():
    ax = kg.layer_curve(build(cells(), METADATA))
    assert [text.get_text() for text in ax.get_legend().get_texts()][0].startswith(" _")


def test_long_names_do_not_make_large_figures():
    table = build([row | {"intervention": "x" * 10**5} for row in cells()], {"unit": "nats"})
    assert kg.layer_curve(table).figure.get_figwidth() < 20
    assert kg.layer_heatmap(table).figure.get_figwidth() < 20


def test_other_settings_of_matplotlib():
    from knockgrid.figures.words import plain

    with rc_context({"text.usetex": True}):
        assert plain("\\input{a}$") == r"\textbackslash{}input\{a\}\$"
    with rc_context({"text.parse_math": False}):
        assert plain("$a$") == "$a$"


def test_names_from_data_make_no_path(tmp_path):
    names = ["../../etc/passwd", "CON", "attn. q", "A", "a"]
    rows = [row | {"intervention": name} for name in names for row in cells()]
    table = build(rows, {"unit": "nats"})
    before = set(tmp_path.parent.rglob("*"))
    written = draw(table, tmp_path / "run", kind="tokens", metric="js", by=None)
    assert len(set(written)) == 3 * len(names)
    assert len({path.name.casefold() for path in written}) == 3 * len(names)
    assert {path.parent for path in written} == {tmp_path / "run" / "figures"}
    assert all(path.is_file() and path.suffix in (".svg", ".pdf", ".png") for path in written)
    new = set(tmp_path.parent.rglob("*")) - before
    assert new == {tmp_path / "run", tmp_path / "run" / "figures", *written}


def test_a_metric_from_data_makes_no_path(tmp_path):
    table = build(cells(**{"../../x": 0.5}), {"unit": "nats"})
    for path in draw(table, tmp_path, kind="heatmap", metric="../../x", by=None):
        assert path.parent == tmp_path / "figures"


def test_a_source_from_data_makes_no_path():
    described = [{"name": EVIL, "role": "treatment", "of": None, "source": "../x", "window": 1}]
    rows = [{**row, "group": None} for row in cells()]
    table = build(rows, {"unit": "nats", "interventions": described})
    name, _ = next(of_main(table, Path("nowhere")))
    assert name == f"layer_heatmap_{file_name('../x')}_js"
    assert "/" not in name


@pytest.mark.parametrize("text", NAMES)
def test_file_names(text):
    name = file_name(text)
    assert Path(name).name == name
    assert name not in (".", "..")
    assert len(name.encode()) <= 80
    assert not name.startswith((".", "-", " "))


def test_plain_names_stay_as_they_are():
    for name in ("subject", "js_to_source", "last", "noise", "w5", "a" * 80):
        assert file_name(name) == name
    assert (
        len({file_name(name) for name in ("Rome", "rome", "ROME", "röme", "rome~", "rome.")}) == 6
    )


def test_devices_of_windows_are_no_file_names():
    for name in ("con", "nul", "aux", "lpt1", "com9"):
        assert file_name(name).startswith(f"{name}~")


def test_versions_in_a_manifest_reach_bibtex_escaped():
    made = bibtex(["knockgrid"], {"knockgrid": "1}\n@misc{x, note = {\\input{a}"})
    assert made.count("@") == bibtex(["knockgrid"], {}).count("@") + 1
    assert "\\input{" not in made
    assert "\n@misc" not in made


def test_text_in_html_and_latex():
    assert html("<img src=x onerror='a()'>") == "&lt;img src=x onerror=&#x27;a()&#x27;&gt;"
    assert html("a\0\ud800b\n") == "a\ufffd\ufffdb\n"
    assert latex("50 % of a_b\n\n\\input{x} $y$") == (
        r"50 \% of a\_b  \textbackslash{}input\{x\} \$y\$"
    )


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@a", "\t=1", "\r=1", "\n=1", " =1", "＝1", "'=1", "\ufeff=1"]
)
def test_an_exported_cell_is_no_formula(text):
    from knockgrid.display.escape import from_spreadsheet

    assert spreadsheet(text).startswith("'")
    assert from_spreadsheet(spreadsheet(text)) == text
    for plain in ("Rome", "it's", "'quoted'", "", "a=1", "3.5"):
        assert from_spreadsheet(spreadsheet(plain)) == spreadsheet(plain) == plain
