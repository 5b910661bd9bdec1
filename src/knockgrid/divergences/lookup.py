"""A measure by its name, as the command line and study files give it, or as an object."""

from collections.abc import Iterable
from typing import Any

from knockgrid import divergences
from knockgrid.divergences.divergence import Divergence
from knockgrid.errors import InputError, shown, unknown


def by_name(name: str) -> Divergence:
    """The measure of that name.

    Raises:
        InputError: for a name that the drawer lacks, with the nearest spelling that it has.

    Example:
        >>> by_name("tv").label
        'total variation'
    """
    if name not in divergences.__all__:
        raise unknown("metric", name, divergences.__all__)
    return getattr(divergences, name)


def measures_of(given: Any) -> list[Divergence]:
    """Measures by name or as objects, each once.

    Example:
        >>> from knockgrid.divergences import js
        >>> [one.name for one in measures_of(["kl", js, "js"])]
        ['kl', 'js']

    Raises:
        InputError: none, an unknown name, something else, or two measures with one column.
    """
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
        measure = by_name(one) if isinstance(one, str) else one
        if found.setdefault(measure.name, measure) != measure:
            raise InputError(f"two measures have the column {measure.name!r}; rename one")
    return list(found.values())
