"""The report without a browser: what is in the file, how large it is, and what is refused."""

import base64
import json
import math
import re
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1]))  # importlib mode: `made_runs` is ours

from made_runs import Made, made_run

from knockgrid._errors import InputError
from knockgrid._mean_interval import mean_interval
from knockgrid.edge.cli import app
from knockgrid.edge.report import payload as room
from knockgrid.edge.report.compared import differing
from knockgrid.edge.report.opened import opened
from knockgrid.edge.report.packing import coded, for_script, packed
from knockgrid.edge.report.payload import payload
from knockgrid.edge.report.write import report
from knockgrid.edge.store import compact


def unpacked(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text), wbits=-15), dtype=kind)


def decoded(one: dict) -> np.ndarray:
    """The coding of packing.py, read back by its description alone."""
    if one["sign"] == 0:
        return unpacked(one["data"], "<f4")
    codes = unpacked(one["data"], "<u2").astype(float)
    values = one["sign"] * 2 ** (one["low"] + (codes - 1) / 65532 * (one["high"] - one["low"]))
    values = np.where(codes == 0, 0.0, values)
    values = np.where(codes == 65534, one["sign"] * np.inf, values)
    return np.where(codes == 65535, np.nan, values)


def data_of(page: Path) -> dict:
    text = page.read_text("utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])


class Parts(HTMLParser):
    """Elements, attributes, and text outside of scripts and styles."""

    def __init__(self, text: str):
        super().__init__()
        self.tags, self.attributes, self.ids, self.text, self._skip = [], [], [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self.ids += [value for name, value in attrs if name == "id"]
        self._skip = tag in ("script", "style")

    def handle_endtag(self, tag):
        self._skip = False

    def handle_data(self, data):
        if not self._skip:
            self.text.append(data)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "plain"
    made_run(folder, Made(n=12, relations=7, dropped={"last": {"p001": "no partner"}}))
    return report(folder)


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e4, -3.0])
def test_numbers_come_back(scale):
    rng = np.random.default_rng(0)
    values = scale * np.exp(rng.normal(0, 3, 500))
    values[:4] = [0.0, np.nan, np.inf * np.sign(scale), scale]
    found = decoded(coded(values))
    assert found == pytest.approx(values, rel=4e-4, nan_ok=True)
    assert found[0] == 0
    narrow = scale * rng.uniform(1e-3, 1, 500)
    assert decoded(coded(narrow)) == pytest.approx(narrow, rel=6e-5)


def test_numbers_of_both_signs_and_none_at_all():
    both = np.array([-1.5, 0.25, 0.0, np.nan, np.inf])
    assert decoded(coded(both)) == pytest.approx(both, rel=1e-7, nan_ok=True)
    for values in (np.full(3, np.nan), np.zeros(3), np.full(3, 0.7)):
        assert decoded(coded(values)) == pytest.approx(values, rel=1e-6, nan_ok=True)


def test_json_in_a_script_has_no_way_out():
    texts = ["</script>", "<!--", "]]>", "&lt;", "\u2028\u2029", "\ud800", "\x00", "é🙂"]
    text = for_script(texts)
    assert not set(text) & set("<>&\u2028\u2029\ud800\x00")
    assert json.loads(text) == texts
    assert text.isascii()


def test_means_and_intervals_are_those_of_the_table(path):
    run = opened(path.parent)
    data = data_of(path)
    for metric in data["metrics"]:
        found = mean_interval(run.table, metric["name"])
        for name in ("mean", "low", "high"):
            told = np.array(metric[name], dtype=float)
            assert told == pytest.approx(found[name].to_numpy(), rel=6e-4, nan_ok=True)
        rows = [data["rows"][i]["intervention"] for i in data["cells"]["row"]]
        assert rows == found["intervention"].tolist()
        layers = [data["layers"][i] for i in data["cells"]["layer"]]
        assert layers == found["layer"].tolist()


