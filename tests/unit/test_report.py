"""The report without a browser: what is in the file, and how large it is."""

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

sys.path.insert(0, str(Path(__file__).parents[1]))  # importlib mode: `made_runs` is ours

from made_runs import Made, made_run

from knockgrid.errors import InputError
from knockgrid.reports import payload as room
from knockgrid.reports.methods import methods
from knockgrid.reports.opened import opened
from knockgrid.reports.packing import coded, for_script, packed
from knockgrid.reports.payload import payload
from knockgrid.reports.write import report
from knockgrid.runs.store import compact
from knockgrid.stats.mean_interval import mean_interval


def run_of(folder: Path, kind: type[Made] = Made, **options) -> Path:
    """A run folder of made-up numbers."""
    made_run(folder, kind(**options))
    return folder


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

    def __init__(self, page: Path):
        super().__init__()
        self.tags, self.attributes, self.text, self._skip = [], [], [], 0
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self._skip = tag in ("script", "style")

    def handle_endtag(self, tag):
        self._skip = False

    def handle_data(self, data):
        if not self._skip:
            self.text.append(data)


def words_of(page: Path) -> str:
    return " ".join(" ".join(Parts(page).text).split())


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    dropped = {"last": {"p001": "no partner"}}
    folder = tmp_path_factory.mktemp("runs") / "plain"
    return report(run_of(folder, n=12, relations=7, dropped=dropped))


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
    text = packed(np.array([1, 256], dtype=">u2"))
    assert zlib.decompress(base64.b64decode(text), wbits=-15) == b"\x01\x00\x00\x01"


def test_json_in_a_script_has_no_way_out():
    texts = ["</script>", "<!--", "]]>", "&lt;", "\u2028\u2029", "\ud800", "\x00", "é🙂"]
    text = for_script(texts)
    assert not set(text) & set("<>&\u2028\u2029\ud800\x00")
    assert json.loads(text) == texts
    assert text.isascii()


