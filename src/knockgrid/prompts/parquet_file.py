"""Rows of a Parquet file, a few at a time, whatever its header promises."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from knockgrid.errors import InputError, cut, shown

BATCH = 64
"""Rows in memory as Python objects: a file of a few bytes can hold a long text in all of them."""
MOST_ROWS, MOST_BYTES = 10**7, 2**30


def parquet_rows(path: Path, wanted: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a file with their place; of other columns the first one has the names only.

    Raises:
        InputError: a file that is not Parquet, is damaged or too large once unpacked, or holds no
            column of text.
    """
    import pyarrow.parquet as pq

    number = size = 0
    try:
        # not `pq.read_table`, which reads columns into folder names such as "model=gpt2"
        with pq.ParquetFile(path) as file:
            there = list(file.schema_arrow.names)
            # counted here: what row groups say of themselves ends the process where it is damaged
            for batch in file.iter_batches(BATCH, columns=_columns(there, wanted, path.name)):
                size += batch.nbytes
                if number + batch.num_rows > MOST_ROWS or size > MOST_BYTES:
                    raise InputError(
                        f"{path.name} unpacks to more than {MOST_ROWS:,} rows or {MOST_BYTES:,} "
                        "bytes of prompts; split it"
                    )
                for row in batch.to_pylist():
                    number += 1
                    names = dict.fromkeys(there) if number == 1 else {}
                    yield f"{path.name} row {number}", {**names, **row}
    except InputError:
        raise
    except Exception as error:  # Arrow raises many kinds for a damaged file, KeyError among them
        reason = cut(" ".join(str(error).split()) or type(error).__name__, 120)
        raise InputError(f"{path.name} is not a Parquet file ({reason})") from None


def _columns(there: list[str], wanted: Collection[str], name: str) -> list[str]:
    """The columns to read.

    Raises:
        InputError: there is none, or one comes twice.
    """
    read = [column for column in dict.fromkeys(there) if column in wanted]
    if not read:
        raise InputError(
            f"{name} has no column 'text', 'prompt' or 'template'; it has {shown(there)}; say what "
            "they are: columns={...}"
        )
    for column in read:
        if there.count(column) > 1:
            raise InputError(f"{name} has the column {column!r} twice; leave one out")
    return read
