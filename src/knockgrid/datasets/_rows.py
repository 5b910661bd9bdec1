"""Rows of a prompt file, and how they become prompts."""

import math
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Annotated, Any

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from knockgrid._errors import InputError, printable, shown
from knockgrid._prompt import Prompt
from knockgrid.datasets._lines import LONGEST

NAMES = (
    *("text", "prompt", "template", "subject", "subject_span", "spans"),
    *("answers", "answer", "object", "relation", "group", "swap", "id"),
)
"""The columns of a prompt; all others are left alone."""
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
    ends = list(given) if isinstance(given, list | tuple) and len(given) == 2 else []
    if not ends or any(not isinstance(i, int | float) or isinstance(i, bool) for i in ends):
        raise ValueError("a span should be (start, end) in characters")
    if any(i != i or i in (math.inf, -math.inf) or i != int(i) for i in ends):
        raise ValueError("the ends of a span should be whole numbers")
    return int(ends[0]), int(ends[1])


Text = Annotated[str, BeforeValidator(_text)]


class PromptRow(BaseModel):
    """One row: a text, or a template with the subject's slot; other columns are left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    text: Text | None = Field(None, validation_alias=AliasChoices("text", "prompt"))
    template: Text | None = None
    subject: Text | None = None
    subject_span: tuple[int, int] | None = None
    spans: dict[str, tuple[int, int] | str] = Field(default_factory=dict)
    answers: tuple[str, ...] = Field(
        (), validation_alias=AliasChoices("answers", "answer", "object")
    )
    relation: Text | None = None
    group: Text | None = None
    swap: Text | None = None
    id: Text | None = None

    # lists are checked here, item by item: pydantic would list the errors of a million of them

    @field_validator("answers", mode="before")
    @classmethod
    def _one_or_several(cls, given: Any) -> Any:
        """A single answer is a list of one; a CSV cell may hold several, separated by `|`."""
        if given is None:
            return ()
        if isinstance(given, str):
            return tuple(given.split("|"))
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
        if not isinstance(given, Mapping) or len(given) > MOST_SPANS:
            raise ValueError(f"it should be at most {MOST_SPANS:,} spans by name")
        kept = {name: one for name, one in given.items() if one is not None}
        return {name: one if isinstance(one, str) else _span(one) for name, one in kept.items()}

    def prompt(self) -> Prompt:
        """The prompt of this row, without its swap partner."""
        text, spans = self.text, dict(self.spans)
        if self.template is not None and self.subject is not None:
            if self.template.count("{}") != 1:
                raise InputError(f"template {shown(self.template)} needs exactly one {{}}")
            start = self.template.index("{}")
            text = self.template.replace("{}", self.subject)
            spans["subject"] = (start, start + len(self.subject))
        elif self.subject_span is not None:
            spans["subject"] = self.subject_span
        elif self.subject is not None:
            spans["subject"] = self.subject
        if text is None:
            raise InputError("there is no 'text', and no 'template' with a 'subject' either")
        if len(text) > LONGEST:
            raise InputError(f"its text has {len(text):,} characters, at most {LONGEST:,} are read")
        return Prompt(
            text,
            spans=spans,
            answers=self.answers,
            relation=self.relation,
            group=self.group,
            id=self.id,
        )


def parse(row: Mapping[str, Any], where: str) -> tuple[PromptRow, Prompt]:
    """A checked row and its prompt; `where` names file and line in errors.

    Raises:
        InputError: a row that is not a prompt, with its place.
    """
    given = {name: row[name] for name in NAMES if name in row and not _missing(row[name])}
    try:
        checked = PromptRow.model_validate(given)
        return checked, checked.prompt()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(printable(str(part))[:40] for part in first["loc"])
        reason = first["msg"].removeprefix("Value error, ")
        raise InputError(f"{where}: {name} is {shown(first['input'])} ({reason})") from None
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _missing(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and value != value)


def pair_swaps(rows: Iterable[tuple[PromptRow, Prompt]]) -> list[Prompt]:
    """Prompts in order, each with the partner that its row names by id.

    Raises:
        InputError: an id that two rows give themselves; a partner that is not in the file, or is
            the prompt itself.
    """
    rows = list(rows)
    by_id: dict[str | None, Prompt] = {}
    for row, prompt in rows:
        if row.id is not None and row.id in by_id:
            raise InputError(f"two prompts share the id {shown(row.id)}; give each its own")
        by_id[prompt.id] = prompt
    paired = []
    for row, prompt in rows:
        if row.swap is not None and row.swap not in by_id:
            raise InputError(
                f"prompt {shown(prompt.id)} names the swap partner {shown(row.swap)}, which the "
                "file lacks"
            )
        if row.swap is not None and row.swap == prompt.id:
            raise InputError(
                f"prompt {shown(prompt.id)} names itself as its swap partner; name another"
            )
        paired.append(prompt if row.swap is None else prompt.replace(swap=by_id[row.swap]))
    return paired
