"""What analyses of frames share: what they refuse, and metadata that go along."""

from collections.abc import Iterable

import pandas as pd

from knockgrid.errors import InputError
from knockgrid.table.table import KEY, metadata_of


def need_columns(frame: pd.DataFrame, names: Iterable[str], made_by: str) -> None:
    """Refuse a table of something else."""
    missing = [name for name in names if name not in frame]
    if missing:
        raise InputError(f"the table has no column {missing[0]!r}; give a table of {made_by}")


def refuse_denoising(table: pd.DataFrame) -> None:
    """Refuse a sweep that put clean values into the corrupted run, where a small effect counts."""
    if metadata_of(table).get("direction") == "denoising":
        raise InputError("the direction is 'denoising'; give a sweep with direction='noising'")


def described(made: pd.DataFrame, of: pd.DataFrame, /, **more: object) -> pd.DataFrame:
    """A frame with the metadata of the one it was made of, and more."""
    made.attrs = {**made.attrs, KEY: {**metadata_of(of), **more}}
    return made
