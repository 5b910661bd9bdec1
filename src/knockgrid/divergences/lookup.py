"""Measures by name, as the command line and study files give them, or as objects."""

from collections.abc import Iterable
from typing import Any

from knockgrid import divergences
from knockgrid.divergences.divergence import Divergence
from knockgrid.errors import InputError, shown, unknown


def measures_of(given: Any) -> list[Divergence]:
    """Measures by name or as objects, each once."""
    several = isinstance(given, Iterable) and not isinstance(given, str)
    wanted: list[Any] = list(given) if several else [given] if given else []
    if not wanted:
        raise InputError("no metrics given; name at least one, such as 'js'")
    found: dict[str, Divergence] = {}
    for one in wanted:
        if not isinstance(one, str | Divergence):
            raise InputError(
                f"metric {shown(one)} is no measure; give a name such as 'js', or a Divergence"
            )
        if isinstance(one, str) and one not in divergences.__all__:
            raise unknown("metric", one, divergences.__all__)
        measure = getattr(divergences, one) if isinstance(one, str) else one
        if found.setdefault(measure.name, measure) != measure:
            raise InputError(f"two measures have the column {measure.name!r}; rename one")
    return list(found.values())
