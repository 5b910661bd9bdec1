"""The side table on disk: one row per prompt, with its tokens and what its clean run said."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from knockgrid.table.parquet import whole_file
from knockgrid.table.table import LISTS
from knockgrid.runs.shard import Damaged, rows_writer

TEXTS, NUMBERS = pa.list_(pa.string()), pa.list_(pa.int64())
COLUMNS = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("spans", pa.string()),
        ("subject", pa.string()),
        ("relation", pa.string()),
        ("group", pa.string()),
        ("answers", TEXTS),
        ("separator", pa.string()),
        ("n_prompt", pa.int64()),
        ("subject_tokens", NUMBERS),
        ("tokens", TEXTS),
        ("generated", TEXTS),
        ("logp_clean", pa.float64()),
        ("logp_answer_clean", pa.float64()),
        ("rank_answer_clean", pa.int64()),
        ("js_corrupted", pa.string()),
        ("swap", pa.string()),
        ("top_tokens", pa.list_(NUMBERS)),
        ("top_logp", pa.list_(pa.list_(pa.float64()))),
    ]
)
AS_JSON = ("spans", "js_corrupted", "swap")
"""Columns of nested values, whose keys differ from prompt to prompt."""


def write_sides(sides: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Keep side entries as Parquet."""
    nested = [{n: json.dumps(side[n], ensure_ascii=False) for n in AS_JSON} for side in sides]
    rows = [{**side, **texts} for side, texts in zip(sides, nested, strict=True)]
    table = pa.Table.from_pylist(rows, schema=COLUMNS)
    with whole_file(path) as file, rows_writer(COLUMNS, file) as writer:
        writer.write_table(table)


def read_sides(path: Path) -> list[dict[str, Any]]:
    """The side entries that `write_sides` kept."""
    if not path.is_file():
        raise Damaged(f"{path.name} is not there")
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        rows = file.read().to_pylist()
    whole = ({**row, **{name: json.loads(row[name]) for name in AS_JSON}} for row in rows)
    return [{k: v for k, v in row.items() if v is not None or k not in LISTS} for row in whole]
