"""donor: the activations of another prompt's run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from knockgrid.errors import InputError
from knockgrid.prompts.prompt import Prompt
from knockgrid.sources.source import OfRun, RunSpec, Unavailable


@final
@dataclass(frozen=True, eq=False)
class Donor(OfRun):
    """The frozen value behind `donor()`."""

    given: Prompt | Mapping[str, Prompt]

    @property
    def label(self) -> str:
        given = self.given
        return f"donor({given.id if isinstance(given, Prompt) else f'{len(given)} prompts'})"

    def run(self, prompt: Prompt) -> RunSpec:
        if isinstance(self.given, Prompt):
            return RunSpec(self.given)
        if prompt.id not in self.given:
            raise Unavailable(f"donor() has no prompt for {prompt.id!r}")
        return RunSpec(self.given[str(prompt.id)])


def donor(prompt: Prompt | Mapping[str, Prompt]) -> Donor:
    """Take values from another prompt's run, one for all or a mapping from prompt id.

    Example:
        >>> import knockgrid as kg
        >>> other = kg.Prompt("Lima is in", spans={"subject": "Lima"}, id="lima")
        >>> kg.patch("resid_post", "subject_last", kg.donor(other)).source.label
        'donor(lima)'

    Places are aligned by role: the last subject token of the donor goes to the last subject token.
    Prompts that a mapping does not name are dropped from that row, and counted.

    Raises:
        InputError: not a prompt; later, a place with another number of tokens in the donor.
    """
    given = prompt.values() if isinstance(prompt, Mapping) else [prompt]
    if not all(isinstance(one, Prompt) for one in given):
        raise InputError(f"donor({prompt!r}): give a Prompt or a mapping from prompt id to Prompt")
    return Donor(prompt)
