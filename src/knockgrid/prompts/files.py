"""Rows of a prompt file, each with its place; anybody may have written it, so all is bounded."""

import csv
import os.path
from collections.abc import Collection, Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

from knockgrid.errors import InputError, cut, shown, unknown
from knockgrid.prompts.prompt import trimmed
from knockgrid.prompts.rows import LONGEST
from knockgrid.prompts.strict_json import after_space, loads, value_at

Row = tuple[str, dict[str, Any]]
"""The place of a row in its file, and its columns."""

LARGEST_JSON = 2**29
"""Bytes of a JSON file, which is read whole; JSON Lines has no such bound."""
BATCH = 64
"""Parquet rows in memory at once: a file of a few bytes can hold a long text in each of them."""
MOST_ROWS, MOST_BYTES = 10**7, 2**30
UTF16 = (b"\xff\xfe", b"\xfe\xff")


def rows_of(source: str, wanted: Collection[str]) -> Iterator[Row]:
    """The rows of a file or of `hf:name[:split]`; other columns than `wanted` may stay unread."""
    if source.startswith("hf:"):
        return hub_rows(source.removeprefix("hf:"), wanted)
    path = Path(source)
    kind = path.suffix.lower()
    if kind not in READERS:
        raise unknown("kind of prompt file", path.suffix or source, [*READERS, "hf:name"])
    if not os.path.isfile(source):  # also false for a name that no file system takes
        raise InputError(f"there is no prompt file {shown(source)}; check the path")
    return READERS[kind](path, wanted)


def lines(path: Path, longest: int = LONGEST) -> Iterator[tuple[str, str]]:
    """Lines with their place and their ends (LF, CR LF or CR), one in memory at a time."""
    numbers = count(1)
    try:
        with path.open("rb") as file:
            utf16 = file.peek(2).startswith(UTF16)
            while chunk := file.readline(longest + 1):
                for line in chunk.splitlines(keepends=True):
                    number = next(numbers)
                    where = f"{path.name} line {number}"
                    if len(line) > longest:
                        raise InputError(
                            f"{where} is longer than {longest:,} bytes; a line is one prompt"
                        )
                    yield where, _decoded(line, where, number == 1, utf16)
    except OSError as error:
        raise InputError(f"{path.name} cannot be read ({error.strerror})") from None


def _decoded(line: bytes, where: str, is_first: bool, utf16: bool) -> str:
    try:
        text = line.decode("utf-8-sig" if is_first else "utf-8")
    except UnicodeDecodeError as error:
        hint = ", the file looks like UTF-16" if utf16 else ""
        raise InputError(
            f"{where} is not UTF-8 (byte {error.start}{hint}); save it as UTF-8"
        ) from None
    if "\0" in text:
        raise InputError(
            f"{where} holds a NUL byte, as UTF-16 and binary files do; save it as UTF-8"
        )
    return text


def csv_rows(path: Path, wanted: Collection[str]) -> Iterator[Row]:
    """The rows of a CSV or TSV file with a header; cells are text, whatever a spreadsheet thinks.

    A row with more cells than the header is refused: a text with a comma in it would lose a part.
    """
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    texts = (line for _, line in lines(path))
    reader = csv.DictReader(texts, strict=True, delimiter=delimiter)
    try:
        header = reader.fieldnames = [trimmed(name) for name in reader.fieldnames or ()]
        if len(header) == 1 and (mark := next((c for c in ";\t|" if c in header[0]), None)):
            raise InputError(
                f"{path.name} has one column, {shown(header[0])}; it seems to be separated by "
                f"{mark!r}: save it with commas, or with tabs as .tsv"
            )
        _check_once(header, wanted, path.name)
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
        where = f"{path.name} line {reader.reader.line_num}"
        raise InputError(f"{where} is not CSV ({error})") from None


def _check_once(columns: list[str], wanted: Collection[str], name: str) -> None:
    for column in columns:
        if column in wanted and columns.count(column) > 1:
            raise InputError(f"{name} has the column {shown(column)} twice; leave one out")


def jsonl_rows(path: Path, wanted: Collection[str] = ()) -> Iterator[Row]:
    """The objects of a JSON Lines file; empty lines are skipped."""
    for where, line in lines(path):
        if line.strip():
            yield where, _object(loads(line, where), where)


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f'{where} is not a JSON object; write {{"text": ..., ...}}')
    return value


