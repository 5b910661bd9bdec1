"""swap: corrupt a prompt by exchanging its subject."""

from dataclasses import dataclass
from typing import final

from knockgrid.prompts.prompt import Prompt
from knockgrid.sources.source import RunSpec, Unavailable


@final
@dataclass(frozen=True)
class Swap:
    """The frozen value behind `swap()`."""

    @property
    def label(self) -> str:
        """The name in tables."""
        return "swap()"

    def corrupted(self, prompt: Prompt) -> RunSpec:
        """The run of the partner prompt."""
        if prompt.swap is None:
            raise Unavailable(f"prompt {prompt.id!r} has no swap partner; give Prompt(..., swap=)")
        same = {a.casefold() for a in prompt.answers} & {a.casefold() for a in prompt.swap.answers}
        if same:
            raise Unavailable(
                f"the swap partner of {prompt.id!r} has the same answer {min(same)!r}"
            )
        return RunSpec(prompt.swap, is_swap=True)


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
