"""The most probable tokens of every row: what is kept, where it lies, and who must not see it."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import knockgrid as kg
from knockgrid.engine.top_tokens import top_tokens
from knockgrid.errors import InputError
from knockgrid.runs.finish import read_sides
from knockgrid.runs.run_folder import RunFolder
from knockgrid.runs.shard import Damaged, Shard, read_shard, write_shard
from knockgrid.runs.store import compact, export
from knockgrid.runs.verification import verify

LISTS = ["top_tokens", "top_logp"]
QUIET = {"noise_floor": False, "progress": False}


@pytest.fixture(scope="module")
def rows():
    return kg.information_flow(kg.corrupted_run(by=kg.swap()), window=1)


@pytest.fixture
def run(tiny_llama, prompts, rows, tmp_path):
    """A run folder that keeps the three most probable tokens, and its table."""
    folder = tmp_path / "run"
    table = kg.sweep(tiny_llama, prompts, rows, out=folder, top=3, batch=1, **QUIET)
    return folder, table


@pytest.mark.parametrize("size", [5, 400, 2000, 49152, 50257])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_largest_of_a_full_sort(size, dtype):
    """Also where the vocabulary is no multiple of a block, or has fewer tokens than are asked."""
    rows = torch.randn(3, size, generator=torch.Generator().manual_seed(size)).to(dtype)
    rows[0, -1] = rows[1, 0] = 30.0
    expected = rows.float().log_softmax(-1)
    for (ids, logp), row in zip(top_tokens(rows, 10), expected, strict=True):
        assert len(ids) == len(set(ids)) == min(10, size)
        best = row.sort(descending=True).values[:10]
        assert logp == pytest.approx(best.tolist(), abs=2e-5)
        assert row[ids].tolist() == pytest.approx(logp, abs=2e-5)


def test_rows_keep_the_intervened_run(tiny_llama, prompts, rows, telling, tmp_path):
    """Against the logits that the executor gave, sorted by hand."""
    out = tmp_path / "r"
    kg.sweep(tiny_llama, prompts, rows, out=out, top=4, executor=telling, **QUIET)
    frame = kg.open_run(out, columns=["prompt", "intervention", "layer", "status", *LISTS])
    ok = frame[frame["status"] == "ok"]
    assert len(ok) > 8
    for row in ok.itertuples():
        logits = telling.logits[row.prompt, row.intervention, row.layer, 0][0]
        best = logits.log_softmax(-1).sort(descending=True)
        assert row.top_tokens.tolist() == best.indices[:4].tolist()
        assert row.top_logp == pytest.approx(best.values[:4].numpy(), abs=1e-5)
    assert frame.loc[frame["status"] != "ok", "top_tokens"].isna().all()


def test_of_samples_the_mean_distribution_is_kept(tiny_llama, prompts, telling, tmp_path):
    rows = kg.information_flow(kg.corrupted_run(by=kg.noise(3.0)), window=1)[:1]
    out = tmp_path / "r"
    options = {"top": 4, "samples": 3, "executor": telling, "layers": [0]}
    kg.sweep(tiny_llama, prompts[1], rows, out=out, **QUIET, **options)
    (tokens,) = kg.open_run(out, columns=["top_tokens"])["top_tokens"]
    drawn = [telling.logits["tower", "subject", 0, sample][0].softmax(-1) for sample in range(3)]
    mean = sum(drawn) / 3
    assert not torch.equal(drawn[0], drawn[1])
    assert tokens.tolist() == mean.sort(descending=True).indices[:4].tolist()


def test_the_side_table_keeps_the_clean_run(run, tiny_llama, prompts, plain, ids_of):
    folder, table = run
    texts = json.loads((folder / "tokens.json").read_text("utf-8"))
    sides = read_sides(folder / "prompts.parquet")
    for side, prompt in zip(sides, prompts, strict=True):
        best = plain(ids_of(prompt.text)).logits[0, -1].log_softmax(-1).sort(descending=True)
        assert side["top_tokens"] == [best.indices[:3].tolist()]
        assert side["top_logp"][0] == pytest.approx(best.values[:3].tolist(), abs=1e-5)
        first = side["top_tokens"][0][0]
        assert texts[str(first)] == tiny_llama.tokenizer.decode([first]) == side["generated"][0]
    frame = kg.open_run(folder, columns=LISTS)
    named = {int(one) for ids in frame["top_tokens"].dropna() for one in ids}
    assert named <= set(map(int, texts))


def test_tables_have_no_lists(run, tiny_llama, prompts, rows, tmp_path):
    folder, table = run
    plainly = kg.sweep(tiny_llama, prompts, rows, out=tmp_path / "b", batch=1, top=0, **QUIET)
    assert table.equals(plainly)
    assert not set(LISTS) & set(table)
    assert not (tmp_path / "b" / "tokens.json").exists()
    assert "top_tokens" not in plainly.attrs["knockgrid"]["prompts"][0]


def test_every_way_through_the_folder(run):
    """Resumed, verified, made into one file, exported."""
    folder, table = run
    before = kg.open_run(folder, columns=LISTS)
    assert verify(folder).mismatches == []
    compact(folder)
    assert verify(folder).mismatches == []
    after = kg.open_run(folder, columns=LISTS)
    for name in LISTS:
        assert [list(v) for v in before[name].dropna()] == [list(v) for v in after[name].dropna()]
    header = export(folder, folder / "t.csv").read_text("utf-8").splitlines()[0]
    assert not set(LISTS) & set(header.split(","))
    lines = export(folder, folder / "t.jsonl", "jsonl").read_text("utf-8").splitlines()
    assert [len(line["top_logp"]) for line in map(json.loads, lines) if line["status"] == "ok"]


@pytest.mark.parametrize("column", LISTS)
def test_a_changed_token_breaks_the_digest(run, column, tmp_path):
    folder, _ = run
    path = folder / "shards" / "00000.parquet"
    run_digest = RunFolder(folder).manifest["run_digest"]
    whole = read_shard(path, run_digest)
    stamp = pq.read_schema(path).metadata
    values = whole.table[column].to_pylist()
    values[0][-1] += 1
    place = whole.table.column_names.index(column)
    kind = whole.table.schema.field(column)
    changed = whole.table.set_column(
        place, kind, pa.array(values, kind.type)
    ).replace_schema_metadata(stamp)
    pq.write_table(changed, path)
    with pytest.raises(Damaged, match="rows are not those"):
        read_shard(path, run_digest)


def test_digests_do_not_depend_on_how_arrays_are_printed(run):
    folder, _ = run
    number = RunFolder(folder).manifest["run_digest"]
    path = folder / "shards" / "00000.parquet"
    with np.printoptions(precision=2, threshold=1):
        shard = read_shard(path, number)
        write_shard(Shard(shard.table, shard.about), path)
    read_shard(path, number)


def test_another_number_of_tokens_is_another_run(tiny_llama, prompts, rows, tmp_path):
    options = {"out": tmp_path / "r", "progress": False}
    kg.sweep(tiny_llama, prompts, rows, **options)
    kg.sweep(tiny_llama, prompts, rows, top=10, **options)
    with pytest.raises(InputError, match="other settings \\(top\\)"):
        kg.sweep(tiny_llama, prompts, rows, top=2, **options)


@pytest.mark.parametrize("top", [-1, True])
def test_what_is_no_number_of_tokens(tiny_llama, prompts, rows, top, tmp_path):
    with pytest.raises(InputError, match="top is .*whole number of at least 0"):
        kg.sweep(
            tiny_llama,
            prompts,
            rows,
            out=tmp_path / "r",
            top=top,
            noise_floor=False,
            progress=False,
        )


def test_tokens_need_a_folder(tiny_llama, prompts, rows):
    with pytest.raises(InputError, match="top is given, but there is no folder"):
        kg.sweep(tiny_llama, prompts, rows, top=3, progress=False)
