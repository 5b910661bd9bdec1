"""read_prompts: prompts from a JSONL, CSV or Parquet file, or from a Hugging Face data set."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from knockgrid._errors import InputError, unknown
from knockgrid._prompt import Prompt
from knockgrid.datasets._rows import pair_swaps, parse

Rows = Iterator[tuple[str, Mapping[str, Any]]]


def read_prompts(source: str | Path) -> list[Prompt]:
    """Read prompts from a file (`.jsonl`, `.csv`, `.parquet`) or `hf:name[:split]`.

    Example:
        >>> import pathlib, tempfile, knockgrid as kg
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> line = '{"text": "Rome is in", "subject": "Rome", "answers": ["Italy"]}'
        >>> _ = (folder / "facts.jsonl").write_text(line)
        >>> [(p.span_text("subject"), p.answers) for p in kg.read_prompts(folder / "facts.jsonl")]
        [('Rome', ('Italy',))]

    Columns: `text` (or `prompt`), or `template` with one `{}` for the `subject`; then `subject`
    or `subject_span`, `spans`, `answers` (or `answer`, `object`; in CSV separated by `|`),
    `relation`, `group`, `id` and `swap`, the id of the partner row. Other columns are ignored.

    Raises:
        InputError: a file that is absent, empty or of another kind, or a row that is no prompt,
            with its line.
    """
    text = str(source)
    if text.startswith("hf:"):
        rows = _hub(text.removeprefix("hf:"))
    else:
        path = Path(source)
        readers = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}
        if path.suffix not in readers:
            raise unknown("kind of prompt file", path.suffix or text, [*readers, "hf:name"])
        if not path.is_file():
            raise InputError(f"there is no prompt file {text!r}; check the path")
        rows = readers[path.suffix](path)
    prompts = pair_swaps(parse(row, where) for where, row in rows)
    if not prompts:
        raise InputError(f"{text!r} holds no prompts; write at least one row")
    return prompts


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines as text; a byte-order mark at the start is not part of the first."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{path.name} line {number} is not UTF-8 (byte {error.start}); save it as UTF-8"
                ) from None


def _jsonl(path: Path) -> Rows:
    for number, line in _lines(path):
        if not line.strip():
            continue
        where = f"{path.name} line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "it cannot be read"
            raise InputError(f"{where} is not JSON ({reason}); one object a line") from None
        if not isinstance(row, dict):
            raise InputError(f'{where} is not a JSON object; write {{"text": ..., ...}}')
        yield where, row


def _csv(path: Path) -> Rows:
    reader = csv.DictReader(line for _, line in _lines(path))
    try:
        for row in reader:
            row.pop(None, None)  # type: ignore[call-overload]
            yield f"{path.name} line {reader.line_num}", row
    except csv.Error as error:
        raise InputError(f"{path.name} line {reader.line_num} is not CSV ({error})") from None


def _parquet(path: Path) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path.name} is not a Parquet file ({reason})") from None
    for number, row in enumerate(table.to_pylist(), 1):
        yield f"{path.name} row {number}", row


def _hub(name: str) -> Rows:
    from datasets import load_dataset

    path, _, split = name.partition(":")
    try:
        dataset = load_dataset(path, split=split or "train")
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"data set {path!r} (split {split or 'train'!r}) could not be loaded ({reason}); give "
            "hf:name:split"
        ) from None
    for number, row in enumerate(dataset, 1):
        yield f"hf:{path} row {number}", dict(row)
