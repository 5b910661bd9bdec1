"""Faults at the n-th call to the file system: an error, a death or a pause, at every n in turn."""

import errno
import io
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

CALLS = ("fsync", "replace", "rename", "link", "unlink", "mkdir")
EVERY = (*CALLS, "write")
WRITES = (1, 16)
"""Writes to a file that count: a shard takes dozens, and no name is given before the last."""
NEED_ROOM = ("write", "fsync", "link", "replace", "rename")
Action = Callable[[str], None]


class Calls:
    """Counts calls that change the file system, writes among them, and acts at the n-th.

    Only files under `room` count: sockets and logs are none of its business.
    """

    def __init__(self, at: int, action: Action, names: tuple[str, ...] = EVERY) -> None:
        self.at, self.action, self.names = at, action, names
        self.seen: list[str] = []

    def __call__(self, name: str) -> None:
        if name in self.names:
            self.seen.append(name)
            if len(self.seen) == self.at:
                self.action(name)

    def install(self) -> None:
        """Put it between this process and its files, for good: it is a forked one."""
        for name in CALLS:
            setattr(os, name, self._before(name, getattr(os, name)))
        plain = Path.open
        calls = self

        class Watched(io.BufferedWriter):
            written = 0

            def write(self, content: Any) -> int:
                self.written += 1
                if self.written in WRITES:
                    calls("write")
                return super().write(content)

        def opened(path: Path, mode: str = "r", *more: Any, **options: Any) -> Any:
            if mode in ("xb", "wb"):
                return Watched(io.FileIO(path, mode))
            return plain(path, mode, *more, **options)

        Path.open = opened  # type: ignore[method-assign]

    def _before(self, name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any, **options: Any) -> Any:
            self(name)
            return plain(*given, **options)

        return called


def no_room(name: str) -> None:
    """What a full disk answers."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def die(name: str) -> None:
    """kill -9, by one's own hand."""
    os.kill(os.getpid(), signal.SIGKILL)


def count_into(file: Path) -> Callable[[], None]:
    """Installs a counter that writes what it has seen when the process ends a command."""

    def before() -> None:
        calls = Calls(0, die)
        calls.install()
        plain = os._exit

        def leave(code: int) -> None:
            file.write_text(" ".join(calls.seen))
            plain(code)

        os._exit = leave  # type: ignore[assignment]

    return before
