"""One thread at a time: a model that one thread runs is refused to every other.

Hooks are set on the model itself, so a forward pass of a second thread would meet edits that are
not its own, and would be recorded as the sweep's. The numbers would not show it, so it is refused:
where knockgrid enters a model, and where a hook of knockgrid's fires.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from torch.nn import Module

from knockgrid.errors import InputError

ADVICE = "a model belongs to one thread at a time: wait for that thread, or load a second model"


class _Use:
    """Which thread runs a model, and what it is doing."""

    def __init__(self) -> None:
        self.lock, self.doing, self.thread = threading.RLock(), "", ""


_USES: "WeakKeyDictionary[Module, _Use]" = WeakKeyDictionary()
_ADDING = threading.Lock()


def _forget() -> None:
    """A forked process starts without the threads that run a model in its parent."""
    global _ADDING
    _ADDING = threading.Lock()
    _USES.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@contextmanager
def exclusive(model: Module, doing: str) -> Iterator[None]:
    """Keep a model to this thread, nested or not; `doing` names the function to a second thread."""
    with _ADDING:
        use = _USES.setdefault(model, _Use())
    if not use.lock.acquire(blocking=False):
        raise InputError(
            f"{doing} cannot run the model in thread {threading.current_thread().name!r} while "
            f"{use.doing} runs it in thread {use.thread!r}; {ADVICE}"
        )
    outer = use.doing
    try:
        if not outer:
            use.doing, use.thread = doing, threading.current_thread().name
        yield
    finally:
        use.doing = outer
        use.lock.release()


def of_this_thread(hook_fn: Callable[..., Any]) -> Callable[..., Any]:
    """A hook that refuses a forward pass of any other thread."""
    return partial(_checked, hook_fn, threading.current_thread())


def _checked(
    hook_fn: Callable[..., Any], owner: threading.Thread, activation: Any, hook: Any
) -> Any:
    if threading.current_thread() is not owner:
        raise InputError(
            f"a forward pass in thread {threading.current_thread().name!r} met the hooks that "
            f"knockgrid has set on the model in thread {owner.name!r}; {ADVICE}"
        )
    return hook_fn(activation, hook=hook)
