"""corrupted_run: the activations of a run whose subject was corrupted, by noise or by a swap."""

from dataclasses import dataclass, field
from typing import ClassVar, final

from knockgrid import sources
from knockgrid.errors import InputError, shown, unknown
from knockgrid.prompts.prompt import Prompt, shared_answers
from knockgrid.sources.noise import Noise
from knockgrid.sources.source import OfRun, RunSpec, Source, Unavailable


@final
@dataclass(frozen=True)
class Swap:
    """The frozen value behind `swap()`."""

    label: ClassVar[str] = "swap()"

    def corrupted(self, prompt: Prompt) -> RunSpec:
        """The run of the partner prompt."""
        if prompt.swap is None:
            raise Unavailable(f"prompt {prompt.id!r} has no swap partner; give Prompt(..., swap=)")
        if same := shared_answers(prompt, prompt.swap):
            raise Unavailable(
                f"the swap partner of {prompt.id!r} has the same answer {min(same)!r}"
            )
        return RunSpec(prompt.swap, is_swap=True)


@final
@dataclass(frozen=True)
class CorruptedRun(OfRun):
    """The frozen value behind `corrupted_run()`."""

    by: Noise | Swap = field(default_factory=Noise)

    @property
    def label(self) -> str:
        return f"corrupted_run({self.by.label})"

    @property
    def corruption(self) -> str:
        return self.by.label

    @property
    def random(self) -> bool:  # type: ignore[override]
        """Only noise differs from sample to sample."""
        return isinstance(self.by, Noise)

    def run(self, prompt: Prompt) -> RunSpec:
        return self.by.corrupted(prompt)


def swap() -> Swap:
    """Exchange the subject for the one of `Prompt.swap`, which has another answer.

    Example:
        >>> import knockgrid as kg
        >>> kg.corrupted_run(by=kg.swap()).label
        'corrupted_run(swap())'

    The partner must have the same token length and its subject at the same positions; prompts
    without such a partner are dropped from the rows that need one, and counted.

    Source: symmetric token replacement, Zhang & Nanda 2023 (arXiv 2309.16042), which they prefer
    to Gaussian noise.
    """
    return Swap()


def corrupted_run(by: Noise | Swap | None = None) -> CorruptedRun:
    """Take values from a run whose subject was corrupted, by noise (default) or by a swap.

    Example:
        >>> import knockgrid as kg
        >>> kg.corrupted_run() == kg.corrupted_run(by=kg.noise(3.0))
        True

    One corrupted run serves all layers of a prompt and sample. Where several tokens are measured
    it follows the clean continuation.

    Raises:
        InputError: `by` is neither `noise()` nor `swap()`.
    """
    by = Noise() if by is None else by
    if not isinstance(by, Noise | Swap):
        raise InputError(f"corrupted_run(by={by!r}): a run is corrupted by noise() or by swap()")
    return CorruptedRun(by)


def source_of(given: object) -> Source:
    """A source as a user gives it, by default the corrupted run."""
    names = [name for name in dir(sources) if name != "swap"]
    if isinstance(given, str):
        name = given.split("(")[0]
        if name in names:
            call = given if "(" in given else f"{name}()"
            raise InputError(f"source is the text {shown(given)}; write {call}, without quotes")
        raise unknown("source", name, names)
    if given is None:
        return CorruptedRun()
    if not isinstance(given, Source):
        raise InputError(
            f"source is {given!r}; use {', '.join(f'{name}()' for name in names)} "
            "(a swap corrupts a run: corrupted_run(by=swap()))"
        )
    return given
