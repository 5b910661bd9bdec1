"""Rows of a prompt file, and how they become prompts."""

import ast
import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from itertools import count
from typing import Any, NamedTuple

from knockgrid.errors import InputError, shown
from knockgrid.prompts.prompt import Prompt, Span, trimmed
from knockgrid.prompts.strict_json import loads

ALIASES = {"prompt": "text", "answer": "answers", "object": "answers"}
ITEM = r"""\s*(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?)\s*"""
PYTHON_LIST = re.compile(rf"[\[(](?:{ITEM},)*(?:{ITEM})?\s*[\])]", re.DOTALL)
"""A list as Python writes it, which is how pandas puts one into a CSV cell."""
SPAN = re.compile(r"[\[(]?\s*(\d{1,9})\s*[:,]\s*(\d{1,9})\s*[\])]?")
SLOT, ANSWER = "[X]", "[Y]"
"""What ParaRel and LAMA write for the subject and, at the end, for the answer."""
LONGEST = 2**22
"""Characters of a text with its continuation, and bytes of a line: a million tokens of English."""
MOST_SPANS = 1000
"""Spans in a row: each is looked for in the text."""


def _text(value: Any) -> str:
    """Text, or a number as text; nothing else is guessed at (bytes may be in any encoding)."""
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        if isinstance(value, int) or math.isfinite(value):
            return str(value)
        raise ValueError("it should be text, or a finite number")
    if not isinstance(value, str):
        raise ValueError(f"it should be text, not {type(value).__name__}")
    return value


def _name(value: Any) -> str:
    return trimmed(_text(value))


def _answers(value: Any) -> tuple[str, ...]:
    """One answer, or several: as a list, as a list written as text, or between `|`."""
    if isinstance(value, str):
        is_list = trimmed(value).startswith(("[", "('", '("'))
        value = _written_list(trimmed(value)) if is_list else value.split("|")
    if not isinstance(value, list | tuple):
        raise ValueError("it should be a list of text")
    if any(one is None for one in value):
        raise ValueError("it should be a list of text, without nulls")
    return tuple(map(_text, value))


def _written_list(text: str) -> list[Any]:
    """The items of a list that is written as text, by JSON or by Python."""
    found: Any = None
    try:
        found = loads(text, "it")
    except InputError:
        if PYTHON_LIST.fullmatch(text):
            unread = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)
            with suppress(*unread), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of escapes that mean nothing
                found = list(ast.literal_eval(text))
    if not isinstance(found, list):
        raise ValueError('it begins as a list and is none; write ["one", "other"]')
    return found


def _span(value: Any) -> Span:
    """The two ends of a span: whole numbers of any type but booleans, or text such as 45:50."""
    if isinstance(value, str) and (found := SPAN.fullmatch(value.strip())):
        value = [int(found[1]), int(found[2])]
    ends = list(value) if isinstance(value, list | tuple) and len(value) == 2 else []
    if not ends or any(not isinstance(i, int | float) or isinstance(i, bool) for i in ends):
        raise ValueError("a span should be (start, end) in characters, or start:end as text")
    if any(not math.isfinite(i) or i != int(i) for i in ends if isinstance(i, float)):
        raise ValueError("the ends of a span should be whole numbers")
    return int(ends[0]), int(ends[1])


def _spans(value: Any) -> dict[str, Span | str]:
    """Spans by name; Parquet gives each row all names of the file, some without a value."""
    if isinstance(value, str):
        value = loads(value, "it")
    if not isinstance(value, Mapping) or len(value) > MOST_SPANS:
        raise ValueError(f"it should be at most {MOST_SPANS:,} spans by name")
    given = {name: one for name, one in value.items() if one is not None}
    return {name: one if isinstance(one, str) else _span(one) for name, one in given.items()}


READ: dict[str, Callable[[Any], Any]] = {
    **{"text": _text, "continuation": _text, "template": _text, "subject": _name},
    **{"subject_span": _span, "spans": _spans, "answers": _answers, "foil": _text},
    **{"relation": _name, "group": _name, "swap": _name, "id": _name},
}
"""How the value of each field is read; it raises `ValueError` for one that is not understood."""
NAMES = (*READ, *ALIASES)
"""The columns of a prompt; others are not read."""


class Parsed(NamedTuple):
    """A prompt from a row, the id of its swap partner, and the row's place."""

    prompt: Prompt
    swap: str | None
    where: str


def parse(row: Mapping[str, Any], where: str) -> Parsed:
    """The prompt of a row; `where` names file and line in an error."""
    try:
        found = {name: _read(name, value) for name, value in _named(row).items()}
        return Parsed(_prompt(found), found.get("swap"), where)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def _read(name: str, value: Any) -> Any:
    try:
        return READ[name](value)
    except ValueError as error:
        raise InputError(f"{name} is {shown(value)} ({error})") from None


