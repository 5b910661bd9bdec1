"""corrupted_run: the activations of a run whose subject was corrupted."""

from dataclasses import dataclass, field
from typing import ClassVar, final

from torch import Tensor

from knockgrid.errors import InputError
from knockgrid.prompts.prompt import Prompt
from knockgrid.sources.noise import Noise
from knockgrid.sources.source import RunSpec, Source, Where, run_value
from knockgrid.sources.swap import Swap


@final
@dataclass(frozen=True)
class CorruptedRun(Source):
    """The frozen value behind `corrupted_run()`."""

    by: Noise | Swap = field(default_factory=Noise)
    from_run: ClassVar[bool] = True

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

    def value(self, where: Where) -> Tensor:
        return run_value(where)


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
