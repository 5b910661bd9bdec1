"""A measure by its name, as the command line and configuration files give it."""

from knockgrid import divergences
from knockgrid.divergences.divergence import Divergence
from knockgrid.errors import unknown


def by_name(name: str) -> Divergence:
    """The measure of that name: its column in the table, or its name in the drawer.

    Raises:
        InputError: for a name that the drawer lacks, with the nearest spelling that it has.

    Example:
        >>> by_name("tv") is by_name("total_variation")
        True
    """
    drawer = {export: getattr(divergences, export) for export in divergences.__all__}
    measures = drawer | {measure.name: measure for measure in drawer.values()}
    if name not in measures:
        raise unknown("metric", name, measures)
    return measures[name]
