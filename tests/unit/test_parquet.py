"""Tables in Parquet there and back, and files that are there whole or not at all."""

import json
import os
import stat

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knockgrid.errors import InputError
from knockgrid.table.parquet import read_table, whole_file, write_table
from knockgrid.table.table import build


def full():
    """A table with a missing value, an infinite one, empty columns and one of the user's own."""
    row = {"head": None, "module": "attn", "rank_answer": None, "kl": np.inf, "mine": 1.5}
    rows = [
        {**row, "prompt": p, "intervention": n, "layer": layer, "js": float(layer)}
        for p in "ab"
        for n in ("subject", "last")
        for layer in (4, 0)
    ]
    prompts = [{"id": "a", "text": "Łódź – 東京"}]
    made = build(rows, {"unit": "nats", "prompts": prompts, "layer_order": [4, 0]})
    made.loc[0, ["js", "status"]] = [np.nan, "NA: layer 4 cannot see the edge"]
    return made


def test_parquet_there_and_back(tmp_path):
    path = write_table(full(), tmp_path / "runs" / "model=x" / "table.parquet")
    back = read_table(path)
    pd.testing.assert_frame_equal(back, full())
    assert list(back.dtypes.astype(str)) == list(full().dtypes.astype(str))
    assert back.attrs == full().attrs


@settings(max_examples=25)
@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=20),
    st.dictionaries(st.text(), st.recursive(st.integers() | st.text() | st.none(), st.lists)),
)
def test_parquet_there_and_back_for_any_values(tmp_path_factory, values, metadata):
    row = {"intervention": "last", "layer": 0}
    made = build([{**row, "prompt": str(i), "kl": v} for i, v in enumerate(values)], metadata)
    path = write_table(made, tmp_path_factory.mktemp("any") / "table.parquet")
    pd.testing.assert_frame_equal(read_table(path), made)
    assert read_table(path).attrs == made.attrs


def test_the_file_is_compressed_split_by_byte_and_the_same_each_time(tmp_path):
    first, second = (write_table(full(), tmp_path / name).read_bytes() for name in "xy")
    assert first == second
    group = pq.ParquetFile(tmp_path / "x").metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    split = {name for name, c in columns.items() if "BYTE_STREAM_SPLIT" in c.encodings}
    assert split == {"alpha", "js", "kl", "rank_answer", "mine"}


def test_the_schema_holds_the_metadata_once_and_a_filtered_table_is_renumbered(tmp_path):
    part = full()[full().layer == 0]
    schema = pq.read_schema(write_table(part, tmp_path / "t"))
    assert json.loads(schema.metadata[b"knockgrid"]) == full().attrs["knockgrid"]
    assert b"layer_order" not in schema.metadata[b"pandas"]
    assert list(read_table(tmp_path / "t").index) == list(range(len(part)))


def test_read_refuses_what_it_did_not_write(tmp_path):
    (tmp_path / "text").write_text("layer,js")
    pd.DataFrame({"js": [0.1]}).to_parquet(tmp_path / "other")
    for name, error, words in (
        ("text", InputError, "not a Parquet file"),
        ("other", InputError, "not a table that knockgrid has written"),
        ("absent", FileNotFoundError, "absent"),
    ):
        with pytest.raises(error, match=words):
            read_table(tmp_path / name)


def test_write_refuses_a_table_without_metadata_or_with_odd_objects(tmp_path):
    with pytest.raises(InputError, match="no metadata"):
        write_table(pd.DataFrame({"js": [0.1]}), tmp_path / "t")
    odd = full()
    odd["mine"] = [object()] * len(odd)
    with pytest.raises(InputError, match="cannot be kept in Parquet"):
        write_table(odd, tmp_path / "t")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "t"
    path.write_bytes(b"old")

    def interrupted():
        with whole_file(path) as file:
            file.write(b"half")
            assert path.read_bytes() == b"old"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_flushed_to_disk_before_it_appears(tmp_path, monkeypatch):
    seen = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda f: (seen.append((tmp_path / "t").exists()), real(f)))
    with whole_file(tmp_path / "t") as file:
        file.write(b"all")
    assert seen[0] is False  # the file; its folder is flushed when it has its name
    assert (tmp_path / "t").read_bytes() == b"all"


def test_files_get_the_usual_permissions(tmp_path):
    (tmp_path / "plain").write_text("")
    with whole_file(tmp_path / "t") as file:
        file.write(b"all")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "t")}
    assert len(modes) == 1
