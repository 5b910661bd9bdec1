"""Digests: what a run's manifest says of its files and of the rows of its table."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd


def file_digest(path: Path) -> str:
    """The sha256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def footer_digest(path: Path) -> str:
    """The sha256 of a Parquet file's footer, which, unlike its pages, carries no checksum."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 8))
        length = int.from_bytes(file.read(4), "little")
        file.seek(max(0, size - 8 - length))
        return bytes_digest(file.read())


def bytes_digest(content: bytes) -> str:
    """The sha256 that a file of these bytes has."""
    return hashlib.sha256(content).hexdigest()


def row_digests(table: pd.DataFrame) -> dict[str, dict[str, str]]:
    """A digest per prompt and intervention, so that a changed number can be traced to its rows.

    Names, order and values of all columns enter, missing values as such; index and dtype do not.
    """
    columns = [_bytes(table[name]) for name in table]
    head = "\x1f".join(map(str, table.columns)).encode()
    found: dict[str, dict[str, str]] = {}
    groups: dict[Any, Any] = table.groupby(["prompt", "intervention"], sort=False).indices
    for (prompt, intervention), rows in groups.items():
        digest = hashlib.sha256(head)
        for column in columns:
            if isinstance(column, np.ndarray):
                digest.update(column[rows].tobytes())
            else:
                digest.update(json.dumps([column[i] for i in rows]).encode())
        found.setdefault(str(prompt), {})[str(intervention)] = digest.hexdigest()[:16]
    return found


def _text(value: Any) -> str:
    return json.dumps(value.tolist()) if isinstance(value, np.ndarray) else str(value)


def _bytes(column: pd.Series) -> np.ndarray | list[str | None]:
    """A column as float64 with one kind of NaN, or as a list of texts, None for a missing one."""
    if pd.api.types.is_numeric_dtype(column.dtype):
        values = column.astype("Float64").to_numpy(np.float64, na_value=np.nan)
        return np.where(np.isnan(values), np.nan, values)
    missing = column.isna()
    return [None if gone else _text(value) for value, gone in zip(column, missing, strict=True)]
