"""Columns: what each column of a file is to a prompt, and which of them nobody reads."""

from collections.abc import Mapping
from typing import Any

from knockgrid.errors import InputError, shown, unknown
from knockgrid.prompts.rows import ALIASES, NAMES, READ
from knockgrid.prompts.schemas import SCHEMAS, Schema, at, schema_of

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
