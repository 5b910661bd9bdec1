"""Rows of a JSON file: an array of objects, an object that holds one, or an object a line."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from knockgrid.errors import InputError, shown
from knockgrid.prompts.jsonl_file import after_space, jsonl_rows, no_object, value_at

ADVICE = "repair it, or write JSON Lines"
LARGEST = 2**29
"""Bytes of a JSON file, which is read whole; JSON Lines have no such bound."""


def json_rows(path: Path, wanted: Collection[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a file with their place.

    An object with one list of objects in it gives its other fields to each of them, as the files
    of LRE mean it.

    Raises:
        InputError: a file that is too large, is not JSON, or holds no list of objects.
    """
    text = _text(path)
    start = after_space(text, 0)
    if start == len(text):
        return iter(())
    if text[start : start + 1] == "[":
        return _items(text, start + 1, path.name)
    try:
        whole, end = value_at(text, start, path.name, ADVICE)
        if text[end:].strip():
            raise InputError(f"{path.name} is not JSON (Extra data); {ADVICE}")
        return _within(whole, path.name)
    except InputError:
        if "\n" in text.strip():  # an object a line, which some programs call JSON too
            return jsonl_rows(path)
        raise


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST:
            raise InputError(f"{path.name} has more than {LARGEST:,} bytes; write JSON Lines")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path.name} cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path.name} is not UTF-8 (byte {error.start}); save it as UTF-8"
        ) from None
    if "\0" in text:
        raise InputError(f"{path.name} holds a NUL byte, as binary files do; save it as UTF-8")
    return text


def _items(text: str, at: int, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of an array whose first item begins after `at`, with their lines."""
    line, counted, number = 1, 0, 1
    while True:
        at = after_space(text, at)
        line, counted = line + text.count("\n", counted, at), at
        where = f"{name} row {number} (line {line})"
        if number == 1 and text[at : at + 1] == "]":
            break
        row, at = value_at(text, at, where, ADVICE)
        if not isinstance(row, dict):
            raise no_object(where)
        yield where, row
        at, number = after_space(text, at), number + 1
        if text[at : at + 1] != ",":
            break
        at += 1
    if text[at:].strip() != "]":
        raise InputError(f"{where} is not JSON (after it the array neither goes on nor ends)")


def _within(whole: Any, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows in an object: those of its one list of objects, or the object itself."""
    if not isinstance(whole, dict):
        raise no_object(name)
    lists = [
        key
        for key, value in whole.items()
        if isinstance(value, list) and value and all(isinstance(one, dict) for one in value)
    ]
    if len(lists) > 1:
        raise InputError(f"{name} holds several lists of objects, {shown(lists)}; keep one")
    rest = {key: value for key, value in whole.items() if key not in lists}
    rows = whole[lists[0]] if lists else [{}]
    return ((f"{name} row {i}", {**rest, **row}) for i, row in enumerate(rows, 1))
