"""Rows of a CSV file with a header."""

import csv
from collections.abc import Iterator
from pathlib import Path

from knockgrid._errors import InputError
from knockgrid.datasets._lines import lines
from knockgrid.datasets._rows import NAMES


def csv_rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a file with their place; cells are text, whatever a spreadsheet would make of it.

    Raises:
        InputError: a row that is not CSV, or has more cells than the header, which would lose a
            part of a text with a comma in it; a column of prompts that comes twice.
    """
    reader = csv.DictReader((line for _, line in lines(path)), strict=True)
    try:
        header = list(reader.fieldnames or ())
        for name in NAMES:
            if header.count(name) > 1:
                raise InputError(f"{path.name} has the column {name!r} twice; leave one out")
        for row in reader:
            where = f"{path.name} line {reader.line_num}"
            spare = row.pop(None, None)  # type: ignore[call-overload]
            if spare and any(spare):
                raise InputError(
                    f"{where} has {len(header) + len(spare)} cells and the header {len(header)}; "
                    'quote a cell with commas in it: "Rome, the capital"'
                )
            yield where, row
    except csv.Error as error:  # its own line number is that of the last good row
        raise InputError(
            f"{path.name} line {reader.reader.line_num} is not CSV ({error})"
        ) from None
