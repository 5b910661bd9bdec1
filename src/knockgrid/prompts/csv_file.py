"""Rows of a CSV or TSV file with a header."""

import csv
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path

from knockgrid.errors import InputError, shown
from knockgrid.prompts.lines import lines
from knockgrid.prompts.prompt import trimmed


def csv_rows(path: Path, wanted: Collection[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a file with their place; cells are text, whatever a spreadsheet would make of it.

    Raises:
        InputError: a row that is not CSV, or has more cells than the header, which would lose a
            part of a text with a comma in it; a column of prompts that comes twice.
    """
    tabs = path.suffix.lower() == ".tsv"
    texts = (line for _, line in lines(path))
    reader = csv.DictReader(texts, strict=True, delimiter="\t" if tabs else ",")
    try:
        header = reader.fieldnames = [trimmed(name) for name in reader.fieldnames or ()]
        if len(header) == 1 and (mark := next((c for c in ";\t|" if c in header[0]), None)):
            raise InputError(
                f"{path.name} has one column, {shown(header[0])}; it seems to be separated by "
                f"{mark!r}: save it with commas, or with tabs as .tsv"
            )
        for name, times in Counter(header).items():
            if name in wanted and times > 1:
                raise InputError(f"{path.name} has the column {shown(name)} twice; leave one out")
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