def test_every_value_is_that_of_its_row(path):
    run, data = opened(path.parent), data_of(path)
    order = {one["id"]: i for i, one in enumerate(data["prompts"])}
    keys = {
        (data["rows"][r]["intervention"], data["layers"][x], t): i
        for i, (r, x, t) in enumerate(
            zip(*(data["cells"][name] for name in ("row", "layer", "token")), strict=True)
        )
    }
    kl = next(one for one in data["metrics"] if one["name"] == "kl")
    values = decoded(kl["values"]).reshape(len(order), len(keys))
    codes = unpacked(data["statuses"]["data"], "u1").reshape(values.shape)
    ids = unpacked(data["tops"]["ids"], "<u2").reshape(*values.shape, 10)
    shares = unpacked(data["tops"]["p"], "u1").reshape(ids.shape)
    for i, row in run.table.iterrows():
        at = order[row["prompt"]], keys[row["intervention"], row["layer"], row["token"]]
        assert values[at] == pytest.approx(row["kl"], rel=4e-4, nan_ok=True)
        assert data["statuses"]["names"][codes[at]] == row["status"]
        tokens = run.tops["top_tokens"][i]
        if tokens is None:
            assert not shares[at].any()
            continue
        assert [data["tops"]["texts"][k] for k in ids[at]] == [f" word{k}" for k in tokens]
        p = (shares[at] / 255) ** 3
        assert p == pytest.approx(np.exp(run.tops["top_logp"][i]), rel=0.12)
    assert (codes == 1).sum() == 4  # layers that p001 has no value at


def test_the_page_is_one_file_that_loads_nothing(path):
    text = path.read_text("utf-8")
    parts = Parts(text)
    assert text.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert not set(parts.tags) & {"iframe", "object", "embed", "base", "form"}
    assert parts.tags.count("link") == 1
    loading = ("src", "href", "action", "data", "poster", "srcset", "xlink:href", "formaction")
    addresses = [value for name, value in parts.attributes if name in loading]
    assert addresses
    assert all(one.startswith(("#", "data:")) for one in addresses), addresses
    assert not re.search(r"url\(\s*['\"]?(?!#|data:)", text)
    assert "@import" not in text
    assert not [name for name, _ in parts.attributes if name.startswith("on")]
    (policy,) = [v for n, v in parts.attributes if n == "content" and "default-src" in v]
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert "<title>plain – knockgrid report</title>" in text


def test_ids_are_unique_and_found(path):
    parts = Parts(path.read_text("utf-8"))
    assert len(parts.ids) == len(set(parts.ids))
    for name, value in parts.attributes:
        if name in ("aria-labelledby", "data-copy") or (name == "href" and value[0] == "#"):
            assert value.lstrip("#") in parts.ids, (name, value)
    assert parts.tags.count("svg") == 2


def test_words_on_the_page(path):
    text = " ".join(" ".join(Parts(path.read_text("utf-8")).text).split())
    assert "4 rows × 4 layers edited in made-up (None, 30 layers), over 12 prompts" in text
    assert "1 prompt could not take part in row 'last' (no partner)" in text
    assert "cells without a value 4" in text
    assert "weights_digest" in text
    assert "0" * 64 in text
    assert "We edited made-up" in text
    assert "@article{lin1991" in text
    assert "not finished" not in text


