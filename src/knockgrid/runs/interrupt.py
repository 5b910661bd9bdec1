"""Interrupt: the first Ctrl-C or SIGTERM ends a run after the shard in hand, the second at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(KeyboardInterrupt):
    """A run that was asked to stop, after the shard in hand was kept; `number` is the signal."""

    def __init__(self, said: str, number: int = signal.SIGINT) -> None:
        super().__init__(said)
        self.number = number


class Asked:
    """Whether a run was asked to stop, and by which signal."""

    number: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.number is not None:
            raise KeyboardInterrupt
        self.number = number


@contextmanager
def asked_to_stop() -> Iterator[Asked]:
    """Note the first Ctrl-C or SIGTERM instead of dying of it; only the main thread can."""
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            # None: a handler that was not set from Python, which Python cannot put back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
