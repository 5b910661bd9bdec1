"""JSON read strictly: what RFC 8259 leaves open is refused.

That is a key that comes twice, of which readers keep either one; `NaN` and `Infinity`, which are
not JSON; and numbers too large for a float.
"""

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from knockgrid.errors import InputError, shown

DIGITS = 300
"""Most digits of a whole number: Python needs quadratic time for more, and no row needs them."""
SPACE = re.compile(r"[ \t\n\r]*")


def loads(text: str, where: str) -> Any:
    """The value of a JSON text.

    Example:
        >>> loads('{"text": "Rome is in"}', "line 1")
        {'text': 'Rome is in'}

    Raises:
        InputError: the text is no strict JSON; `where` names its place.
    """
    if text.startswith("\ufeff"):
        raise InputError(f"{where} is not JSON (Unexpected UTF-8 BOM); take it out")
    value, end = value_at(text, after_space(text, 0), where)
    if after_space(text, end) < len(text):
        raise InputError(f"{where} is not JSON (Extra data); write one object a line")
    return value


def value_at(text: str, start: int, where: str) -> tuple[Any, int]:
    """The JSON value that begins at `start`, and where it ends."""
    try:
        return STRICT.raw_decode(text, start)
    except InputError as error:
        raise InputError(f"{where} is not JSON ({error})") from None
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where} is not JSON ({error.msg}); repair it, or write one object a line"
        ) from None
    except RecursionError:
        raise InputError(f"{where} is JSON nested too deeply; a row is flat") from None


def after_space(text: str, start: int) -> int:
    """Where the white space that begins at `start` ends, as JSON defines white space."""
    found = SPACE.match(text, start)
    return start if found is None else found.end()


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
