"""The report without a browser: what is in the file, how large it is, and what is refused."""

import base64
import errno
import json
import math
import os
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

from knockgrid.cli.app import app
from knockgrid.errors import InputError
from knockgrid.reports import compared as comparing
from knockgrid.reports import payload as room
from knockgrid.reports.compared import differing, shared_prompts
from knockgrid.reports.methods import methods
from knockgrid.reports.opened import opened
from knockgrid.reports.packing import coded, for_script, packed
from knockgrid.reports.payload import payload
from knockgrid.reports.write import report
from knockgrid.runs.store import compact
from knockgrid.stats.contrast import difference
from knockgrid.stats.mean_interval import mean_interval


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


def share_of(code):
    """The coding of payload.py: hundredths of a power of two below 1, where 0 is no token."""
    return 2 ** ((1 - float(code)) / 100) if code else math.nan


def tops_in(data: dict) -> tuple[np.ndarray, np.ndarray]:
    """Places in the list of words, and probabilities, `[prompt, cell, rank]`."""
    tops, shape = data["tops"], (len(data["prompts"]), len(data["cells"]["row"]))
    kind = "<u4" if tops["wide"] else "<u2"
    places = unpacked(tops["ids"], kind).reshape(*shape, tops["depth"])
    low, high = unpacked(tops["p"], "u1").reshape(2, tops["depth"], *shape).astype(int)
    return places, np.vectorize(share_of)(np.moveaxis(low + 256 * high, 0, -1))


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


def words_of(path: Path) -> str:
    return " ".join(" ".join(Parts(path.read_text("utf-8")).text).split())


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


def test_what_free_runs_wrote_is_that_of_the_table(tmp_path, path):
    """By prompt and cell, each text once; in other modes there is none."""
    assert data_of(path)["written"] is None
    made_run(tmp_path / "free", Made(n=5, tokens=2, wrote=True, words=("<b>", " b", "c\n")))
    data, table = data_of(report(tmp_path / "free")), opened(tmp_path / "free").table
    cells, texts = data["cells"], data["written"]["texts"]
    codes = unpacked(data["written"]["data"], "<u2").reshape(5, len(cells["row"]))
    assert len(texts) == len(set(texts)) == table["written"].nunique()
    found = {
        (prompt["id"], data["rows"][row]["intervention"], data["layers"][layer]): texts[code - 1]
        for prompt, of_prompt in zip(data["prompts"], codes, strict=True)
        for code, row, layer in zip(of_prompt, cells["row"], cells["layer"], strict=True)
        if code
    }
    first = table[table["token"] == 0].set_index(["prompt", "intervention", "layer"])
    assert found == first["written"].to_dict()


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
    words = unpacked(data["words"]["ids"], "<u4").tolist()
    places, shares = tops_in(data)
    for i, row in run.table.iterrows():
        at = order[row["prompt"]], keys[row["intervention"], row["layer"], row["token"]]
        assert values[at] == pytest.approx(row["kl"], rel=4e-4, nan_ok=True)
        assert data["statuses"]["names"][codes[at]] == row["status"]
        tokens = run.tops["top_tokens"][i]
        if tokens is None:
            assert np.isnan(shares[at]).all()
            continue
        assert [words[k] for k in places[at]] == list(tokens)
        assert [data["words"]["texts"][k] for k in places[at]] == [f" word{k}" for k in tokens]
        assert shares[at] == pytest.approx(np.exp(run.tops["top_logp"][i]), rel=4e-3)
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
    assert "Row 'last': 1 of 12 prompts took no part (no partner)." in text
    assert "over 12 prompts: 188 rows of values, divergences in nats" in text
    assert "missing values 4" in text
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
    _, shares = tops_in(data)
    told = np.exp(np.stack(run.tops["top_logp"]).reshape(500, 3 * 32, 10))
    assert shares == pytest.approx(told, rel=4e-3)


def test_fewer_tokens_where_there_is_no_room(tmp_path, monkeypatch):
    made_run(tmp_path / "r", Made(n=8))
    run = opened(tmp_path / "r")
    whole = payload(run)["tops"]
    size = len(whole["ids"]) + len(whole["p"]) + sum(map(len, payload(run)["words"]["texts"]))
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


