"""read_prompts: prompts from a JSON, JSONL, CSV, TSV or Parquet file, or from a data set."""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

from knockgrid.errors import InputError, shown
from knockgrid.prompts.columns import Columns
from knockgrid.prompts.files import rows_of
from knockgrid.prompts.prompt import Prompt
from knockgrid.prompts.rows import Parsed, pair_swaps, parse

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
    maps others to these: `{"attribute": "answers"}`, or a nested one
    `{"requested_rewrite.target_true.str": "answers"}`. A warning names unread columns.
    `template` serves all rows; `[X]` in it is the subject too, and `[Y]` at its end is cut off.

    ROME's known_1000, CounterFact, PopQA, LRE, LLMsKnow and ParaRel are recognised by their
    columns, and a warning says so. Questions of PopQA and LLMsKnow become "Q: ... A:";
    `columns={"question": "text"}` leaves them bare. LRE's prompts take the first zero-shot
    template, `columns={"prompt_templates.2": "template"}` the third of the others. Of ParaRel, read
    the subjects, and give a pattern as `template`.

    White space around names, subjects and answers is removed. Prompts that repeat the text or id
    of an earlier one are numbered, with a warning. Nothing in a file is executed or unpickled, and
    a data set of the hub runs no code of its own.

    Raises:
        InputError: a file that is absent, empty or of another kind, or a row that is no prompt,
            with its line.

    Limit: a line or text has at most 4 MiB, a CSV cell 131,072 characters, a row 1,000 spans.
    """
    text, read = str(source), Columns(columns or {}, template)
    prompts = pair_swaps(_parsed(text, read))
    if not prompts:
        raise InputError(f"{shown(text)} holds no prompts; write at least one row")
    if said := read.remarks(Path(text).name):
        warnings.warn(said, stacklevel=2)
    return prompts


def _parsed(source: str, read: Columns) -> Iterator[Parsed]:
    total = 0
    for where, row in rows_of(source, read.wanted):
        one = parse(read.fields(row), where)
        total += len(one.prompt.text)
        if total > MOST_TEXT:
            raise InputError(f"{shown(source)} holds more than {MOST_TEXT:,} characters; split it")
        yield one
