"""Settings and run folders that were written to break things: refused in one line."""

import pyarrow.parquet as pq
import pytest
from refusals import refused

import knockgrid as kg
from knockgrid import read_prompts
from knockgrid.cli.reproduce import SETTINGS, kept
from knockgrid.runs import study
from knockgrid.runs.study import read_spec
from knockgrid.spec import Spec
from knockgrid.table.table import build

YAML = [
    (b"a: &a [x]\nb: &b [*a, *a]\nrelations: [*b, *b]\n", "anchor 'a' is not read"),
    (b"relations: *a\n", "anchor 'a' is not read"),
    (b"x: &a {model: demo}\n<<: *a\n", "anchor 'a' is not read"),
    (b"model: !!python/object/apply:os.getcwd []\n", "tag "),
    (b"model: !!binary aGk=\n", "tag 'tag:yaml.org,2002:binary' is not read"),
    (b"!!set {model}\n", "tag "),
    (b"model: demo\nmodel: other\n", "the key 'model' comes twice"),
    (b"layers: " + b"[" * 5000, "nested too deeply"),
    (b"model: demo\n" + b"#" * study.LARGEST, "larger than 65,536 bytes"),
    (b'model: "\\ud800"\n', "setting 'model' is '\\ud800', which is not text"),
    (b'model: "\\0"\n', "which is not text that can be kept"),
    (b'relations: [last, "\\0"]\n', "which is not text that can be kept"),
    (b"seed: .nan\n", "setting 'seed' is '.nan'"),
    (b"seed: 1e999\n", "setting 'seed' is inf; give a finite number"),
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
]
CASES = [("a.yaml", *case) for case in YAML]


@pytest.mark.parametrize(("name", "content", "says"), CASES, ids=lambda value: repr(value)[:40])
def test_hostile_settings(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    assert says in refused(read_spec, tmp_path / name, {})


def test_settings_that_are_fine(tmp_path):
    (tmp_path / "a.yaml").write_bytes(
        b"\xef\xbb\xbfmodel: demo\r\nknown: yes\nmax_memory: 1GB\nrelations: [a, b]\nlimit: ~\n"
        b"layers: [0, 3]\nprepend_bos: false\nseed: -3\n"
    )
    found = read_spec(tmp_path / "a.yaml", {})
    want = {"known": True, "relations": ("a", "b"), "layers": (0, 3), "seed": -3}
    assert found == Spec(**want, max_memory=10**9, prepend_bos=False)
    (tmp_path / "b.yaml").write_bytes(b"# nothing\n")
    assert read_spec(tmp_path / "b.yaml", {}) == Spec()


def test_paths_that_are_none(tmp_path):
    (tmp_path / "a.jsonl").mkdir()
    (tmp_path / "a.yaml").mkdir()
    for name in ("a.jsonl", "b.jsonl", "\0.jsonl", "x" * 5000 + ".jsonl", "\n\x1b[2J.jsonl"):
        assert "there is no prompt file" in refused(read_prompts, tmp_path / name)
    for name in ("a.yaml", "b.yaml", "\0.yaml", "x" * 5000 + ".yaml"):
        assert "study file" in refused(read_spec, tmp_path / name, {})


# files that a run folder holds


def test_a_damaged_table_is_refused(tmp_path):
    table = build([{"prompt": "rome", "intervention": "last", "layer": 0, "js": 0.4}], {})
    content = kg.runs.write_table(table, tmp_path / "a.parquet").read_bytes()
    for cut in (4, 40, len(content) // 2, -5):
        (tmp_path / "b.parquet").write_bytes(content[:cut])
        refused(kg.runs.read_table, tmp_path / "b.parquet")
    for metadata in ("[", "[]", "1", "[" * 10**5):
        arrow = pq.read_table(tmp_path / "a.parquet")
        pq.write_table(
            arrow.replace_schema_metadata({"knockgrid": metadata}), tmp_path / "c.parquet"
        )
        assert "damaged" in refused(kg.runs.read_table, tmp_path / "c.parquet")


def test_a_damaged_recipe_is_refused(tmp_path):
    for content in ("", "[", "3", "[" * 10**5):
        (tmp_path / SETTINGS).write_text(content)
        assert "is damaged" in refused(kept, tmp_path, {"quick": True})
    (tmp_path / SETTINGS).write_text('{"quick": true}')
    assert kept(tmp_path, {"quick": True})
