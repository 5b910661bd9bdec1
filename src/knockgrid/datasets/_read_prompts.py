"""read_prompts: prompts from a JSONL, CSV or Parquet file, or from a Hugging Face data set."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from knockgrid._errors import InputError, shown, unknown
from knockgrid._prompt import Prompt
from knockgrid.datasets._csv import csv_rows
from knockgrid.datasets._hub import hub_rows
from knockgrid.datasets._jsonl import jsonl_rows
from knockgrid.datasets._parquet import parquet_rows
from knockgrid.datasets._rows import PromptRow, pair_swaps, parse

READERS = {".jsonl": jsonl_rows, ".csv": csv_rows, ".parquet": parquet_rows}
MOST_TEXT = 2**30
"""Characters of all prompts: a small Parquet file can repeat a long text without end."""


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

    Files are data: nothing in them is executed, unpickled or computed, and a data set of the hub
    runs no code of its own.

    Raises:
        InputError: a file that is absent, empty or of another kind, or a row that is no prompt,
            with its line.

    Limit: a line or text has at most 4 MiB, a CSV cell 131,072 characters, a row 1,000 spans.
    """
    text = str(source)
    prompts = pair_swaps(_parsed(_rows(text), text))
    if not prompts:
        raise InputError(f"{shown(text)} holds no prompts; write at least one row")
    return prompts


def _rows(source: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if source.startswith("hf:"):
        return hub_rows(source.removeprefix("hf:"))
    path = Path(source)
    if path.suffix not in READERS:
        raise unknown("kind of prompt file", path.suffix or source, [*READERS, "hf:name"])
    try:
        there = path.is_file()
    except (OSError, ValueError):  # a name that no file system takes
        there = False
    if not there:
        raise InputError(f"there is no prompt file {shown(source)}; check the path")
    return READERS[path.suffix](path)


def _parsed(
    rows: Iterable[tuple[str, Mapping[str, Any]]], source: str
) -> Iterator[tuple[PromptRow, Prompt]]:
    total = 0
    for where, row in rows:
        checked, prompt = parse(row, where)
        total += len(prompt.text)
        if total > MOST_TEXT:
            raise InputError(f"{shown(source)} holds more than {MOST_TEXT:,} characters; split it")
        yield checked, prompt
