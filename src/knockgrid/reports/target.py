"""Target: the file that a report is written to, which replaces nothing but a report."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from knockgrid.errors import InputError, shown

MARK = b'<meta name="generator" content="knockgrid '
"""Stands in the head of every report, of whatever version."""
HEAD = 4096


def target_of(out: str | Path) -> Path:
    """The file to write, once nothing but a report can be replaced by it.

    Example:
        >>> target_of("-")
        Traceback (most recent call last):
        ...
        knockgrid.errors.InputError: the report cannot be written to '-': a report is one file ...

    Raises:
        InputError: what is no file, or another file.
    """
    path = Path(out)
    if str(out) == "-":
        raise _refused("'-'", "a report is one file that a browser opens; name one, as report.html")
    with system_said(path):
        if path.is_dir():
            raise _refused(path, f"it is a folder; name a file in it, as {path / 'report.html'}")
        there = next((one for one in path.parents if one.exists()), None)
        if there is not None and not there.is_dir():
            raise _refused(path, f"{there} is a file, not a folder; name another")
        if path.exists():
            if not path.is_file():
                raise _refused(path, "it is no ordinary file; name another")
            if not _is_report(path):
                raise _refused(
                    path, "it is there and is no report of knockgrid; remove it, or name another"
                )
    return path


@contextmanager
def system_said(path: Path) -> Iterator[None]:
    """What the system says of a file that cannot be written, in one sentence.

    Raises:
        InputError: instead of it.
    """
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        raise _refused(path, f"{error.strerror or error}; name another file") from None
    except ValueError as error:  # a name that no file can have
        raise _refused(shown(str(path)), f"{error}; name another file") from None


def _is_report(path: Path) -> bool:
    with path.open("rb") as file:
        return MARK in file.read(HEAD)


def _refused(target: object, why: str) -> InputError:
    return InputError(f"the report cannot be written to {target}: {why}")