def test_a_run_that_has_lost_shards_is_not_whole(tmp_path):
    """Its manifest still says when it ended."""
    made_run(tmp_path / "r", Made(n=8))
    shards = tmp_path / "r" / "shards"
    (shards / "00001.parquet").unlink()
    page = report(tmp_path / "r")
    text = words_of(page)
    left = "1 of its 2 shards is no longer there: 4 of 8 prompts are left"
    assert f"This run had ended, but {left}" in text
    assert re.search(r"finished no\b", text)
    assert "when all shards of the run are there" in text
    assert 'id="bibtex"' not in page.read_text("utf-8")
    with pytest.raises(InputError, match="when all shards of the run are there"):
        methods(tmp_path / "r")
    (shards / "00000.parquet").unlink()
    text = report(tmp_path / "r").read_text("utf-8")
    assert "2 of its 2 shards are no longer there: 0 of 8 prompts are left" in text
    assert "This run is empty: no shard is there" in text
    assert 'id="bibtex"' not in text


def test_a_run_of_failures_that_lost_all_shards_is_empty_for_that(tmp_path):
    made_run(tmp_path / "r", Made(n=4, failed={"p000": "ValueError: no"}))
    (tmp_path / "r" / "shards" / "00000.parquet").unlink()
    text = words_of(report(tmp_path / "r"))
    assert "This run is empty: no shard is there" in text
    assert "1 prompt failed and is missing" in text


def test_a_half_finished_run_of_failures_says_what_failed(tmp_path):
    everyone = {f"p{i:03d}": "ValueError: no" for i in range(8)}
    made_run(tmp_path / "r", Made(n=8, failed=everyone, shards=1))
    text = report(tmp_path / "r").read_text("utf-8")
    assert "This run is not finished: 1 of 2 shards and 0 of 8 prompts" in text
    assert "This run is empty: every prompt failed" in text


def test_an_edit_that_changes_nothing_shows_nothing_changed(tmp_path):
    """Clean and edited probabilities go through one coding, small ones and tokens too."""

    class Same(Made):
        def tops(self, prompt, row, layer):
            ids = [(prompt + k) % len(self.words) for k in range(self.top)]
            return ids, [math.log(0.6**k * 0.4) for k in range(self.top)]

    made_run(tmp_path / "r", Same(n=6))
    data = data_of(report(tmp_path / "r"))
    places, shares = tops_in(data)
    for i, prompt in enumerate(data["prompts"]):
        (clean,) = prompt["clean"]
        assert len(clean) == 10
        for cell in range(places.shape[1]):
            edited = zip(places[i, cell].tolist(), shares[i, cell].tolist(), strict=True)
            assert [(place, share_of(code)) for place, code in clean] == list(edited)


def test_improbable_tokens_stay(tmp_path):
    class Sure(Made):
        def tops(self, prompt, row, layer):
            ids, _ = super().tops(prompt, row, layer)
            return ids, [-1e-9, -19.0, -30.0, -200.0, -math.inf, *[-700.0] * 5]

    made_run(tmp_path / "r", Sure(n=4))
    _, shares = tops_in(data_of(report(tmp_path / "r")))
    assert not np.isnan(shares).any()
    assert shares[0, 0, 0] == 1
    assert np.log(shares[0, 0, 1:4]) == pytest.approx([-19, -30, -200], abs=4e-3)
    assert shares[0, 0, 4:].max() < 1e-190


def test_tokens_of_one_text_keep_their_ids(tmp_path):
    """Pieces of a letter read all alike."""
    made_run(tmp_path / "r", Made(n=4, words=("\ufffd",) * 40))
    run, data = opened(tmp_path / "r"), data_of(report(tmp_path / "r"))
    words = unpacked(data["words"]["ids"], "<u4").tolist()
    assert len(set(words)) == len(words) == len(data["words"]["texts"])
    places, _ = tops_in(data)
    assert [words[k] for k in places[0, 0]] == list(run.tops["top_tokens"][0])
    (clean,) = data["prompts"][3]["clean"]
    assert [words[place] for place, _ in clean] == list(range(3, 13))


