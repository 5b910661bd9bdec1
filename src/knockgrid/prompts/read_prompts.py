"""read_prompts: prompts from a JSON, JSONL, CSV, TSV or Parquet file, or from a data set."""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from knockgrid.errors import InputError, shown, unknown
from knockgrid.prompts.columns import Columns
from knockgrid.prompts.csv_file import csv_rows
from knockgrid.prompts.hub import hub_rows
from knockgrid.prompts.json_file import json_rows
from knockgrid.prompts.jsonl_file import jsonl_rows
from knockgrid.prompts.parquet_file import parquet_rows
from knockgrid.prompts.prompt import Prompt
from knockgrid.prompts.rows import Parsed, pair_swaps, parse

READERS = {
    ".jsonl": jsonl_rows,
    ".json": json_rows,
    ".csv": csv_rows,
    ".tsv": csv_rows,
    ".parquet": parquet_rows,
}
MOST_TEXT = 2**30
"""Characters of all prompts: a small Parquet file can repeat a long text without end."""


def read_prompts(
    source: str | Path, *, columns: Mapping[str, str] | None = None, template: str | None = None
) -> list[Prompt]:
    """Read prompts from a JSONL, JSON, CSV, TSV or Parquet file, or `hf:name[:split]`.

    Example:
        >>> import pathlib, tempfile, knockgrid as kg
        >>> folder = pathlib.Path(tempfile.mkdtemp())
        >>> line = '{"text": "Rome is in", "subject": "Rome", "answers": ["Italy"]}'
        >>> _ = (folder / "facts.jsonl").write_text(line)
        >>> [(p.span_text("subject"), p.answers) for p in kg.read_prompts(folder / "facts.jsonl")]
        [('Rome', ('Italy',))]

    Columns: `text` (or `prompt`), or `template` with one `{}` for the `subject`; then `subject`
    or `subject_span` (as text `45:50`), `spans`, `answers` (or `answer`, `object`; as text a list,
    or separated by `|`), `relation`, `group`, `id` and `swap`, the id of the partner row. `columns`
    says what others are: `{"attribute": "answers"}`, or of a nested one
    `{"requested_rewrite.target_true.str": "answers"}`. Columns that are not read are named once.
    `template` is one for all rows; `[X]` in it is the subject too, and `[Y]` at its end is cut off.

    ROME's known_1000, CounterFact, PopQA, LRE, LLMsKnow and ParaRel are known by their columns, and
    a warning says so. Questions of PopQA and LLMsKnow become "Q: ... A:"; `columns={"question":
    "text"}` leaves them bare. LRE's prompts have the first zero-shot template of their file,
    `columns={"prompt_templates.2": "template"}` takes the third of the others. ParaRel keeps
    subjects and patterns in two files: read the subjects, and give a pattern as `template`.

    White space around names, subjects and answers is taken off. Prompts that repeat the text or id
    of an earlier one are numbered, with a warning that names both lines.

    Files are data: nothing in them is executed, unpickled or computed, and a data set of the hub
    runs no code of its own.

    Raises:
        InputError: a file that is absent, empty or of another kind, or a row that is no prompt,
            with its line.

    Limit: a line or text has at most 4 MiB, a CSV cell 131,072 characters, a row 1,000 spans.
    """
    text, read = str(source), Columns(columns or {}, template)
    prompts = pair_swaps(_parsed(_rows(text, read), text, read))
    if not prompts:
        raise InputError(f"{shown(text)} holds no prompts; write at least one row")
    if said := read.told(Path(text).name):
        warnings.warn(said, stacklevel=2)
    return prompts


def _rows(source: str, read: Columns) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if source.startswith("hf:"):
        return hub_rows(source.removeprefix("hf:"), read.wanted)
    path = Path(source)
    if path.suffix.lower() not in READERS:
        raise unknown("kind of prompt file", path.suffix or source, [*READERS, "hf:name"])
    try:
        there = path.is_file()
    except (OSError, ValueError):  # a name that no file system takes
        there = False
    if not there:
        raise InputError(f"there is no prompt file {shown(source)}; check the path")
    return READERS[path.suffix.lower()](path, read.wanted)


def _parsed(
    rows: Iterable[tuple[str, Mapping[str, Any]]], source: str, read: Columns
) -> Iterator[Parsed]:
    total = 0
    for where, row in rows:
        one = parse(read.fields(row), where)
        total += len(one.prompt.text)
        if total > MOST_TEXT:
            raise InputError(f"{shown(source)} holds more than {MOST_TEXT:,} characters; split it")
        yield one
