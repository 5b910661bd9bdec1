"""The Parquet file of a table, and files that are there whole or not at all."""

import errno
import io
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from knockgrid.errors import InputError
from knockgrid.table.metadata import Table, shared
from knockgrid.table.table import COLUMNS, KEY


def write_table(table: pd.DataFrame, path: str | os.PathLike) -> Path:
    """Keep `table` with its metadata as one Parquet file, whole or not at all; returns the path.

    Example:
        >>> import tempfile
        >>> from knockgrid.table.table import build
        >>> row = {"prompt": "rome", "intervention": "last", "layer": 0, "js": 0.4}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = write_table(build([row], {"unit": "bits"}), f"{folder}/table.parquet")
        ...     read_table(path).attrs["knockgrid"]["unit"]
        'bits'

    Floats are split by byte and everything is compressed with zstd; the metadata is JSON under the
    schema key `knockgrid`. The folder is created. Rows are renumbered, other attrs are not kept.

    Raises:
        InputError: a table without metadata, or with a column that Parquet cannot hold.
    """
    content = table_bytes(table)
    with whole_file(path) as file:
        file.write(content)
    return Path(path)


def table_bytes(table: pd.DataFrame) -> bytes:
    """The Parquet file of a table, as `write_table` puts it on the disk."""
    if KEY not in table.attrs:
        raise InputError("the table has no metadata (attrs['knockgrid']); make it with sweep")
    bare = table.copy(deep=False)
    bare.attrs = {}  # pyarrow would store them a second time
    try:
        arrow = pa.Table.from_pandas(bare, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(f"a column cannot be kept in Parquet: {error}") from error
    text = json.dumps(table.attrs[KEY], ensure_ascii=False)
    arrow = arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), KEY: text})
    file = io.BytesIO()
    pq.write_table(arrow, file, **coding_of(arrow.schema))
    return file.getvalue()


def coding_of(columns: pa.Schema) -> dict[str, Any]:
    """How all tables are written: floats split by byte, texts in dictionaries, zstd, checksums."""
    floats = [field.name for field in columns if pa.types.is_floating(field.type)]
    return {
        "compression": "zstd",
        "use_dictionary": [name for name in columns.names if name not in floats],
        "use_byte_stream_split": floats,
        "write_page_checksum": True,  # else a flipped bit may be another number
    }


def read_table(path: str | os.PathLike) -> pd.DataFrame:
    """The table that `write_table` kept at `path`, equal in values, types and metadata.

    Example:
        >>> import tempfile
        >>> from knockgrid.table.table import build
        >>> row = {"prompt": "rome", "intervention": "last", "layer": 0, "js": 0.4}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     read_table(write_table(build([row], {}), f"{folder}/table.parquet")).js[0]
        np.float64(0.4)

    Raises:
        InputError: a file that is not Parquet, or that knockgrid has not written.
        FileNotFoundError: no file there.
    """
    try:
        # not `pq.read_table`, which reads columns into folder names such as "model=gpt2"
        with pq.ParquetFile(path) as file:
            arrow = file.read()
    except FileNotFoundError:
        raise
    except Exception as error:  # Arrow raises many kinds for a damaged file, KeyError among them
        raise InputError(f"{str(path)!r} is not a Parquet file: {error}") from error
    text = (arrow.schema.metadata or {}).get(KEY.encode())
    if text is None:
        raise InputError(f"{str(path)!r} is Parquet, but not a table that knockgrid has written")
    try:
        table = arrow.to_pandas()
        table = Table(table.astype({c.name: c.dtype for c in COLUMNS if c.name in table}))
        table.attrs = {KEY: shared(json.loads(text))}
    except (ValueError, TypeError, RecursionError, pa.ArrowException) as error:
        raise InputError(
            f"{str(path)!r} was written by knockgrid and is damaged: {error}"
        ) from None
    return table


FINAL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENOENT)
"""Errors of a link that a copy would meet as well."""


@contextmanager
def whole_file(path: str | os.PathLike, replace: bool = True) -> Iterator[BinaryIO]:
    """A file to write that appears at `path` only when it is complete and on the disk.

    The folder is flushed as well, without which a power cut may take the name back. Without
    `replace`, a file of that name stays, and FileExistsError is raised.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # not `tempfile`, whose files only their owner may read: run folders are shared
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(part, target)
        else:
            _appear(part, target)
        _flush_names(target.parent)
    finally:
        part.unlink(missing_ok=True)


def _appear(part: Path, target: Path) -> None:
    """Give a complete file its name where no file has it, which a rename would replace.

    File systems without hard links fall back to exclusive creation.
    """
    try:
        os.link(part, target)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno in FINAL:
            raise
        with target.open("xb") as file:
            try:
                file.write(part.read_bytes())
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                target.unlink(missing_ok=True)
                raise


def _flush_names(folder: Path) -> None:
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows opens no folders, and others may forbid to read one
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in FINAL:
            raise
    finally:
        os.close(handle)