def json_rows(path: Path, wanted: Collection[str] = ()) -> Iterator[Row]:
    """The objects of an array, of the one list in an object, or of lines."""
    if path.stat().st_size > LARGEST_JSON:
        raise InputError(f"{path.name} has more than {LARGEST_JSON:,} bytes; write JSON Lines")
    text = "".join(line for _, line in lines(path, LARGEST_JSON))
    start = after_space(text, 0)
    if start == len(text):
        return iter(())
    if text[start] == "[":
        return _items(text, start + 1, path.name)
    try:
        whole = loads(text, path.name)
    except InputError:
        if "\n" not in text.strip():
            raise
        return jsonl_rows(path)  # an object a line, which some programs call JSON too
    return _within(whole, path.name)


def _items(text: str, start: int, name: str) -> Iterator[Row]:
    """The objects of an array, whose first item is looked for from `start`."""
    line, counted, where = 1, 0, name
    for number in count(1):
        start = after_space(text, start)
        line, counted = line + text.count("\n", counted, start), start
        where = f"{name} row {number} (line {line})"
        if number == 1 and text[start : start + 1] == "]":
            break
        value, start = value_at(text, start, where)
        yield where, _object(value, where)
        start = after_space(text, start)
        if text[start : start + 1] != ",":
            break
        start += 1
    if text[start:].strip() != "]":
        raise InputError(f"{where} is not JSON (after it the array neither goes on nor ends)")


def _within(whole: Any, name: str) -> Iterator[Row]:
    """The items of an object's one list of objects, each with its other fields; or the object."""
    lists = [
        key
        for key, value in _object(whole, name).items()
        if isinstance(value, list) and value and all(isinstance(one, dict) for one in value)
    ]
    if len(lists) > 1:
        raise InputError(f"{name} holds several lists of objects, {shown(lists)}; keep one")
    rest = {key: value for key, value in whole.items() if key not in lists}
    rows = whole[lists[0]] if lists else [{}]
    return ((f"{name} row {i}", {**rest, **row}) for i, row in enumerate(rows, 1))


def parquet_rows(path: Path, wanted: Collection[str]) -> Iterator[Row]:
    """The rows of a Parquet file, a few at a time, whatever its header promises."""
    import pyarrow.parquet as pq

    try:
        # not `pq.read_table`, which turns folder names such as "model=gpt2" into columns
        with pq.ParquetFile(path) as file:
            columns = list(file.schema_arrow.names)
            read = [column for column in dict.fromkeys(columns) if column in wanted]
            if not read:
                raise InputError(
                    f"{path.name} has no column 'text', 'prompt' or 'template'; it has "
                    f"{shown(columns)}; say what they are: columns={{...}}"
                )
            _check_once(columns, wanted, path.name)
            batches = file.iter_batches(BATCH, columns=read)
            yield from _numbered(_unpacked(batches, path.name), columns, path.name)
    except InputError:
        raise
    except Exception as error:  # Arrow raises many kinds for a damaged file, KeyError among them
        reason = cut(" ".join(str(error).split()) or type(error).__name__, 120)
        raise InputError(f"{path.name} is not a Parquet file ({reason})") from None


def _unpacked(batches: Iterable[Any], name: str) -> Iterator[dict[str, Any]]:
    """The rows of Arrow batches, counted here: a damaged file's own counts end the process."""
    rows = size = 0
    for batch in batches:
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows > MOST_ROWS or size > MOST_BYTES:
            raise InputError(
                f"{name} unpacks to more than {MOST_ROWS:,} rows or {MOST_BYTES:,} bytes of "
                "prompts; split it"
            )
        yield from batch.to_pylist()


def _numbered(rows: Iterable[Any], columns: Iterable[str], name: str) -> Iterator[Row]:
    """Rows with their place; the first has the names of columns that were not decoded, too."""
    for number, row in enumerate(rows, 1):
        yield f"{name} row {number}", {**dict.fromkeys(columns if number == 1 else ()), **row}


def hub_rows(name: str, wanted: Collection[str]) -> Iterator[Row]:
    """The rows of a Hugging Face data set `name[:split]`, which runs no code of its own."""
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
        columns = list(dataset.column_names)
        dataset = dataset.select_columns([one for one in columns if one in wanted])
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"data set {shown(path)} (split {shown(split or 'train')}) could not be loaded "
            f"({cut(reason, 160)}); give hf:name:split"
        ) from None
    yield from _numbered(map(dict, dataset), columns, f"hf:{path}")


READERS = {
    ".jsonl": jsonl_rows,
    ".json": json_rows,
    ".csv": csv_rows,
    ".tsv": csv_rows,
    ".parquet": parquet_rows,
}
