"""Rows of a prompt file, and how they become prompts."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator

from knockgrid._errors import InputError
from knockgrid._prompt import Prompt


class PromptRow(BaseModel):
    """One row: a text, or a template with the subject's slot; other columns are left alone."""

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)

    text: str | None = Field(None, validation_alias=AliasChoices("text", "prompt"))
    template: str | None = None
    subject: str | None = None
    subject_span: tuple[int, int] | None = None
    spans: dict[str, tuple[int, int] | str] = Field(default_factory=dict)
    answers: tuple[str, ...] = Field(
        (), validation_alias=AliasChoices("answers", "answer", "object")
    )
    relation: str | None = None
    group: str | None = None
    swap: str | None = None
    id: str | None = None

    @field_validator("answers", mode="before")
    @classmethod
    def _one_or_several(cls, given: Any) -> Any:
        """A single answer is a list of one; a CSV cell may hold several, separated by `|`."""
        if given is None:
            return ()
        return tuple(given.split("|")) if isinstance(given, str) else given

    @field_validator("spans", mode="before")
    @classmethod
    def _no_spans(cls, given: Any) -> Any:
        return {} if given is None else given

    def prompt(self) -> Prompt:
        """The prompt of this row, without its swap partner."""
        text, spans = self.text, dict(self.spans)
        if self.template is not None and self.subject is not None:
            if self.template.count("{}") != 1:
                raise InputError(f"template {self.template!r} needs exactly one {{}}")
            start = self.template.index("{}")
            text = self.template.replace("{}", self.subject)
            spans["subject"] = (start, start + len(self.subject))
        elif self.subject_span is not None:
            spans["subject"] = self.subject_span
        elif self.subject is not None:
            spans["subject"] = self.subject
        if text is None:
            raise InputError("there is no 'text', and no 'template' with a 'subject' either")
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
    given = {key: value for key, value in row.items() if not _missing(value)}
    try:
        checked = PromptRow.model_validate(given)
        return checked, checked.prompt()
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise InputError(f"{where}: {name} is {first['input']!r} ({first['msg']})") from None
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _missing(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and value != value)


def pair_swaps(rows: Iterable[tuple[PromptRow, Prompt]]) -> list[Prompt]:
    """Prompts in order, each with the partner that its row names by id.

    Raises:
        InputError: a partner that is not in the file.
    """
    rows = list(rows)
    by_id = {prompt.id: prompt for _, prompt in rows}
    paired = []
    for row, prompt in rows:
        if row.swap is not None and row.swap not in by_id:
            raise InputError(
                f"prompt {prompt.id!r} names the swap partner {row.swap!r}, which the file lacks"
            )
        paired.append(prompt if row.swap is None else prompt.replace(swap=by_id[row.swap]))
    return paired