def test_a_run_from_python_has_its_paragraph(tmp_path):
    made_run(tmp_path / "r", Made(n=6, python=True))
    text = report(tmp_path / "r").read_text("utf-8")
    assert "The prompt set (given in Python" in text
    assert 'id="bibtex"' in text


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
    assert data_of(path)["refused"] == "The runs differ in unit, so nothing is subtracted."
    assert text.count("not drawn.") == 1
    assert "prompts" not in data_of(path)["runs"][0]


def test_prompts_of_one_id_and_other_texts_are_not_shared(tmp_path):
    made_run(tmp_path / "a", Made(n=6))
    texts = {i: f"Somebody said that city number {i} is the capital of" for i in range(6)}
    made_run(tmp_path / "b", Made(n=6, texts={1: texts[1], 4: texts[4]}))
    made_run(tmp_path / "c", Made(n=6, texts=texts))
    path = report(tmp_path / "a", tmp_path / "ab.html", compare=tmp_path / "b")
    text = words_of(path)
    assert "A has 6, B 6, and 4 are in both" in text
    assert "2 have the same id but another text or other spans (p001, p004)" in text
    assert data_of(path)["refused"] == ""
    assert "<svg" in path.read_text("utf-8")
    path = report(tmp_path / "a", tmp_path / "ac.html", compare=tmp_path / "c")
    assert data_of(path)["refused"] == "The runs share no prompt, so nothing is subtracted."
    assert "<svg" not in path.read_text("utf-8")
    assert "not drawn. The runs share no prompt" in words_of(path)
    path = report(tmp_path / "a", tmp_path / "aa.html", compare=tmp_path / "a")
    assert "prompts differ" not in words_of(path)


def test_prompts_of_other_spans_are_other_prompts():
    one = {"id": "a", "text": "Rome is", "spans": {"subject": [0, 4]}}
    other = {**one, "spans": {"subject": [0, 3]}}
    assert shared_prompts([one], [one]) == (["a"], [], False)
    assert shared_prompts([one], [other]) == ([], ["a"], True)


def test_the_figure_pairs_only_prompts_that_are_the_same(tmp_path, monkeypatch):
    seen = {}
    drawn = comparing.side_by_side

    def watched(tables, **more):
        seen.update(tables)
        return drawn(tables, **more)

    monkeypatch.setattr(comparing, "side_by_side", watched)
    made_run(tmp_path / "a", Made(n=4))
    made_run(tmp_path / "b", Made(n=4, texts={1: "Somebody lives in the capital of"}, scale=3.0))
    report(tmp_path / "a", compare=tmp_path / "b")
    apart = difference(seen["A"], seen["B"])
    first = apart[(apart["intervention"] == "subject") & (apart["layer"] == 0)]
    made = Made(n=4)
    expected = sum(2 * made.js(i, 0, 0) for i in (0, 2, 3)) / 3
    assert first["js"].item() == pytest.approx(expected)


def test_rows_of_one_name_and_other_edits_are_named(tmp_path):
    swap = ("subject", "patch resid_post", "corrupted_run(swap())", 3, "treatment", None)
    other = (swap, *Made().rows[1:])
    made_run(tmp_path / "a", Made(n=4))
    made_run(tmp_path / "b", Made(n=4, rows=other))
    made_run(tmp_path / "c", Made(n=4, sigma=0.2))
    text = words_of(report(tmp_path / "a", tmp_path / "x.html", compare=tmp_path / "b"))
    assert (
        "Rows of one name are other edits: subject (window: 1 and 3; source: "
        "corrupted_run(noise(3.0)) and corrupted_run(swap()); noise: " in text
    )
    assert "attention (" not in text
    assert "last (" not in text
    text = words_of(report(tmp_path / "a", tmp_path / "y.html", compare=tmp_path / "c"))
    assert "subject (noise: subject 0.1 and subject 0.2)" in text
    assert "last (noise: " in text
    assert "attention (" not in text
    text = words_of(report(tmp_path / "a", tmp_path / "z.html", compare=tmp_path / "a"))
    assert "Rows of one name" not in text