def _named(row: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a row by field; columns of one field have to agree."""
    found = {name: row[name] for name in READ if name in row and not _missing(row[name])}
    for alias, name in ALIASES.items():
        value = row.get(alias)
        if _missing(value) or value == (several := found.setdefault(name, value)):
            continue
        if not (isinstance(several, list | tuple) and value in several):
            raise InputError(
                f"its columns for {name!r} differ: {shown(several)} and {alias!r} {shown(value)}; "
                "leave one out"
            )
    return found


def _missing(value: Any) -> bool:
    empty = isinstance(value, str) and not value
    return empty or value is None or (isinstance(value, float) and math.isnan(value))


def _prompt(found: Mapping[str, Any]) -> Prompt:
    """The prompt that the fields of a row describe, without its swap partner."""
    text, spans = _filled(found)
    if text is None:
        raise InputError(
            "there is no 'text', and no 'template' with a 'subject' either; name a column, or give "
            "one template for all rows"
        )
    if (length := len(text) + len(found.get("continuation", ""))) > LONGEST:
        raise InputError(f"its text has {length:,} characters, at most {LONGEST:,} are read")
    names = ("continuation", "answers", "foil", "relation", "group", "id")
    made = Prompt(text, spans=spans, **{name: found[name] for name in names if name in found})
    subject, covered = found.get("subject"), made.span_text("subject")
    if subject is not None and covered != subject:
        raise InputError(
            f"its subject is {shown(subject)}, and its span covers {shown(covered)}; leave one out"
        )
    return made


def _filled(found: Mapping[str, Any]) -> tuple[str | None, dict[str, Span | str]]:
    """The text, which a template and its subject may give, and the spans."""
    text, subject, template = (found.get(name) for name in ("text", "subject", "template"))
    spans = dict(found.get("spans", {}))
    if "subject_span" in found:
        spans["subject"] = found["subject_span"]
    if template is None or (subject is None and text is None):
        if subject is not None:
            spans.setdefault("subject", subject)
        return text, spans
    before, after = _around(template)
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
    """The text before and after the subject; an answer's slot at the end is cut off."""
    filled = template.replace(SLOT, "{}")
    if SLOT in template and ANSWER in template:
        filled, _, behind = filled.partition(ANSWER)
        filled = filled.rstrip()
        if any(c.isalnum() for c in behind):
            raise InputError(
                f"template {shown(template)} goes on after its answer; a prompt ends before it"
            )
    if filled.count("{}") != 1:
        raise InputError(f"template {shown(template)} needs exactly one {{}}")
    before, _, after = filled.partition("{}")
    return before, after


def pair_swaps(rows: Iterable[Parsed]) -> list[Prompt]:
    """Prompts in order, each with the partner that its row names by id.

    A prompt that repeats the id of an earlier one, or its text where it has no id, is numbered.
    """
    rows = list(rows)
    same: dict[str, list[Parsed]] = {}
    for one in rows:
        same.setdefault(str(one.prompt.id), []).append(one)
    ids, paired, seen = set(same), [], Counter[str]()
    for one in rows:
        prompt, name = one.prompt, str(one.prompt.id)
        seen[name] += 1
        if seen[name] > 1:
            name = next(new for i in count(seen[name]) if (new := f"{name}-{i}") not in ids)
            ids.add(name)
            prompt = prompt.replace(id=name)
        paired.append(prompt if one.swap is None else prompt.replace(swap=_partner(one, same)))
    name, twice = next(((n, several) for n, several in same.items() if len(several) > 1), ("", ()))
    if twice:
        warnings.warn(
            f"numbered {len(rows) - len(same)} of {len(rows)} prompts, which repeat the text or id "
            f"of an earlier one (first: {shown(name)} at {twice[0].where} and {twice[1].where})",
            stacklevel=3,
        )
    return paired


def _partner(one: Parsed, same: Mapping[str, Sequence[Parsed]]) -> Prompt:
    """The prompt that a row names as its swap partner."""
    name, said = str(one.swap), f"{one.where}: prompt {shown(one.prompt.id)} names"
    if name not in same:
        raise InputError(f"{said} the swap partner {shown(name)}, which the file lacks")
    if len(same[name]) > 1:
        places = shown([each.where for each in same[name]])
        raise InputError(f"{said} the swap partner {shown(name)}, an id at {places}")
    if name == one.prompt.id:
        raise InputError(f"{said} itself as its swap partner; name a different one")
    return same[name][0].prompt
