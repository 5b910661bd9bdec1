"""Public data sets of facts: the columns that tell each apart, and what they are to a prompt."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

Fields = dict[str, Any]
FRAME = "Q: {}\nA:"
"""How PopQA and LLMsKnow put a question to a model that was not tuned to chats."""
AFTER = ("'s occupation?", " born?", " the capital of?", " play?", "?")
"""What follows the subject in a question of PopQA."""


@dataclass(frozen=True)
class Schema:
    """A data set: its name, the columns that tell it apart, and the field of each column.

    `columns` reads `column=field`, as on the command line; of several columns of one field the
    first with a value counts. `finish` adapts the fields.
    """

    name: str
    needs: tuple[str, ...]
    columns: str
    finish: Callable[[Fields], Fields] = dict

    @cached_property
    def pairs(self) -> list[list[str]]:
        """Each column with its field."""
        return [pair.split("=") for pair in self.columns.split()]

    @cached_property
    def roots(self) -> set[str]:
        """The columns that are read, without what is named in them."""
        return {name.split(".")[0] for name in (*self.needs, *(name for name, _ in self.pairs))}

    def fields(self, row: Mapping[str, Any]) -> Fields:
        """The fields of a prompt that a row has."""
        found: Fields = {}
        for name, field in self.pairs:
            if found.get(field) in (None, ""):
                found[field] = at(row, name)
        return self.finish(found)


def at(row: Any, name: str) -> Any:
    """The value of a column, or of what a dotted name (`made.of.1`) names in one; else None."""
    if isinstance(row, Mapping) and name in row:
        return row[name]
    head, dot, rest = name.partition(".")
    if isinstance(row, list) and head.isdecimal() and int(head[:9]) < len(row):
        row = row[int(head)]
    elif isinstance(row, Mapping):
        row = row.get(head)
    else:
        return None
    return at(row, rest) if dot else row


def _rome(found: Fields) -> Fields:
    """ROME's prompt is the text; it often goes on where its template ends."""
    text, template, subject = (found[name] for name in ("text", "template", "subject"))
    if all(isinstance(one, str) for one in (text, template, subject)) and "{}" in template:
        before, _, after = template.partition("{}")
        subject = subject.strip()
        if text.startswith(before + subject + after):
            del found["template"]
            found["subject_span"] = (len(before), len(before) + len(subject))
    return found


def _popqa(found: Fields) -> Fields:
    """PopQA's subject is the last mention, as it may stand in the question's own words as well."""
    question, subject = found["text"], found["subject"]
    found = _asked(found)
    if isinstance(question, str) and isinstance(subject, str) and (name := subject.strip()):
        end = next((after for after in AFTER if question.endswith(name + after)), None)
        if end is not None:
            start = len(FRAME.split("{}")[0]) + len(question) - len(end) - len(name)
            found["subject_span"] = (start, start + len(name))
    return found


def _asked(found: Fields) -> Fields:
    """A question in its frame."""
    text = found["text"]
    return {**found, "text": FRAME.format(text.strip()) if isinstance(text, str) else text}


SCHEMAS = (
    Schema(
        "ROME's known_1000",
        ("attribute", "template", "prompt", "subject"),
        "prompt=text template=template subject=subject attribute=answers relation_id=relation "
        "known_id=id",
        _rome,
    ),
    Schema(
        "CounterFact",
        ("requested_rewrite.prompt",),
        "requested_rewrite.prompt=template requested_rewrite.subject=subject case_id=id "
        "requested_rewrite.target_true.str=answers requested_rewrite.relation_id=relation",
    ),
    Schema(
        "CounterFact for tracing",
        ("prompt", "subject", "target_true", "target_false"),
        "prompt=text subject=subject target_true=answers relation_id=relation",
    ),
    Schema(
        "PopQA",
        ("question", "subj", "prop", "possible_answers"),
        "question=text subj=subject possible_answers=answers prop=relation id=id",
        _popqa,
    ),
    Schema(
        "LRE",
        ("subject", "object", "prompt_templates"),
        "prompt_templates_zs.0=template prompt_templates.0=template subject=subject "
        "object=answers name=relation",
    ),
    Schema(
        "LLMsKnow",
        ("raw_question", "question", "correct_answer"),
        "question=text correct_answer=answers",
    ),
    Schema("LLMsKnow", ("Question", "Answer"), "Question=text Answer=answers", _asked),
    Schema(
        "ParaRel",
        ("sub_label", "obj_label"),
        "pattern=template template=template sub_label=subject obj_label=answers "
        "predicate_id=relation",
    ),
)


def schema_of(row: Mapping[str, Any]) -> Schema | None:
    """The data set whose columns a row has, or None."""

    def has(name: str) -> bool:
        return name in row or at(row, name) is not None

    return next((schema for schema in SCHEMAS if all(map(has, schema.needs))), None)