def test_the_compared_figure_is_of_a_shared_metric_and_the_first_token(tmp_path):
    made_run(tmp_path / "a", Made(n=4, tokens=2))
    made_run(tmp_path / "b", Made(n=4, tokens=3, metrics=("tv", "kl")))
    made_run(tmp_path / "c", Made(n=4, metrics=("rank_clean",)))
    made_run(tmp_path / "d", Made(n=4, metrics=("tv",)))
    path = report(tmp_path / "a", tmp_path / "ab.html", compare=tmp_path / "b")
    text = words_of(path)
    assert "not drawn" not in text
    assert "Both runs and their difference: KL divergence" in text
    assert "first token after the prompt" in text
    text = words_of(report(tmp_path / "d", tmp_path / "db.html", compare=tmp_path / "b"))
    assert "Both runs and their difference: total variation" in text
    path = report(tmp_path / "c", tmp_path / "cd.html", compare=tmp_path / "d")
    assert data_of(path)["refused"] == "The runs share no metric, so nothing is subtracted."
    text = words_of(report(tmp_path / "c", tmp_path / "cc.html", compare=tmp_path / "c"))
    assert "first token after" not in text


def test_a_missing_side_table_is_named(tmp_path):
    made_run(tmp_path / "r", Made(n=4))
    (tmp_path / "r" / "prompts.parquet").unlink()
    said = r"r is damaged \(prompts.parquet is not there\); the command that made the run"
    with pytest.raises(InputError, match=said):
        report(tmp_path / "r")


def test_where_no_report_can_be_written(tmp_path, monkeypatch):
    made_run(tmp_path / "r", Made(n=4))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.html").write_text("<title>My notes on knockgrid report</title>", "utf-8")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    refused = {
        tmp_path / "folder": "folder: it is a folder; name a file in it, as .*report.html",
        "-": "'-': a report is one file that a browser opens; name one, as report.html",
        tmp_path / "mine.html": "mine.html: it is there and is no report of knockgrid",
        tmp_path / "empty": "empty: it is there and is no report",
        tmp_path / "mine.html" / "x.html": "x.html: .*mine.html is a file, not a folder",
        tmp_path / ("long" * 80): "longlong.*: .*name too long",
        "nul\0.html": "nul.*: .*null",
    }
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        refused[tmp_path / "pipe"] = "pipe: it is no ordinary file"
    before = sorted(tmp_path.rglob("*"))
    for out, why in refused.items():
        with pytest.raises(InputError, match=f"the report cannot be written to .*{why}"):
            report(tmp_path / "r", out)
    assert sorted(tmp_path.rglob("*")) == before
    assert "My notes" in (tmp_path / "mine.html").read_text("utf-8")
    own = tmp_path / "r" / "report.html"
    own.write_text("mine", "utf-8")
    with pytest.raises(InputError, match="no report of knockgrid"):
        report(tmp_path / "r")
    with pytest.raises(InputError, match="no report of knockgrid"):
        report(tmp_path / "r", own, compare=tmp_path / "r")


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    made_run(tmp_path / "r", Made(n=4))
    old = report(tmp_path / "r", tmp_path / "x.html").read_bytes()

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot be written to .*x.html: No space left"):
        report(tmp_path / "r", tmp_path / "x.html")
    assert (tmp_path / "x.html").read_bytes() == old
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r", "x.html"]


def test_a_report_is_written_again(tmp_path):
    """Also over one of another version, a comparison, and by a link; folders are made."""
    made_run(tmp_path / "r", Made(n=4))
    out = tmp_path / "new" / "folder" / "x.html"
    report(tmp_path / "r", out)
    out.write_text(re.sub('content="knockgrid [^"]*"', 'content="knockgrid 9.9"', out.read_text()))
    assert report(tmp_path / "r", out, compare=tmp_path / "r") == out
    assert report(tmp_path / "r", out) == out
    assert "knockgrid 9.9" not in out.read_text("utf-8")


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
    assert data_of(report(tmp_path / "r"))["words"]["texts"][0].startswith(" word")
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