def test_size_of_a_large_run(tmp_path):
    """500 prompts, 3 rows, 32 layers, ten tokens of every row: all of them, under 2 MB.

    Tokens are as a model's are: most of a prompt's ten stay the same over layers, in an order that
    changes a little, and prompts have tokens of their own out of tens of thousands.
    """
    rng = np.random.default_rng(0)
    words = tuple(f" token{i}" for i in range(20_000))
    own = rng.zipf(1.3, (500, 16)) % 20_000

    class Large(Made):
        def js(self, prompt, row, layer, token=0):
            return float(np.exp(rng.normal(-3, 2)))

        def tops(self, prompt, row, layer):
            pool = list(dict.fromkeys(own[prompt].tolist() + list(range(12))))
            score = -np.arange(len(pool)) / 3 + rng.normal(0, 0.15, len(pool))
            if rng.random() < 0.2:
                pool[int(rng.integers(10))] = int(rng.integers(20_000))
            order = np.argsort(-score)[:10]
            logp = score[order] - np.log(np.exp(score).sum())
            return [pool[i] for i in order], logp.tolist()

    texts = {i: f"{'a rather long prompt with many words ' * 2}{i} is in" for i in range(500)}
    rows = Made().rows[:3]
    made = Large(n=500, layers=list(range(32)), rows=rows, words=words, texts=texts, per_shard=500)
    made_run(tmp_path / "large", made)
    run = opened(tmp_path / "large")
    assert len(run.table) == 500 * 3 * 32
    path = report(tmp_path / "large")
    data = data_of(path)
    assert path.stat().st_size < 2_000_000
    assert data["tops"]["depth"] == data["tops"]["kept"] == 10
    kept = [one["name"] for one in data["metrics"] if one["values"]]
    assert kept[:3] == ["js", "kl", "kl_reverse"]


def test_fewer_tokens_where_there_is_no_room(tmp_path, monkeypatch):
    made_run(tmp_path / "r", Made(n=8))
    run = opened(tmp_path / "r")
    whole = payload(run)["tops"]
    size = len(whole["ids"]) + len(whole["p"]) + sum(map(len, whole["texts"]))
    monkeypatch.setattr(room, "FOR_TOKENS", size)
    assert payload(run)["tops"] == whole
    monkeypatch.setattr(room, "FOR_TOKENS", size - 1)
    found = payload(run)["tops"]
    assert 0 < found["depth"] < found["kept"] == 10
    monkeypatch.setattr(room, "FOR_TOKENS", 10)
    assert payload(run)["tops"] == {"depth": 0, "kept": 10}
    monkeypatch.setattr(room, "FOR_NUMBERS", 700)
    given = [one["values"] is not None for one in payload(run)["metrics"]]
    assert given[0]
    assert not given[-1]


def test_a_run_without_tokens_says_so(tmp_path):
    made_run(tmp_path / "r", Made(n=6, top=0))
    path = report(tmp_path / "r")
    assert data_of(path)["tops"] is None
    assert "This run keeps no tokens" in path.read_text("utf-8")


def test_half_finished_empty_and_failed_runs_say_so(tmp_path):
    made_run(tmp_path / "half", Made(n=8, shards=1))
    text = report(tmp_path / "half").read_text("utf-8")
    assert "This run is not finished: 1 of 2 shards and 4 of 8 prompts are there" in text
    assert "when the run is finished" in text
    made_run(tmp_path / "empty", Made(n=8, shards=0))
    text = report(tmp_path / "empty").read_text("utf-8")
    assert "This run is empty: no shard is there" in text
    assert "0 of 2 shards and 0 of 8 prompts" in text
    everyone = {f"p{i:03d}": "ValueError: no" for i in range(4)}
    made_run(tmp_path / "failed", Made(n=4, failed=everyone))
    text = report(tmp_path / "failed").read_text("utf-8")
    assert "This run is empty: every prompt failed" in text
    assert "4 prompts failed and are missing (p000: ValueError: no" in text
    text = report(tmp_path / "half", compare=tmp_path / "empty").read_text("utf-8")
    assert "One of the runs has no rows" in text


def test_a_run_from_python_has_no_paragraph(tmp_path):
    made_run(tmp_path / "r", Made(n=6, python=True))
    text = report(tmp_path / "r").read_text("utf-8")
    assert "No paragraph: " in text
    assert "was begun from Python" in text
    assert 'id="bibtex"' not in text


def test_a_compact_run_gives_the_same_data(tmp_path):
    made_run(tmp_path / "r", Made(n=6))
    before = data_of(report(tmp_path / "r"))
    compact(tmp_path / "r")
    assert data_of(report(tmp_path / "r")) == before


