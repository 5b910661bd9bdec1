"""Columns of public data sets of facts, and what they are to a prompt.

A schema names the columns that tell it apart, some in others (`requested_rewrite.prompt`), and
gives the fields of `Prompt`; what is not there stays out.
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
    """A data set: the columns that tell it apart, others that are read, and their fields."""

    name: str
    needs: tuple[str, ...]
    fields: Callable[[Mapping[str, Any]], Fields]
    reads: tuple[str, ...] = ()

    @property
    def roots(self) -> set[str]:
        """The columns that are read, without what is named in them."""
        return {name.split(".")[0] for name in (*self.needs, *self.reads)}


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


def _rome(row: Mapping[str, Any]) -> Fields:
    """Its prompt is the text, and often goes on where its template ends."""
    made = {
        "answers": row["attribute"],
        "relation": row.get("relation_id"),
        "subject": row["subject"],
    }
    text, template, subject = row["prompt"], row["template"], row["subject"]
    if all(isinstance(one, str) for one in (text, template, subject)) and "{}" in template:
        start = template.index("{}")
        if text.startswith(template[:start] + subject.strip() + template[start + 2 :]):
            span = (start, start + len(subject.strip()))
            return {**made, "text": text, "subject_span": span, "id": row.get("known_id")}
    return {**made, "text": text, "template": template, "id": row.get("known_id")}


def _counterfact(row: Mapping[str, Any]) -> Fields:
    asked = {name: at(row, f"requested_rewrite.{name}") for name in ("prompt", "subject")}
    return {
        "template": asked["prompt"],
        "subject": asked["subject"],
        "answers": at(row, "requested_rewrite.target_true.str"),
        "relation": at(row, "requested_rewrite.relation_id"),
        "id": row.get("case_id"),
    }


def _tracing(row: Mapping[str, Any]) -> Fields:
    made = {"answers": row["target_true"], "relation": row.get("relation_id")}
    return {**made, "text": row["prompt"], "subject": row["subject"]}


def _popqa(row: Mapping[str, Any]) -> Fields:
    made = {"answers": row["possible_answers"], "relation": row["prop"], "id": row.get("id")}
    question, subject = row["question"], row["subj"]
    text = _asked(question)
    made = {**made, "text": text, "subject": subject}
    if isinstance(question, str) and isinstance(subject, str) and subject.strip() in question:
        name = subject.strip()
        end = next((after for after in AFTER if question.endswith(name + after)), None)
        if end is not None and name:  # the subject may stand in the question's own words as well
            start = len(FRAME.split("{}")[0]) + len(question) - len(end) - len(name)
            made["subject_span"] = (start, start + len(name))
    return made


def _asked(question: Any) -> Any:
    return FRAME.replace("{}", question.strip()) if isinstance(question, str) else question


def _lre(row: Mapping[str, Any]) -> Fields:
    templates = row.get("prompt_templates_zs") or row["prompt_templates"]
    made = {"answers": row["object"], "relation": row.get("name"), "subject": row["subject"]}
    return {**made, "template": at(templates, "0")}


def _questions(row: Mapping[str, Any]) -> Fields:
    return {"text": _asked(row["Question"]), "answers": row["Answer"]}


def _asked_before(row: Mapping[str, Any]) -> Fields:
    return {"text": row["question"], "answers": row["correct_answer"]}


def _pararel(row: Mapping[str, Any]) -> Fields:
    made = {"subject": row["sub_label"], "answers": row["obj_label"]}
    template = row.get("pattern") or row.get("template")
    return {**made, "template": template, "relation": row.get("predicate_id")}


SCHEMAS = (
    Schema(
        "ROME's known_1000",
        ("attribute", "template", "prompt", "subject"),
        _rome,
        ("relation_id", "known_id"),
    ),
    Schema("CounterFact", ("requested_rewrite.prompt",), _counterfact, ("case_id",)),
    Schema(
        "CounterFact for tracing",
        ("prompt", "subject", "target_true", "target_false"),
        _tracing,
        ("relation_id",),
    ),
    Schema("PopQA", ("question", "subj", "prop", "possible_answers"), _popqa, ("id",)),
    Schema(
        "LRE",
        ("subject", "object", "prompt_templates"),
        _lre,
        ("name", "prompt_templates_zs"),
    ),
    Schema("LLMsKnow", ("raw_question", "question", "correct_answer"), _asked_before),
    Schema("LLMsKnow", ("Question", "Answer"), _questions),
    Schema(
        "ParaRel", ("sub_label", "obj_label"), _pararel, ("pattern", "template", "predicate_id")
    ),
)


def schema_of(row: Mapping[str, Any]) -> Schema | None:
    """The data set whose columns a row has, or None."""
    return next((s for s in SCHEMAS if all(_has(row, name) for name in s.needs)), None)


def _has(row: Mapping[str, Any], name: str) -> bool:
    return name in row or at(row, name) is not None
