"""The error for bad input, how it shows what was given, and checks of plain values."""

import difflib
import reprlib
import unicodedata
from collections.abc import Iterable, Sequence, Sized
from operator import index
from typing import Any, SupportsIndex

SHOWN, LONGEST = 80, 2000
"""Characters of one value that an error shows, and of a whole error."""

_BRIEF = reprlib.Repr()
_BRIEF.maxlevel = 3
_BRIEF.maxstring = _BRIEF.maxother = SHOWN


class InputError(ValueError):
    """Input that knockgrid refuses, in one sentence: what was given, what is allowed, what to do.

    It is a `ValueError`; the command line turns it into one line on standard error and exit code 2.
    Control characters are escaped, so that text from a file can neither break the line nor steer a
    terminal.

    Example:
        >>> raise InputError("layer 31 is out of range: the model has layers 0 to 29")
        Traceback (most recent call last):
        ...
        knockgrid.errors.InputError: layer 31 is out of range: the model has layers 0 to 29
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(cut(printable(cut(str(message), LONGEST)), LONGEST))


def printable(text: str) -> str:
    """Text in one line, with an escape for each character that cannot be printed."""
    if text.isprintable():
        return text
    # `ascii` of one character is its escape in quotes
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shown(given: object, limit: int = SHOWN) -> str:
    """A value as an error shows it: like `repr`, on one line and never long."""
    try:
        # only the ends of a long text are looked at: it may hold a gigabyte
        text = repr(cut(given, limit)) if type(given) is str else _BRIEF.repr(given)
    except Exception:  # a number of too many digits, or an object that cannot be shown
        return f"a value of type {type(given).__name__}"
    return cut(printable(text), limit)


def cut(text: str, limit: int) -> str:
    """Both ends of a text that is longer than `limit`."""
    half = (limit - 1) // 2
    return text if len(text) <= limit else f"{text[:half]}…{text[-half:]}"


def some_of(parts: Sequence[str], between: str = ", ", most: int = 4) -> str:
    """The first parts of a list, and how many follow."""
    more = f" and {len(parts) - most} more" if len(parts) > most else ""
    return between.join(parts[:most]) + more


def looks_alike(one: str, other: str) -> str:
    """A remark on a text that occurs in the other only in a different Unicode normal form."""
    if one in other or unicodedata.normalize("NFC", one) not in unicodedata.normalize("NFC", other):
        return ""
    one, other = (
        next((f for f in ("NFC", "NFD") if unicodedata.is_normalized(f, text)), "neither form")
        for text in (one, other)
    )
    return f"it is in {one} and the other in {other}, which look alike: normalise both"


def unknown(what: str, given: object, allowed: Iterable[str]) -> InputError:
    """The error for a name that does not exist, with the nearest spelling that does."""
    names = [str(name) for name in allowed]
    near = difflib.get_close_matches(str(given)[:SHOWN], names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    if near and near[0] != given and (same := looks_alike(near[0], str(given)[:SHOWN])):
        hint += f" {same[0].upper()}{same[1:]}."
    return InputError(f"unknown {what} {shown(given)}{hint} Allowed: {', '.join(names)}")


def missing_extra(what: str, package: str, extra: str) -> InputError:
    """The error for a package that is not installed, with the extra that brings it."""
    return InputError(
        f'{what} needs {package}, which is not installed; pip install "knockgrid[{extra}]"'
    )


def as_int(value: object) -> Any:
    """An integer of NumPy's as Python's own, since labels and keys show it; all else unchanged."""
    if isinstance(value, bool | Sized) or not isinstance(value, SupportsIndex):
        return value
    return index(value)


def check_counts(least: int = 1, **counts: int) -> None:
    """Refuse what is not a whole number of at least `least`."""
    for name, value in counts.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise InputError(f"{name} is {value!r}; give a whole number of at least {least}")