def test_means_and_intervals_are_those_of_the_table(path):
    data = data_of(path)
    for metric in data["metrics"]:
        found = mean_interval(opened(path.parent).table, metric["name"])
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
    folder = run_of(tmp_path / "free", n=5, tokens=2, wrote=True, words=("<b>", " b", "c\n"))
    data, table = data_of(report(folder)), opened(folder).table
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
    text, parts = path.read_text("utf-8"), Parts(path)
    assert text.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert not set(parts.tags) & {"iframe", "object", "embed", "base", "form"}
    assert (parts.tags.count("link"), parts.tags.count("svg")) == (1, 2)
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
    ids = [value for name, value in parts.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for name, value in parts.attributes:
        if name in ("aria-labelledby", "data-copy") or (name == "href" and value[0] == "#"):
            assert value.lstrip("#") in ids, (name, value)


def test_words_on_the_page(path):
    text = words_of(path)
    for said in (
        "4 rows × 4 layers edited in made-up (None, 30 layers), over 12 prompts",
        "Row 'last': 1 of 12 prompts took no part (no partner).",
        "over 12 prompts: 188 rows of values, divergences in nats",
        "missing values 4",
        "weights_digest",
        "0" * 64,
        "We edited made-up",
        "@article{lin1991",
    ):
        assert said in text
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
    large = {"n": 500, "layers": list(range(32)), "rows": Made().rows[:3], "per_shard": 500}
    folder = run_of(tmp_path / "large", Large, words=words, texts=texts, **large)
    run = opened(folder)
    assert len(run.table) == 500 * 3 * 32
    path = report(folder)
    data = data_of(path)
    assert path.stat().st_size < 2_000_000
    assert data["tops"]["depth"] == data["tops"]["kept"] == 10
    kept = [one["name"] for one in data["metrics"] if one["values"]]
    assert kept[:3] == ["js", "kl", "kl_reverse"]
    _, shares = tops_in(data)
    told = np.exp(np.stack(run.tops["top_logp"]).reshape(500, 3 * 32, 10))
    assert shares == pytest.approx(told, rel=4e-3)


def test_fewer_tokens_where_there_is_no_room(tmp_path, monkeypatch):
    run = opened(run_of(tmp_path / "r", n=8))
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
    assert (given[0], given[-1]) == (True, False)


FAILED = {f"p{i:03d}": "ValueError: no" for i in range(8)}
FOUR = {id: FAILED[id] for id in list(FAILED)[:4]}
EMPTY, AGAIN = "This run is empty: no shard is there", "when all shards of the run are there"
UNFINISHED, NONE = "This run is not finished: 1 of 2 shards and", "This run is empty: every prompt"
NOT_WHOLE = [  # a run, the shards that it lost, and two things that its page says
    ({"n": 8, "shards": 1}, (), f"{UNFINISHED} 4 of 8 prompts are there", "the run is finished"),
    ({"n": 8, "shards": 0}, (), "0 of 2 shards and 0 of 8 prompts", EMPTY),
    ({"n": 4, "failed": FOUR}, (), "4 prompts failed and are missing (p000: ValueError: no", NONE),
    ({"n": 8, "failed": FAILED, "shards": 1}, (), f"{UNFINISHED} 0 of 8 prompts", NONE),
    ({"n": 8}, (1,), "1 of its 2 shards is no longer there: 4 of 8 prompts are left", AGAIN),
    ({"n": 8}, (1,), "This run had ended, but", "finished no "),
    ({"n": 8}, (0, 1), "2 of its 2 shards are no longer there: 0 of 8 prompts are left", EMPTY),
    ({"n": 4, "failed": {"p000": "no"}}, (0,), "1 prompt failed and is missing", EMPTY),
]


@pytest.mark.parametrize(("options", "lost", "one", "other"), NOT_WHOLE)
def test_a_run_that_is_not_whole_says_so(tmp_path, options, lost, one, other):
    folder = run_of(tmp_path / "r", **options)
    for shard in lost:
        (folder / "shards" / f"{shard:05d}.parquet").unlink()
    page = report(folder)
    assert one in words_of(page)
    assert other in words_of(page)
    assert 'id="bibtex"' not in page.read_text("utf-8")
    with pytest.raises(InputError, match=f"{AGAIN}|every prompt failed"):
        methods(folder)


def test_an_edit_that_changes_nothing_shows_nothing_changed(tmp_path):
    """Clean and edited probabilities go through one coding, small ones and tokens too."""

    class Same(Made):
        def tops(self, prompt, row, layer):
            ids = [(prompt + k) % len(self.words) for k in range(self.top)]
            return ids, [math.log(0.6**k * 0.4) for k in range(self.top)]

    data = data_of(report(run_of(tmp_path / "r", Same, n=6)))
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

    _, shares = tops_in(data_of(report(run_of(tmp_path / "r", Sure, n=4))))
    assert not np.isnan(shares).any()
    assert shares[0, 0, 0] == 1
    assert np.log(shares[0, 0, 1:4]) == pytest.approx([-19, -30, -200], abs=4e-3)
    assert shares[0, 0, 4:].max() < 1e-190


def test_tokens_of_one_text_keep_their_ids(tmp_path):
    """Pieces of a letter read all alike."""
    folder = run_of(tmp_path / "r", n=4, words=("\ufffd",) * 40)
    run, data = opened(folder), data_of(report(folder))
    words = unpacked(data["words"]["ids"], "<u4").tolist()
    assert len(set(words)) == len(words) == len(data["words"]["texts"])
    places, _ = tops_in(data)
    assert [words[k] for k in places[0, 0]] == list(run.tops["top_tokens"][0])
    (clean,) = data["prompts"][3]["clean"]
    assert [words[place] for place, _ in clean] == list(range(3, 13))


def test_a_compact_run_gives_the_same_data(tmp_path):
    folder = run_of(tmp_path / "r", n=6)
    before = data_of(report(folder))
    compact(folder)
    assert data_of(report(folder)) == before


def test_infinite_values_have_no_interval_but_a_place(tmp_path):
    class Infinite(Made):
        def js(self, prompt, row, layer, token=0):
            return math.inf if prompt == row == layer == 0 else 0.25

    data = data_of(report(run_of(tmp_path / "r", Infinite, n=6)))
    kl = next(one for one in data["metrics"] if one["name"] == "kl")
    assert kl["mean"][0] == "inf"
    assert kl["note"].startswith("no interval: 'kl' is infinite")
    assert decoded(kl["values"])[0] == math.inf


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n": 6, "top": 0}, ["This run keeps no tokens", '"tops":null']),
        ({"n": 6, "python": True}, ["The prompt set (given in Python", 'id="bibtex"']),
        # JSON lines end at a line feed only
        ({"n": 4, "texts": {1: "one \u2028 two \x85 three \x0c four"}}, ["\\u2028"]),
        ({"n": 4, "failed": {"p000": "ValueError: \x00\x1b[31m"}}, ["1 prompt failed"]),
    ],
)
def test_other_runs_have_their_pages(tmp_path, options, said):
    text = report(run_of(tmp_path / "r", **options)).read_text("utf-8")
    assert [one for one in said if one not in text] == []
    assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", text)
