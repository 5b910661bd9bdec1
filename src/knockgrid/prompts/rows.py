"""Rows of a prompt file, and how they become prompts."""

import ast
import math
import re
import warnings
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Annotated, Any, NamedTuple

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from knockgrid.errors import InputError, printable, shown
from knockgrid.prompts.jsonl_file import loads
from knockgrid.prompts.lines import LONGEST
from knockgrid.prompts.prompt import Prompt, trimmed

ALIASES = {"prompt": "text", "answer": "answers", "object": "answers"}
FIELDS = (
    *("text", "template", "subject", "subject_span", "spans"),
    *("answers", "relation", "group", "swap", "id"),
)
NAMES = (*FIELDS, *ALIASES)
"""The columns of a prompt; all others are left alone."""
ITEM = r"""\s*(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?)\s*"""
PYTHON_LIST = re.compile(rf"[\[(](?:{ITEM},)*(?:{ITEM})?\s*[\])]", re.DOTALL)
"""A list as Python writes it, which is how pandas puts one into a CSV cell."""
SPAN = re.compile(r"[\[(]?\s*(\d{1,9})\s*[:,]\s*(\d{1,9})\s*[\])]?")
SLOT, ANSWER = "[X]", "[Y]"
"""What ParaRel and LAMA write for the subject and, at the end, for the answer."""
MOST_SPANS = 1000
"""In a row: each is looked for in the text."""


def _text(given: Any) -> Any:
    """Text, or a number as text; other values are not guessed at (bytes may be in any encoding)."""
    if isinstance(given, int | float | Decimal) and not isinstance(given, bool):
        if isinstance(given, int) or math.isfinite(given):
            return str(given)
        raise ValueError("it should be text, or a finite number")
    if given is not None and not isinstance(given, str):
        raise ValueError(f"it should be text, not {type(given).__name__}")
    return given


def _span(given: Any) -> tuple[int, int] | None:
    """The two ends of a span, whole numbers of any type but truth values."""
    if given is None:
        return None
    if isinstance(given, str) and (found := SPAN.fullmatch(given.strip())):
        given = [int(found[1]), int(found[2])]
    ends = list(given) if isinstance(given, list | tuple) and len(given) == 2 else []
    if not ends or any(not isinstance(i, int | float) or isinstance(i, bool) for i in ends):
        raise ValueError("a span should be (start, end) in characters, or start:end as text")
    if any(i != i or i in (math.inf, -math.inf) or i != int(i) for i in ends):
        raise ValueError("the ends of a span should be whole numbers")
    return int(ends[0]), int(ends[1])


def _name(given: Any) -> Any:
    """Text without white space around it."""
    found = _text(given)
    return trimmed(found) if isinstance(found, str) else found


def _listed(text: str) -> list[Any]:
    """The items of a list that is written as text, as JSON or as Python writes it."""
    try:
        found = loads(text, "it")
    except InputError:
        found = None
    if found is None and PYTHON_LIST.fullmatch(text):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that mean nothing
            try:
                found = list(ast.literal_eval(text))
            except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                found = None
    if not isinstance(found, list):
        raise ValueError('it begins as a list and is none; write ["one", "other"]')
    return found


Text = Annotated[str, BeforeValidator(_text)]
Name = Annotated[str, BeforeValidator(_name)]


class PromptRow(BaseModel):
    """One row: a text, or a template with the subject's slot; other columns are left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    text: Text | None = None
    template: Text | None = None
    subject: Name | None = None
    subject_span: tuple[int, int] | None = None
    spans: dict[str, tuple[int, int] | str] = Field(default_factory=dict)
    answers: tuple[str, ...] = ()
    relation: Name | None = None
    group: Name | None = None
    swap: Name | None = None
    id: Name | None = None

    # lists are checked here, item by item: pydantic would list the errors of a million of them

    @field_validator("answers", mode="before")
    @classmethod
    def _one_or_several(cls, given: Any) -> Any:
        """A single answer is a list of one; text may hold several, as a list or between `|`."""
        if given is None:
            return ()
        if isinstance(given, str):
            text = trimmed(given)
            is_list = text.startswith(("[", "('", '("'))
            given = _listed(text) if is_list else given.split("|")
        if not isinstance(given, list | tuple):
            raise ValueError("it should be a list of text")
        if any(one is None for one in given):
            raise ValueError("it should be a list of text, without nulls")
        return tuple(map(_text, given))

    @field_validator("subject_span", mode="before")
    @classmethod
    def _ends(cls, given: Any) -> Any:
        return _span(given)

    @field_validator("spans", mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        """Spans by name; in Parquet, rows have all names of the file, some without a value."""
        if given is None:
            return {}
        if isinstance(given, str):
            try:
                given = loads(given, "it")
            except InputError as error:
                raise ValueError(str(error)) from None
        if not isinstance(given, Mapping) or len(given) > MOST_SPANS:
            raise ValueError(f"it should be at most {MOST_SPANS:,} spans by name")
        kept = {name: one for name, one in given.items() if one is not None}
        return {name: one if isinstance(one, str) else _span(one) for name, one in kept.items()}

    def prompt(self) -> Prompt:
        """The prompt of this row, without its swap partner."""
        text, spans = self._filled()
        if text is None:
            raise InputError(
                "there is no 'text', and no 'template' with a 'subject' either; name a column, "
                "or give one template for all rows"
            )
        if len(text) > LONGEST:
            raise InputError(f"its text has {len(text):,} characters, at most {LONGEST:,} are read")
        made = Prompt(
            text,
            spans=spans,
            answers=self.answers,
            relation=self.relation,
            group=self.group,
            id=self.id,
        )
        covered = made.span_text("subject")
        if self.subject is not None and covered != self.subject:
            raise InputError(
                f"its subject is {shown(self.subject)}, and its span covers {shown(covered)}; "
                "leave one out"
            )
        return made

    def _filled(self) -> tuple[str | None, dict[str, tuple[int, int] | str]]:
        """The text, which a template and its subject may give, and the spans."""
        text, spans = self.text, dict(self.spans)
        if self.subject_span is not None:
            spans["subject"] = self.subject_span
        if self.template is None or (self.subject is None and text is None):
            if self.subject is not None and "subject" not in spans:
                spans["subject"] = self.subject
            return text, spans
        before, after = _around(self.template)
        subject = self.subject
        if subject is None and text is not None:
            fits = text.startswith(before) and text.endswith(after)
            subject = text[len(before) : len(text) - len(after)] if fits else ""
        filled = f"{before}{subject}{after}"
        if text is not None and text != filled:
            raise InputError(
                f"its template gives {shown(filled)} and its text is {shown(text)}; leave one out"
            )
        spans["subject"] = (len(before), len(before) + len(str(subject)))
        return filled, spans


def _around(template: str) -> tuple[str, str]:
    """What stands before the subject and after it; an answer's slot at the end is left out."""
    given = template
    if SLOT in template:
        template = template.replace(SLOT, "{}")
        if ANSWER in template:
            template, _, behind = template.partition(ANSWER)
            template = template.rstrip()
            if any(c.isalnum() for c in behind):
                raise InputError(
                    f"template {shown(given)} goes on behind its answer; a prompt ends before it"
                )
    if template.count("{}") != 1:
        raise InputError(f"template {shown(given)} needs exactly one {{}}")
    before, _, after = template.partition("{}")
    return before, after


