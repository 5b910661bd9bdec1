"""The numbered lines of a text file that anybody may have written."""

from collections.abc import Iterator
from pathlib import Path

from knockgrid.errors import InputError

LONGEST = 2**22
"""Bytes in a line, which is a prompt: a million tokens of English."""
UTF16 = (b"\xff\xfe", b"\xfe\xff")


def lines(path: Path) -> Iterator[tuple[int, str]]:
    r"""Lines with their numbers and ends; a byte-order mark at the start is not part of the first.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "three.csv")
        ...     _ = file.write_bytes(b"\xef\xbb\xbfid\r\na\rb\n")
        ...     list(lines(file))
        [(1, 'id\r\n'), (2, 'a\r'), (3, 'b\n')]

    Lines end in LF, CR LF or CR. Never more than one of them is in memory.

    Raises:
        InputError: a line that is too long or not UTF-8 or holds NUL; a file that cannot be opened.
    """
    number, utf16 = 0, False
    try:
        with path.open("rb") as file:
            while chunk := file.readline(LONGEST + 1):
                utf16 = utf16 or (number == 0 and chunk.startswith(UTF16))
                for line in chunk.splitlines(keepends=True):
                    number += 1
                    yield number, _decoded(line, number, path.name, utf16)
    except OSError as error:
        raise InputError(f"{path.name} cannot be read ({error.strerror})") from None


def _decoded(line: bytes, number: int, name: str, utf16: bool) -> str:
    where = f"{name} line {number}"
    if len(line) > LONGEST:
        raise InputError(f"{where} is longer than {LONGEST:,} bytes; a line is one prompt")
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        seems = ", the file looks like UTF-16" if utf16 else ""
        raise InputError(
            f"{where} is not UTF-8 (byte {error.start}{seems}); save it as UTF-8"
        ) from None
    if "\0" in text:
        raise InputError(
            f"{where} holds a NUL byte, as UTF-16 and binary files do; save it as UTF-8"
        )
    return text
