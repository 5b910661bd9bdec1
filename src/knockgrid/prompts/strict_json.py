"""JSON without what RFC 8259 leaves open: no key twice, `NaN`, `Infinity` or number too large."""

import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from knockgrid.errors import InputError, shown

DIGITS = 300
"""Most digits of a whole number: Python needs quadratic time for more, and no row needs them."""
SPACE = re.compile(r"[ \t\n\r]*")


def loads(text: str, where: str) -> Any:
    """The value of a JSON text; `where` names its place in an error."""
    with _named(where):
        return json.loads(text, **STRICT)


def value_at(text: str, start: int, where: str) -> tuple[Any, int]:
    """The JSON value that begins at `start`, and where it ends."""
    with _named(where):
        return DECODER.raw_decode(text, start)


def after_space(text: str, start: int) -> int:
    """Where the white space that begins at `start` ends, as JSON defines white space."""
    return SPACE.match(text, start).end()  # type: ignore[union-attr]


@contextmanager
def _named(where: str) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise InputError(f"{where} is not JSON ({error})") from None
    except json.JSONDecodeError as error:
        raise InputError(
            f"{where} is not JSON ({error.msg}); repair it, or write one object a line"
        ) from None
    except RecursionError:
        raise InputError(f"{where} is JSON nested too deeply; a row is flat") from None


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
    if not math.isfinite(value := float(digits)):
        raise InputError(f"the number {shown(digits)} is too large")
    return value


STRICT: dict[str, Any] = {
    "object_pairs_hook": _object,
    "parse_constant": _constant,
    "parse_int": _integer,
    "parse_float": _float,
}
DECODER = json.JSONDecoder(**STRICT)
