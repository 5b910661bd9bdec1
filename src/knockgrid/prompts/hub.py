"""Rows of a Hugging Face data set, of which only data are read."""

from collections.abc import Collection, Iterator
from typing import Any

from knockgrid.errors import InputError, cut, shown


def hub_rows(name: str, wanted: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of `name[:split]` with their place; other columns are not decoded.

    Raises:
        InputError: a data set that cannot be loaded, or that would run code of its own.
    """
    try:
        from datasets import load_dataset
    except ImportError:
        raise InputError(
            f"hf:{shown(name)[1:-1]} needs the package datasets, which is not installed; "
            "pip install datasets, or give a JSONL, CSV or Parquet file"
        ) from None
    path, _, split = name.partition(":")
    try:
        # versions 4 and up run no script in any case; older ones would ask
        dataset = load_dataset(path, split=split or "train", trust_remote_code=False)
        there = list(dataset.column_names)
        dataset = dataset.select_columns([one for one in there if one in wanted])
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"data set {shown(path)} (split {shown(split or 'train')}) could not be loaded "
            f"({cut(reason, 160)}); give hf:name:split"
        ) from None
    for number, row in enumerate(dataset, 1):
        yield (
            f"hf:{path} row {number}",
            {**dict.fromkeys(there if number == 1 else ()), **dict(row)},
        )
