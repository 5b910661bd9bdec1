"""Public data sets of facts: the columns that tell each apart, and what they are to a prompt.

A column may lie in another one (`requested_rewrite.prompt`). A field whose columns are absent
stays out.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Fields = dict[str, Any]
FRAME = "Q: {}\nA:"
"""How PopQA and LLMsKnow put a question to a model that was not tuned to chats."""
AFTER = ("'s occupation?", " born?", " the capital of?", " play?", "?")
"""What follows the subject in a question of PopQA."""


@dataclass(frozen=True)
class Schema:
    """A data set: its name, the columns that tell it apart, and the column of each field.

    Of several columns between `|` the first with a value counts. `finish` adapts the fields.
    """

    name: str
    needs: tuple[str, ...]
    columns: Mapping[str, str]
    finish: Callable[[Fields], Fields] = dict

    def fields(self, row: Mapping[str, Any]) -> Fields:
        """The fields of a prompt that a row has."""
        return self.finish({name: _first(row, spec) for name, spec in self.columns.items()})

    @property
    def roots(self) -> set[str]:
        """The columns that are read, without what is named in them."""
        specs = [*self.needs, *(one for spec in self.columns.values() for one in spec.split("|"))]
        return {name.split(".")[0] for name in specs}


def at(row: Any, name: str) -> Any:
    """The value of a column, or of what a dotted name names in one; None where there is none.

    Example:
        >>> at({"made": {"of": ["tin", "lead"]}}, "made.of.1")
        'lead'
    """
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


def _first(row: Mapping[str, Any], spec: str) -> Any:
    values = [at(row, name) for name in spec.split("|")]
    return next((value for value in values if value not in (None, "")), values[-1])


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
    framed = FRAME.replace("{}", text.strip()) if isinstance(text, str) else text
    return {**found, "text": framed}


SCHEMAS = (
    Schema(
        "ROME's known_1000",
        ("attribute", "template", "prompt", "subject"),
        {
            "text": "prompt",
            "template": "template",
            "subject": "subject",
            "answers": "attribute",
            "relation": "relation_id",
            "id": "known_id",
        },
        _rome,
    ),
    Schema(
        "CounterFact",
        ("requested_rewrite.prompt",),
        {
            "template": "requested_rewrite.prompt",
            "subject": "requested_rewrite.subject",
            "answers": "requested_rewrite.target_true.str",
            "relation": "requested_rewrite.relation_id",
            "id": "case_id",
        },
    ),
    Schema(
        "CounterFact for tracing",
        ("prompt", "subject", "target_true", "target_false"),
        {
            "text": "prompt",
            "subject": "subject",
            "answers": "target_true",
            "relation": "relation_id",
        },
    ),
    Schema(
        "PopQA",
        ("question", "subj", "prop", "possible_answers"),
        {
            "text": "question",
            "subject": "subj",
            "answers": "possible_answers",
            "relation": "prop",
            "id": "id",
        },
        _popqa,
    ),
    Schema(
        "LRE",
        ("subject", "object", "prompt_templates"),
        {
            "template": "prompt_templates_zs.0|prompt_templates.0",
            "subject": "subject",
            "answers": "object",
            "relation": "name",
        },
    ),
    Schema(
        "LLMsKnow",
        ("raw_question", "question", "correct_answer"),
        {"text": "question", "answers": "correct_answer"},
    ),
    Schema("LLMsKnow", ("Question", "Answer"), {"text": "Question", "answers": "Answer"}, _asked),
    Schema(
        "ParaRel",
        ("sub_label", "obj_label"),
        {
            "template": "pattern|template",
            "subject": "sub_label",
            "answers": "obj_label",
            "relation": "predicate_id",
        },
    ),
)


def schema_of(row: Mapping[str, Any]) -> Schema | None:
    """The data set whose columns a row has, or None."""
    return next((s for s in SCHEMAS if all(_has(row, name) for name in s.needs)), None)


def _has(row: Mapping[str, Any], name: str) -> bool:
    return name in row or at(row, name) is not None
