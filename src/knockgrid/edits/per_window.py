"""per_window: one intervention over several sets of layers."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from knockgrid.edits.intervention import Intervention
from knockgrid.edits.layers import RULES, Window
from knockgrid.errors import InputError

Kind = TypeVar("Kind", bound=Intervention)


def per_window(intervention: Kind, windows: Sequence[Window] = RULES) -> list[Kind]:
    """The same intervention over each set of layers in turn, by default every rule.

    Example:
        >>> import knockgrid as kg
        >>> [one.name for one in kg.per_window(kg.knockout(), ["only", "from"])]
        ['subject->last only', 'subject->last from']

    `only` edits the cell's layer, `all_but` every other one, `from` that layer and all above,
    `up_to` that layer and all below; a number is a window around it. `redundancy` compares them.

    Raises:
        InputError: no windows, one given twice, or one that is not a window.
    """
    if isinstance(windows, str) or not isinstance(windows, Iterable):
        raise InputError(f"windows are {windows!r}; give a list of them")
    if not len(windows) or len(set(windows)) < len(windows):
        raise InputError(f"windows are {list(windows)!r}; give sets of layers, each once")
    return [
        replace(
            intervention,
            window=window,
            name=f"{intervention.name} {window}",
            label=f"{intervention.label} {window}",
        )
        for window in windows
    ]
