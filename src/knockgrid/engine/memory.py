"""Memory: what a sweep may take, and what running out of it has taught.

Fewer rows in a pass or fewer prompts at once change no result but for its last digits: products of
other shapes round differently.
"""

import gc
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from knockgrid.errors import InputError

T = TypeVar("T")
LEAST = 2
"""Rows of the smallest pass: one that is edited, and the unedited one it is compared with."""
TRIAL = 64
"""Rows that a trial pass of preflight has at most, in round numbers."""
UNITS = {f"{p}{i}": (1024 if i else 1000) ** n for n, p in enumerate("kmgt", 1) for i in ("", "i")}
FORMS = "write '4GB', '800MiB' or a number of bytes"
TEXTS = ("out of memory", "can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC")
"""What allocators say: those of accelerators, of a CPU, of a CPU on Windows, and cuBLAS."""


class LessMemory(UserWarning):
    """Memory ran out, and from here on a sweep does less at once."""


class TooLittleMemory(RuntimeError):
    """Memory ran out although one prompt was carried out alone, in the smallest passes."""

    def __init__(self, of: str) -> None:
        self.of = of
        super().__init__(
            f"memory ran out even with one of the {of} at a time and in the smallest passes; use a "
            "smaller n_tokens or dtype, shorter prompts, or device_map='auto' over several devices"
        )

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return type(self), (self.of,)  # else what travels between processes is said twice


@dataclass(eq=False)
class Memory:
    """The bounds that were given, and the smaller ones found by running out.

    `max_rows` bounds the rows of a pass, `max_bytes` what is allocated beside the weights. `rows`
    and `prompts` (at once) only ever shrink, so that the wall is hit once and not at every batch.
    """

    max_rows: int | None = None
    max_bytes: int | None = None
    rows: int | None = None
    prompts: int | None = None

    @property
    def most_rows(self) -> int | None:
        """The rows of a pass, at most; None where nothing bounds them but free memory."""
        bounds = [n for n in (self.max_rows, self.rows) if n is not None]
        return min(bounds, default=None)

    def describe(self) -> dict[str, int | None]:
        """The bounds as they are now."""
        return {"max_rows": self.most_rows, "max_bytes": self.max_bytes, "prompts": self.prompts}

    def fewer_rows(self, widest: int) -> bool:
        """Halve the rows of the passes that failed; False if they have no more than the least."""
        rows = max(LEAST, widest // 2)
        if widest <= LEAST or (self.most_rows is not None and rows >= self.most_rows):
            return False
        self._tell(f"passes of up to {widest} rows now have at most {rows}")
        self.rows = rows
        return True

    def fewer_prompts(self, prompts: int) -> bool:
        """Halve the prompts that are bound at once; False if it was one already."""
        if prompts < 2:
            return False
        self._tell(f"batches of {prompts} prompts are computed {prompts // 2} at a time")
        self.prompts = prompts // 2
        return True

    def _tell(self, what: str) -> None:
        """Say it the first time only."""
        if self.rows is None and self.prompts is None:
            said = f"memory ran out: {what}, and the sweep goes on; results change by rounding only"
            warnings.warn(said, LessMemory, stacklevel=2)


def until_it_fits(call: Callable[[], T], less: Callable[[], bool], of: str) -> T:
    """Call again, with less at once, as long as memory runs out and there is less to do at once."""
    while True:
        try:
            return call()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if not less():
                raise TooLittleMemory(of) from error
        # Only out here is the traceback gone, whose frames hold the tensors of what failed.
        release()


def release() -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or its cause, is an allocator's; only accelerators have a class for it."""
    if isinstance(error, TooLittleMemory):
        return False
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, RuntimeError) and any(text in str(error) for text in TEXTS):
        return True
    return error is not None and is_out_of_memory(error.__cause__)


def bytes_of(given: object) -> int | None:
    """A number of bytes, from a number or a text with a unit; None for no bound."""
    if given is None:
        return None
    found = 0
    if isinstance(given, int) and not isinstance(given, bool):
        found = given
    elif isinstance(given, str):
        match = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,9})?)\s*(?:([kmgt]i?)?b)?\s*", given.lower())
        found = int(float(match[1]) * UNITS.get(match[2] or "", 1)) if match else 0
    if found < 1:
        raise InputError(f"max_memory is {given!r}; {FORMS}")
    return found


def check_rows(max_rows: object) -> None:
    """Refuse a bound under which no pass could be made."""
    if max_rows is None:
        return
    if not isinstance(max_rows, int) or isinstance(max_rows, bool) or max_rows < LEAST:
        raise InputError(
            f"max_rows is {max_rows!r}; give a whole number of at least {LEAST}, as every pass has "
            "a row that is not edited"
        )


def in_words(n_bytes: float) -> str:
    """A number of bytes as one reads it, in powers of ten: `13.5 GB`."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes:.0f} B"
