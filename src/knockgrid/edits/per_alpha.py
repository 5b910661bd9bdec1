"""per_alpha: one intervention at several doses."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from knockgrid.edits.edge_patch import EdgePatch
from knockgrid.edits.patch import Patch
from knockgrid.errors import InputError

Dosed = TypeVar("Dosed", Patch, EdgePatch)


def per_alpha(intervention: Dosed, alphas: Sequence[float]) -> list[Dosed]:
    """The same patch at several shares of the way to the source: dose and response.

    Example:
        >>> import knockgrid as kg
        >>> [one.alpha for one in kg.per_alpha(kg.patch("resid_post", "subject"), [0.5, 1.0])]
        [0.5, 1.0]

    `alpha` is 0 at the clean value and 1 at the source's; the table's column `alpha` tells the
    cells apart.

    Raises:
        InputError: no doses, one given twice, or an intervention without `alpha`.
    """
    if not isinstance(intervention, Patch | EdgePatch):
        raise InputError(f"{intervention!r} has no alpha; use patch() or edge_patch()")
    if isinstance(alphas, str) or not isinstance(alphas, Iterable):
        raise InputError(f"alphas are {alphas!r}; give a list of them")
    if not len(alphas) or len(set(alphas)) < len(alphas):
        raise InputError(f"alphas are {list(alphas)!r}; give shares of the way, each once")
    return [
        replace(intervention, alpha=float(a), name=f"{intervention.name} x {a:g}") for a in alphas
    ]
