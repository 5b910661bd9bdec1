"""Rows of a JSONL file: one JSON object a line."""

import json
import math
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from knockgrid.errors import InputError, shown
from knockgrid.prompts.lines import lines

DIGITS = 300
"""Of a whole number; Python needs quadratic time for more, and no row needs them."""


def jsonl_rows(path: Path, wanted: Collection[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file with their place; empty lines are passed over.

    What RFC 8259 leaves open is refused: a key that comes twice, of which readers keep either;
    `NaN` and `Infinity`, which are not JSON; numbers too large for a float.

    Raises:
        InputError: a line that is no JSON object, with its number.
    """
    for number, line in lines(path):
        if line.strip():
            where = f"{path.name} line {number}"
            row = loads(line, where)
            if not isinstance(row, dict):
                raise no_object(where)
            yield where, row


def no_object(where: str) -> InputError:
    """The error for a JSON value that is no row."""
    return InputError(f'{where} is not a JSON object; write {{"text": ..., ...}}')


def loads(text: str, where: str) -> Any:
    """The value of a JSON text, read strictly.

    Example:
        >>> loads('{"text": "Rome is in"}', "line 1")
        {'text': 'Rome is in'}

    Raises:
        InputError: another text, with what is wrong in it.
    """
    if text.startswith("\ufeff"):
        raise InputError(f"{where} is not JSON (Unexpected UTF-8 BOM); take it out")
    value, end = value_at(text, after_space(text, 0), where)
    if after_space(text, end) < len(text):
        raise InputError(f"{where} is not JSON (Extra data); one object a line")
    return value


def value_at(text: str, at: int, where: str, advice: str = "one object a line") -> tuple[Any, int]:
    """The JSON value that begins at a place in a text, and the place after it.

    Raises:
        InputError: none begins there, or not a strict one.
    """
    try:
        return STRICT.raw_decode(text, at)
    except InputError as error:
        raise InputError(f"{where} is not JSON ({error})") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{where} is not JSON ({error.msg}); {advice}") from None
    except RecursionError:
        raise InputError(f"{where} is JSON nested too deeply; a row is flat") from None


def after_space(text: str, at: int) -> int:
    """The place after white space, as JSON knows it."""
    found = SPACE.match(text, at)
    return at if found is None else found.end()


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise InputError(f"the key {shown(twice)} comes twice")
    return row


def _constant(name: str) -> None:
    raise InputError(f"{name} is no JSON number; write null for a missing value")


def _integer(digits: str) -> int:
    if len(digits) > DIGITS:
        raise InputError(f"a whole number of {len(digits)} digits")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise InputError(f"the number {shown(digits)} is too large")
    return value


STRICT = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_constant, parse_int=_integer, parse_float=_float
)
SPACE = re.compile(r"[ \t\n\r]*")
