"""Shard: the rows of one batch of prompts in one file, which says itself whether it is whole."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from knockgrid.table.parquet import coding_of, whole_file
from knockgrid.table.table import COLUMNS, KEY, LABELS, Table
from knockgrid.runs.digests import row_digests
from knockgrid.runs.manifest import SCHEMA

DIGEST = b"knockgrid_digest"
LIST_OF = {"top_tokens": pa.list_(pa.int32()), "top_logp": pa.list_(pa.float32())}
OF_PROMPT, OF_INTERVENTION = ("relation", "subject"), ("row", "kind", "source", "place")
NEW = ("source_layer", "span", "measured")
SINCE = {
    **dict.fromkeys(OF_PROMPT, 3),
    **dict.fromkeys(OF_INTERVENTION, 4),
    **dict.fromkeys(NEW, 5),
}
"""Columns that shards of an older layout lack."""
ARROW = {"string": pa.string(), "Int64": pa.int64(), "float64": pa.float64()}


class Damaged(Exception):
    """Why a shard cannot be believed."""


@dataclass(frozen=True, eq=False)
class Shard:
    """The rows of some prompts, and `about`, which `Work.carry_out` fills.

    It holds the digests of the run's settings (`config`) and of all that was decided when it was
    begun (`run`), the shard's `number`, its `prompts`, and what became of them.
    """

    table: pa.Table
    about: Mapping[str, Any]

    @property
    def failed(self) -> Mapping[str, str]:
        """Prompts that raised, with their error."""
        return self.about["failed"]


def schema(measures: Sequence[str], layout: int = SCHEMA) -> pa.Schema:
    """The one schema of a run's shards: all labels, then the numbers that it measures."""
    known = {column.name: column for column in COLUMNS}
    always = {c.name for c in COLUMNS if c.unit in LABELS and SINCE.get(c.name, 0) <= layout}
    kept = [c for c in COLUMNS if c.name in always or c.name in measures]
    fields = [(c.name, ARROW.get(c.dtype, pa.float64())) for c in kept]
    fields += [(n, LIST_OF.get(n, pa.float64())) for n in measures if n not in known]
    return pa.schema(fields)


def schema_of(manifest: Mapping[str, Any]) -> pa.Schema:
    """The schema of a run's shards, as its layout has it."""
    return schema(manifest["plan"]["columns"], manifest["schema"])


def arrow_of(frame: pd.DataFrame | None, columns: pa.Schema) -> pa.Table:
    """Rows in the run's schema; None for a shard in which every prompt failed."""
    if frame is None:
        return columns.empty_table()
    bare = frame.copy(deep=False)
    bare.attrs = {}
    made = pa.Table.from_pandas(bare, schema=columns, preserve_index=False)
    return made.replace_schema_metadata()


def pandas_of(table: pa.Table) -> pd.DataFrame:
    """Rows of shards with the dtypes of the table."""
    frame = table.replace_schema_metadata().to_pandas()
    return Table(frame.astype({c.name: c.dtype for c in COLUMNS if c.name in frame}))


def write_shard(shard: Shard, path: Path, replace: bool = True) -> None:
    """Keep a shard, whole and on the disk or not at all, as `whole_file` does."""
    digests = row_digests(pandas_of(shard.table))
    about = {**shard.about, "rows": len(shard.table), "digests": digests}
    text = json.dumps(about, ensure_ascii=False)
    stamped = shard.table.replace_schema_metadata({KEY: text, DIGEST: _digest(text)})
    with whole_file(path, replace) as file:
        write_rows(stamped, file)


def write_rows(table: pa.Table, file: Any) -> None:
    """Rows as Parquet."""
    with rows_writer(table.schema, file) as writer:
        writer.write_table(table)


def rows_writer(columns: pa.Schema, file: Any) -> pq.ParquetWriter:
    """A writer of rows in the coding of all of this project's tables."""
    return pq.ParquetWriter(file, columns, **coding_of(columns))


def read_about(path: Path, run: str) -> dict[str, Any]:
    """What a shard says of itself; its footer is read, its rows are not."""
    with damage_said("its footer"), pq.ParquetFile(path) as file:
        metadata, rows = file.schema_arrow.metadata or {}, file.metadata.num_rows
    text = metadata.get(KEY.encode(), b"").decode("utf-8", "replace")
    if metadata.get(DIGEST) != _digest(text).encode():
        raise Damaged("its footer is not the one that was written")
    about = json.loads(text)
    if about["run"] != run:
        raise Damaged("it belongs to another run")
    if about["rows"] != rows:
        raise Damaged(f"it has {rows} rows instead of {about['rows']}")
    return about


def read_shard(path: Path, run: str, columns: pa.Schema | None = None) -> Shard:
    """A shard, once every row has been held against its digest."""
    about = read_about(path, run)
    with damage_said("its rows"), pq.ParquetFile(path, page_checksum_verification=True) as file:
        table = file.read().replace_schema_metadata()
    if columns is not None and not table.schema.equals(columns):
        raise Damaged("its columns are not those of the run")
    if row_digests(pandas_of(table)) != about["digests"]:
        raise Damaged("its rows are not those that were written")
    return Shard(table, about)


@contextmanager
def damage_said(what: str) -> Iterator[None]:
    """`Damaged` instead of what pyarrow says of a damaged file.

    Errors of the system, of which the file is innocent, have a number and stay as they are.
    """
    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Damaged(f"{what} cannot be read ({first})") from None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
