"""The rows of run folders for other programs: exported, scanned lazily, queried with SQL."""

import json
import re
import shutil
import sys
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from made_runs import METRICS, Made, made_run

import knockgrid as kg
from knockgrid.runs.shard import arrow_of, schema, write_rows
from knockgrid.runs.store import UnfinishedRun, as_lines

DOCS = Path(__file__).parents[2] / "docs"
NUMBERS = ("js", "kl", "logp_clean", "logp_answer")


@pytest.fixture
def made(tmp_path):
    """A run of two shards with a prompt that took no part in a row; later tokens have no answer."""
    dropped, metrics = {"subject": {"p001": "no"}}, (*METRICS, "logp_answer")
    made_run(tmp_path / "made", Made(dropped=dropped, metrics=metrics, tokens=2))
    return tmp_path / "made"


def swept(model, prompts, out):
    rows = kg.patch("resid_post", "last", kg.zero(), name="last")
    return kg.sweep(model, prompts, rows, layers=[0], noise_floor=False, out=out, progress=False)


def exported(folder, path):
    """The rows of a run as CSV and as JSON lines hold them."""
    kg.runs.export(folder, path / "a.csv")
    kg.runs.export(folder, path / "a.jsonl", "jsonl")
    lines = [json.loads(line) for line in (path / "a.jsonl").read_text().splitlines()]
    # what is written has every digit, but pandas 2 reads fewer by itself
    whole = dict.fromkeys(NUMBERS, lambda text: float(text or "nan"))
    return pd.read_csv(path / "a.csv", converters=whole), pd.DataFrame(lines)


def test_exports_read_back(made, tmp_path):
    table, key = kg.open_run(made), ["prompt", "intervention", "layer", "token"]
    for back in exported(made, tmp_path):
        assert len(back) == len(table)
        one, other = (t.set_index(key).sort_index() for t in (back, table))
        for name in NUMBERS:
            np.testing.assert_array_equal(
                one[name].to_numpy(float),
                other[name].astype("Float64").to_numpy(float, na_value=np.nan),
            )
    with pytest.raises(kg.InputError, match="unknown format 'xlsx'"):
        kg.runs.export(made, tmp_path / "a.xlsx", "xlsx")


def test_an_unfinished_export_says_so(tmp_path):
    made_run(tmp_path / "run", Made(shards=1))
    with pytest.warns(UnfinishedRun, match="1 of 2 shards"):
        kg.runs.export(tmp_path / "run", tmp_path / "a.csv")


def test_a_formula_stays_a_text(tiny_llama, tmp_path):
    """A spreadsheet would carry it out."""
    swept(tiny_llama, kg.Prompt("Rome is in", id="=1+1", group="@SUM(A1)"), tmp_path / "run")
    back, lines = exported(tmp_path / "run", tmp_path)
    assert (set(back["prompt"]), set(back["group"])) == ({"'=1+1"}, {"'@SUM(A1)"})
    assert (back["logp_clean"] < 0).all()  # a number stays one
    assert set(lines["prompt"]) == {"=1+1"}


def test_relation_and_subject_are_columns_of_rows_and_exports(tiny_llama, tmp_path):
    rome = kg.Prompt("Rome is in", spans={"subject": "Rome"}, id="rome", relation="in", group="g")
    given = [rome, kg.Prompt("Oslo is in", id="oslo")]
    table = swept(tiny_llama, given, tmp_path / "run")
    pd.testing.assert_frame_equal(table, swept(tiny_llama, given, None), check_exact=True)
    scanned = kg.runs.scan_run(tmp_path / "run").to_table().to_pandas()
    for back in (table, scanned, *exported(tmp_path / "run", tmp_path)):
        labels = back.drop_duplicates("prompt").set_index("prompt")
        labels = labels[["relation", "subject", "group"]]
        assert labels.loc["rome"].tolist() == ["in", "Rome", "g"]
        assert labels.loc["oslo"].isna().all()


def test_what_json_has_no_word_for():
    rows = {"prompt": ["a"], "kl": [float("inf")], "js": [4.7e-12], "js_to_source": [None]}
    frame = pd.DataFrame({**rows, "intervention": "last", "layer": 0})
    line = json.loads(as_lines(arrow_of(frame, pa.Schema.from_pandas(frame))))
    assert (line["kl"], line["js"], line["js_to_source"]) == ("inf", 4.7e-12, None)


@pytest.mark.parametrize("state", ["shards", "compact", "other files beside"])
@pytest.mark.parametrize(("page", "run"), [("runs.md", "runs/mine"), ("scaling.md", "runs/big")])
def test_the_sql_of_the_documentation(made, page, run, state):
    """DuckDB over shards or the one file, as it stands there."""
    if state != "shards":
        kg.runs.compact(made)
    if state == "other files beside":
        shutil.copy(made / "prompts.parquet", made / "labels.parquet")
    (query,) = re.findall(r"```sql\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL)
    found, table = duckdb.sql(query.replace(run, str(made))).df(), kg.open_run(made)
    key = [name for name in ("intervention", "layer", "relation") if name in found]
    ok = table[table["status"] == "ok"].groupby(key)
    there = ok.agg(mean=("js", "mean"), n_rows=("js", "size"), n_prompts=("prompt", "nunique"))
    both = found.set_index(key).join(there)
    assert len(both) == len(there)
    np.testing.assert_allclose(both["js"], both["mean"], rtol=1e-12)
    counts = ("n", "n_rows") if "n" in both else ("prompts", "n_prompts")
    assert (both[counts[0]] == both[counts[1]]).all()


def test_ten_million_rows_stay_queryable(tmp_path, made):
    """The recipe of the documentation, on a run of 111,120 prompts."""
    columns, shards, per, cells = schema(["js", "kl"]), 10, 11_112, 90
    (tmp_path / "big" / "shards").mkdir(parents=True)
    manifest = json.loads((made / "manifest.json").read_text())
    manifest["plan"]["shards"] = shards
    (tmp_path / "big" / "manifest.json").write_text(json.dumps(manifest))
    layer = np.tile(np.arange(30), per * 3)
    name = np.tile(np.repeat(["subject", "attention", "last"], 30), per)
    same = {"layer": layer, "intervention": name, "token": 0, "samples": 1, "status": "ok"}
    frame = pd.DataFrame(same).reindex(columns=columns.names)
    random, sums = np.random.default_rng(0), np.zeros(30)
    for number in range(shards):
        frame["prompt"] = np.repeat([f"p{number}-{i}" for i in range(per)], cells)
        frame["js"] = random.random(per * cells)
        sums += np.bincount(layer[name == "last"], frame["js"][name == "last"], 30)
        with (tmp_path / "big" / "shards" / f"{number:05d}.parquet").open("wb") as file:
            write_rows(arrow_of(frame, columns), file)
    rows = duckdb.sql(
        f"SELECT layer, avg(js), count(*) FROM '{tmp_path}/big/shards/*.parquet' "
        "WHERE intervention = 'last' GROUP BY layer ORDER BY layer"
    ).fetchall()
    assert [(one[0], one[2]) for one in rows] == [(i, shards * per) for i in range(30)]
    np.testing.assert_allclose([one[1] for one in rows], sums / (shards * per), rtol=1e-12)
    lazily = kg.runs.scan_run(tmp_path / "big")
    assert lazily.count_rows() == shards * per * cells
    counted = duckdb.sql("SELECT count(DISTINCT prompt) FROM lazily").fetchall()
    assert counted == [(shards * per,)]
