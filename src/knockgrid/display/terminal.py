"""The terminal: whether it takes colours, how wide it is, and text that fits it."""

import os
import shutil
import sys
import textwrap
from typing import Any

STYLES = {"good": 32, "bad": 31}
"""Codes of ANSI's SGR."""
BESIDE = 24
"""With fewer columns left, a text goes below its heading, not beside it."""
NARROWEST = 8


def colours(stream: Any) -> bool:
    """Whether a stream takes colours: NO_COLOR decides, then FORCE_COLOR, then the terminal.

    Source: no-color.org and force-color.org, for which any text but the empty one counts.
    """
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def coloured(text: str, word: str, style: str) -> str:
    """Text whose first `word` has a style, where standard output takes colours.

    The text has its line breaks already, as the codes have a length but no width.
    """
    if not colours(sys.stdout):
        return text
    return text.replace(word, f"\x1b[{STYLES[style]}m{word}\x1b[0m", 1)


def width() -> int | None:
    """Columns of standard output: COLUMNS, or the terminal's; None for a file or a pipe."""
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given):
        return int(given)
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def hung(heading: str, text: str) -> str:
    """A heading and a text beside it, in lines that fit; words and paths are never broken.

    In a file or a pipe it is one line of any length, so that `grep` finds all of it.
    """
    columns = width()
    if columns is None or len(heading) + len(text) <= columns:
        return f"{heading}{text}"
    indent = len(heading) if columns - len(heading) >= BESIDE else 4
    room = max(columns - indent, NARROWEST)
    lines = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
    start = heading if indent == len(heading) else f"{heading.rstrip()}\n{' ' * indent}"
    return start + f"\n{' ' * indent}".join(lines)
