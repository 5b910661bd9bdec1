"""Columns: what each column of a file is to a prompt, and which of them nobody reads."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from knockgrid.errors import InputError, shown, unknown
from knockgrid.prompts.rows import ALIASES, FIELDS, NAMES
from knockgrid.prompts.schemas import SCHEMAS, Schema, at, schema_of

FILLED = ("text", "prompt", "template", "subject_span")
"""What another text or template takes the place of."""
MOST_NAMED = 8
"""Unread columns that are named."""


class Columns:
    """What the columns of one file are: fields by their name, by the user's word, or by a schema.

    Example:
        >>> Columns({"made.by": "answers"}).fields({"text": "It is by", "made": {"by": "Ada"}})
        {'text': 'It is by', 'answers': 'Ada'}

    Raises:
        InputError: a field that a prompt does not have, or that two columns are to give.
    """

    def __init__(self, given: Mapping[str, str], template: str | None = None) -> None:
        if not isinstance(given, Mapping):
            raise InputError(f"columns is {shown(given)}; give {{column: field}}")
        self.given = {str(name): ALIASES.get(str(f), str(f)) for name, f in given.items()}
        self.template = template
        self.seen: set[str] = set()
        self.there: dict[str, None] = {}
        self.schema: Schema | None = None
        self.is_first = True
        for field in self.given.values():
            if field not in FIELDS:
                raise unknown("field", field, FIELDS)
            if list(self.given.values()).count(field) > 1:
                raise InputError(f"two columns are to be {field!r}; name one of them")
        if template is not None and not isinstance(template, str):
            raise InputError(f"template is {shown(template)}; give a text with one {{}}")

    @property
    def wanted(self) -> set[str]:
        """The columns that may be read; a reader need not decode others."""
        by_schema = {root for schema in SCHEMAS for root in schema.roots}
        return {*NAMES, *by_schema, *self.given, *(name.split(".")[0] for name in self.given)}

    def fields(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The fields of a prompt that a row gives."""
        self.there.update((str(name), None) for name, value in row.items() if value != "")
        if self.is_first:
            self.schema, self.is_first = schema_of(row), False
        moved = {name for name in self.given if name in NAMES}
        if self.schema is not None:
            found = self.schema.fields(defaultdict(lambda: None, row))
        else:
            found = {name: row[name] for name in NAMES if name in row and name not in moved}
        for name, field in self.given.items():
            value = at(row, name)
            if value is None:
                continue
            self.seen.add(name)
            if field in ("text", "template"):
                span = _moved(found, value)
                found = {**_without(found, *FILLED), **span}
            found = _without(found, field, *(a for a, f in ALIASES.items() if f == field))
            found[field] = value
        if self.template is not None:
            found = _without(found, *FILLED)
            found["template"] = self.template
        return found

    def told(self, source: str) -> str:
        """What is to be said of the file once all its rows were read; empty for nothing.

        Raises:
            InputError: a column that the user names and no row has.
        """
        for name in self.given:
            if name not in self.seen:
                has = shown(list(self.there))
                raise InputError(f"no row of {source} has the column {shown(name)}; it has {has}")
        read = {*self.given, *(name.split(".")[0] for name in self.given)}
        read |= set(NAMES) if self.schema is None else self.schema.roots
        unread = [name for name in self.there if name and name not in read]
        said = [f"{source} is read as {self.schema.name}"] if self.schema else []
        if unread:
            more = ", ..." if len(unread) > MOST_NAMED else ""
            names = ", ".join(shown(name, 30) for name in unread[:MOST_NAMED]) + more
            said.append(f"{'' if said else f'{source}: '}columns that are not read: {names}")
        return "; ".join(said)


def _moved(found: Mapping[str, Any], text: Any) -> dict[str, Any]:
    """The span of the subject in a text that a schema has put into a frame."""
    framed, span = found.get("text"), found.get("subject_span")
    if not (isinstance(span, tuple) and isinstance(framed, str) and isinstance(text, str)):
        return {}
    by = framed.find(text)
    return {} if by < 0 else {"subject_span": (span[0] - by, span[1] - by)}


def _without(found: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name not in names}
