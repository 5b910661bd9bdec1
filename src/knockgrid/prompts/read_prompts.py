"""read_prompts: prompts from a JSON, JSONL, CSV, TSV or Parquet file, or from a data set."""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from knockgrid.errors import InputError, shown, unknown
from knockgrid.prompts.files import rows_of
from knockgrid.prompts.prompt import Prompt
from knockgrid.prompts.rows import ALIASES, NAMES, READ, Parsed, pair_swaps, parse
from knockgrid.prompts.schemas import SCHEMAS, Schema, at, schema_of

MOST_TEXT = 2**30
"""Characters of all prompts: a small Parquet file can repeat a long text without end."""
FRAMES = ("text", "prompt", "template", "subject_span")
"""Columns that a text or template of the user's own replaces."""
MOST_NAMED = 8
"""Unread columns that a warning names."""


class Columns:
    """What the columns of one file are: by the user's word, by a schema, or by their own names."""

    def __init__(self, named: Mapping[str, str], template: str | None = None) -> None:
        if not isinstance(named, Mapping):
            raise InputError(f"columns is {shown(named)}; give {{column: field}}")
        if template is not None and not isinstance(template, str):
            raise InputError(f"template is {shown(template)}; give a text with one {{}}")
        self.named = {str(name): ALIASES.get(str(f), str(f)) for name, f in named.items()}
        self.template = template
        self.schema: Schema | None = None
        self.columns: dict[str, None] = {}  # of the file, in order
        self.found: set[str] = set()  # those of the user's that a row had
        for field in self.named.values():
            if field not in READ:
                raise unknown("field", field, READ)
            if list(self.named.values()).count(field) > 1:
                raise InputError(f"two columns are to be {field!r}; name one of them")

    @property
    def roots(self) -> set[str]:
        """The user's columns, without what is named in them."""
        return {*self.named, *(name.split(".")[0] for name in self.named)}

    @property
    def wanted(self) -> set[str]:
        """The columns that may be read; a reader need not decode others."""
        return {*NAMES, *self.roots, *(root for schema in SCHEMAS for root in schema.roots)}

    def fields(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a prompt that a row has."""
        if not self.columns:
            self.schema = schema_of(row)
        self.columns |= {str(name): None for name, value in row.items() if value != ""}
        if self.schema is not None:
            found = self.schema.fields(row)
        else:
            found = {name: row[name] for name in NAMES if name in row and name not in self.named}
        for name, field in self.named.items():
            value = at(row, name)
            if value is not None:
                self.found.add(name)
                found = _replaced(found, field, value)
        if self.template is not None:
            found = {**_without(found, *FRAMES), "template": self.template}
        return found

    def remarks(self, source: str) -> str:
        """What a warning says of the file once all its rows were read; empty for nothing."""
        for name in self.named:
            if name not in self.found:
                raise InputError(
                    f"no row of {source} has the column {shown(name)}; it has "
                    f"{shown(list(self.columns))}"
                )
        read = self.roots | (set(NAMES) if self.schema is None else self.schema.roots)
        unread = [name for name in self.columns if name and name not in read]
        said = [f"{source} is read as {self.schema.name}"] if self.schema else []
        if unread:
            more = ", ..." if len(unread) > MOST_NAMED else ""
            names = ", ".join(shown(name, 30) for name in unread[:MOST_NAMED]) + more
            said.append(f"{'' if said else f'{source}: '}columns that are not read: {names}")
        return "; ".join(said)


def _replaced(found: Mapping[str, Any], field: str, value: Any) -> dict[str, Any]:
    """The fields with one of the user's own instead of what the row had for it."""
    kept = _without(found, field, *(alias for alias, name in ALIASES.items() if name == field))
    if field in ("text", "template"):
        kept = {**_without(kept, *FRAMES), **_moved_span(found, value)}
    return {**kept, field: value}


def _moved_span(found: Mapping[str, Any], text: Any) -> dict[str, Any]:
    """The span of the subject in the bare text that a schema has framed."""
    framed, span = found.get("text"), found.get("subject_span")
    if not (isinstance(span, tuple) and isinstance(framed, str) and isinstance(text, str)):
        return {}
    by = framed.find(text)
    return {} if by < 0 else {"subject_span": (span[0] - by, span[1] - by)}


def _without(found: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name not in names}


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

    Columns: `text` (or `prompt`), or `template` with one `{}` for the `subject`; `continuation`,
    with its white space; then `subject` or `subject_span` (as text `45:50`), `spans`, `answers` (or
    `answer`, `object`; as text a list, or separated by `|`), `foil`, `relation`, `group`, `id` and
    `swap`, the id of the partner row. `columns` maps others to these: `{"attribute": "answers"}`,
    or a nested one `{"requested_rewrite.target_true.str": "answers"}`. A warning names unread
    columns.
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
        total += len(one.prompt.whole)
        if total > MOST_TEXT:
            raise InputError(f"{shown(source)} holds more than {MOST_TEXT:,} characters; split it")
        yield one