class Parsed(NamedTuple):
    """A checked row, its prompt and its place."""

    row: PromptRow
    prompt: Prompt
    where: str


def parse(row: Mapping[str, Any], where: str) -> Parsed:
    """A checked row and its prompt; `where` names file and line in errors.

    Raises:
        InputError: a row that is not a prompt, with its place.
    """
    try:
        checked = PromptRow.model_validate(_named(row))
        return Parsed(checked, checked.prompt(), where)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(printable(str(part))[:40] for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{where}: {name} is {shown(first['input'])} ({reason})") from None
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _named(row: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a row by field.

    Raises:
        InputError: two columns of one field that differ.
    """
    found = {name: row[name] for name in FIELDS if name in row and not _missing(row[name])}
    for alias, name in ALIASES.items():
        value = row.get(alias)
        if _missing(value) or value == found.setdefault(name, value):
            continue
        several = found[name]
        if not (isinstance(several, list | tuple) and value in several):
            raise InputError(
                f"its columns for {name!r} differ: {shown(several)} and {alias!r} {shown(value)}; "
                "leave one out"
            )
    return found


def _missing(value: Any) -> bool:
    none = value is None or (isinstance(value, float) and value != value)
    return none or (isinstance(value, str) and value == "")


def pair_swaps(rows: Iterable[Parsed]) -> list[Prompt]:
    """Prompts in order, each with the partner that its row names by id.

    A prompt with an id that another one has already, by its own word or as it repeats its text,
    gets a number behind it.

    Raises:
        InputError: a partner that is not in the file, is the prompt itself, or may be several.
    """
    rows = list(rows)
    taken = {str(one.prompt.id) for one in rows}
    first: dict[str, Parsed] = {}
    again: dict[str, list[str]] = {}
    prompts = []
    for one in rows:
        name = str(one.prompt.id)
        if name not in first:
            first[name] = one
            prompts.append(one.prompt)
            continue
        places = again.setdefault(name, [first[name].where])
        places.append(one.where)
        number = len(places)
        while (numbered := f"{name}-{number}") in taken:
            number += 1
        taken.add(numbered)
        prompts.append(one.prompt.replace(id=numbered))
    paired = [
        prompt if one.row.swap is None else prompt.replace(swap=_partner(one, first, again))
        for one, prompt in zip(rows, prompts, strict=True)
    ]
    if again:
        _say(again, len(rows))
    return paired


def _say(again: Mapping[str, list[str]], total: int) -> None:
    """Say once which prompts were numbered."""
    name, places = next(iter(again.items()))
    numbered = sum(map(len, again.values())) - len(again)
    warnings.warn(
        f"numbered {numbered} of {total} prompts, which repeat the text or id of an earlier one "
        f"(first: {shown(name)} at {places[0]} and {places[1]})",
        stacklevel=4,
    )


def _partner(one: Parsed, first: Mapping[str, Parsed], again: Mapping[str, list[str]]) -> Prompt:
    """The prompt that a row names as its swap partner."""
    name, said = str(one.row.swap), f"{one.where}: prompt {shown(one.prompt.id)} names"
    if name not in first:
        raise InputError(f"{said} the swap partner {shown(name)}, which the file lacks")
    if name in again:
        raise InputError(f"{said} the swap partner {shown(name)}, an id at {shown(again[name])}")
    if name == one.prompt.id:
        raise InputError(f"{said} itself as its swap partner; name another")
    return first[name].prompt
