"""Rows of a Parquet file, a few at a time, whatever its header promises."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from knockgrid._errors import InputError, cut, shown
from knockgrid.datasets._rows import NAMES

BATCH = 64
"""Rows in memory as Python objects: a file of a few bytes can hold a long text in all of them."""
MOST_ROWS, MOST_BYTES = 10**7, 2**30


def parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a file with their place; only the columns of a prompt are read.

    Raises:
        InputError: a file that is not Parquet, is damaged or too large once unpacked, or holds no
            column of text.
    """
    import pyarrow.parquet as pq

    number = size = 0
    try:
        # not `pq.read_table`, which reads columns into folder names such as "model=gpt2"
        with pq.ParquetFile(path) as file:
            # counted here: what row groups say of themselves ends the process where it is damaged
            for batch in file.iter_batches(BATCH, columns=_columns(file, path.name)):
                size += batch.nbytes
                if number + batch.num_rows > MOST_ROWS or size > MOST_BYTES:
                    raise InputError(
                        f"{path.name} unpacks to more than {MOST_ROWS:,} rows or {MOST_BYTES:,} "
                        "bytes of prompts; split it"
                    )
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path.name} row {number}", row
    except InputError:
        raise
    except Exception as error:  # Arrow raises many kinds for a damaged file, KeyError among them
        reason = cut(" ".join(str(error).split()) or type(error).__name__, 120)
        raise InputError(f"{path.name} is not a Parquet file ({reason})") from None


def _columns(file: Any, name: str) -> list[str]:
    """The columns to read.

    Raises:
        InputError: none of them has text, or one comes twice.
    """
    there = list(file.schema_arrow.names)
    wanted = [column for column in NAMES if column in there]
    if not {"text", "prompt", "template"} & set(wanted):
        raise InputError(
            f"{name} has no column 'text', 'prompt' or 'template'; it has {shown(there)}"
        )
    for column in wanted:
        if there.count(column) > 1:
            raise InputError(f"{name} has the column {column!r} twice; leave one out")
    return wanted
