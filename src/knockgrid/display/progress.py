"""Progress: the one bar, in terminals and in notebooks."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any, TextIO, cast

with warnings.catch_warnings():  # in a notebook without `ipywidgets` the bar is one of text
    warnings.simplefilter("ignore")
    from tqdm.auto import tqdm


MINUTE = 60.0


def bar(total: int, unit: str, desc: str, progress: bool) -> tqdm:
    """A bar on standard error, if `progress` asks for one.

    In a file or a pipe, as of a batch job, it is a line a minute instead.
    """
    how: dict[str, Any] = {}
    if progress and not visible():
        shape = "{desc}: {percentage:.0f} % of {total_fmt}{unit}, {elapsed} gone, {remaining} to go"
        how = {"file": Lines(), "bar_format": shape, "ascii": True, "delay": MINUTE}
        how |= {"mininterval": MINUTE, "maxinterval": MINUTE}
    return tqdm(total=total, unit=unit, desc=desc, disable=not progress, **how)


class Lines:
    """Standard error for a bar that cannot move: each of its states is a line."""

    def write(self, text: str) -> None:
        """Skip the blanks that tqdm sends to move and to wipe a bar."""
        if sys.stderr is not None and text.strip():
            sys.stderr.write(text.strip() + "\n")

    def flush(self) -> None:
        """Let the line be seen now."""
        if sys.stderr is not None:
            sys.stderr.flush()


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep the bars of other packages, which load and convert models, out of logs and pipes.

    All else comes through, such as warnings.
    """
    if visible() or sys.stderr is None:
        yield
    else:
        with redirect_stderr(cast(TextIO, _NoBars(sys.stderr))):
            yield


class _NoBars:
    """A stream that drops text after a carriage return, and the line's end that follows."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.inside = stream, False

    def write(self, text: str) -> int:
        self.inside = text.startswith("\r") or (self.inside and not text.strip())
        return len(text) if self.inside else self.stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def visible() -> bool:
    """Whether standard error is a terminal or the page of a notebook."""
    ipython = sys.modules.get("IPython")
    if ipython is not None and hasattr(ipython.get_ipython(), "kernel"):
        return True
    return sys.stderr is not None and sys.stderr.isatty()