def test_infinite_values_have_no_interval_but_a_place(tmp_path):
    class Infinite(Made):
        def js(self, prompt, row, layer, token=0):
            return math.inf if prompt == row == layer == 0 else 0.25

    made_run(tmp_path / "r", Infinite(n=6))
    data = data_of(report(tmp_path / "r"))
    kl = next(one for one in data["metrics"] if one["name"] == "kl")
    assert kl["mean"][0] == "inf"
    assert kl["note"].startswith("no interval: 'kl' is infinite")
    assert decoded(kl["values"])[0] == math.inf


def test_a_prompt_may_hold_a_line_separator(tmp_path):
    """JSON lines end at a line feed only."""
    made_run(tmp_path / "r", Made(n=4, texts={1: "one \u2028 two \x85 three \x0c four"}))
    assert "\\u2028" in report(tmp_path / "r").read_text("utf-8")


def test_control_characters_never_reach_the_page(tmp_path):
    made = Made(n=4, failed={"p000": "ValueError: \x00\x1b[31m"})
    made_run(tmp_path / "r", made)
    text = report(tmp_path / "r").read_text("utf-8")
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", text)


def test_two_runs_on_one_page(tmp_path):
    made_run(tmp_path / "a", Made(n=6))
    made_run(tmp_path / "b", Made(n=8, seed=3, unit="bits"))
    one, other = opened(tmp_path / "a"), opened(tmp_path / "b")
    told = {name: (a, b) for name, a, b in differing(one, other)}
    assert told["seed"] == ("0", "3")
    assert told["unit"] == ("nats", "bits")
    assert "config_digest" not in told
    assert "begun_by" not in told
    assert "model.name" not in told
    path = report(tmp_path / "a", tmp_path / "pair.html", compare=tmp_path / "b")
    text = path.read_text("utf-8")
    assert "A has 6, B 8, and 6 are in both" in text
    assert "The unit differs (nats and bits)" in text
    assert not data_of(path)["comparable"]
    assert "prompts" not in data_of(path)["runs"][0]


def test_the_command(tmp_path):
    made_run(tmp_path / "a", Made(n=6))
    run = CliRunner().invoke
    done = run(app, ["report", str(tmp_path / "a")])
    assert done.exit_code == 0, done.output
    assert done.output.strip() == str(tmp_path / "a" / "report.html")
    out = tmp_path / "new" / "x.html"
    assert run(app, ["report", str(tmp_path / "a"), "--out", str(out)]).exit_code == 0
    assert out.is_file()
    both = ["report", "--compare", str(tmp_path / "a"), str(tmp_path / "a")]
    assert run(app, both).output.strip() == str(tmp_path / "a" / "report_compare.html")
    said = json.loads(run(app, [*both, "--json"]).stdout)
    assert said == {"written": [str(tmp_path / "a" / "report_compare.html")]}
    for given in (["report"], [*both, str(tmp_path / "a")]):
        with pytest.raises(InputError, match="give one run folder, or two with --compare"):
            run(app, given, catch_exceptions=False)


def test_what_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no run"):
        report(tmp_path)
    made_run(tmp_path / "r", Made(n=6))
    (tmp_path / "r" / "tokens.json").write_text("[1]")
    with pytest.raises(InputError, match="tokens.json is damaged"):
        report(tmp_path / "r")
    (tmp_path / "r" / "tokens.json").unlink()
    assert data_of(report(tmp_path / "r"))["tops"]["texts"][0].startswith(" word")
    shard = tmp_path / "r" / "shards" / "00000.parquet"
    shard.write_bytes(shard.read_bytes()[:2000])
    with pytest.raises(InputError, match="damaged"):
        report(tmp_path / "r")
    manifest = json.loads((tmp_path / "r" / "manifest.json").read_text("utf-8"))
    newer = {**manifest, "schema": 99}
    (tmp_path / "r" / "manifest.json").write_text(json.dumps(newer), "utf-8")
    with pytest.raises(InputError, match="install knockgrid 0.1.0 or newer"):
        report(tmp_path / "r")


def test_packed_is_little_endian_deflate():
    text = packed(np.array([1, 256], dtype=">u2"))
    assert zlib.decompress(base64.b64decode(text), wbits=-15) == b"\x01\x00\x00\x01"
