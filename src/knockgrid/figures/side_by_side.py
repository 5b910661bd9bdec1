"""side_by_side: two tables on one scale, and their difference."""

from collections.abc import Callable, Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from knockgrid._contrast import bounds, difference
from knockgrid._errors import InputError
from knockgrid._table import metadata_of
from knockgrid.figures._row import in_a_row, symmetric
from knockgrid.figures.layer_heatmap import layer_heatmap


def side_by_side(
    tables: Mapping[str, pd.DataFrame],
    figure: Callable[..., Axes] = layer_heatmap,
    *,
    metric: str = "js",
    **options,
) -> Figure:
    """Draw `figure` for two tables on a shared scale, and their difference on a diverging one.

    Example:
        >>> from knockgrid._table import build
        >>> row = {"prompt": "rome", "intervention": "last", "layer": 0}
        >>> tables = {n: build([{**row, "js": js}], {}) for n, js in [("A", 0.1), ("B", 0.3)]}
        >>> [ax.get_title() for ax in side_by_side(tables).axes if ax.get_title()]
        ['A (n = 1 prompt)', 'B (n = 1 prompt)', 'B − A (means)']

    The tables are two groups, two models with the same layers, or two treatments. The third panel
    is the second minus the first: cell by cell over the prompts that both have, or of their means
    where they share none. Works with every grid figure.

    Raises:
        InputError: not two tables, or what `difference` and `figure` refuse.
    """
    if len(tables) != 2:
        raise InputError(f"side_by_side() compares two tables; got {len(tables)}")
    (first, one), (second, other) = tables.items()
    apart = difference(one, other, metric)
    how = "paired" if metadata_of(apart)["paired"] and one["prompt"].nunique() > 1 else "means"
    return in_a_row(
        figure,
        [(first, one, {}), (second, other, {})],
        (f"{second} − {first} ({how})", apart, symmetric(apart, metric)),
        metric,
        options,
    )


def interval(
    table: pd.DataFrame,
    figure: Callable[..., Axes] = layer_heatmap,
    *,
    metric: str = "js",
    level: float = 0.95,
    seed: int = 0,
    **options,
) -> Figure:
    """Draw the lower end, the mean and the upper end of every cell's interval on one scale.

    Example:
        >>> from knockgrid._table import build
        >>> rows = [
        ...     {"prompt": p, "intervention": "last", "layer": 0, "js": js}
        ...     for p, js in [("rome", 0.1), ("oslo", 0.3)]
        ... ]
        >>> [ax.get_title() for ax in interval(build(rows, {})).axes if ax.get_title()]
        ['lower end (95 %)', 'mean (n = 2 prompts)', 'upper end (95 %)']

    Raises:
        InputError: as `bounds` and `figure`.

    Limit: the interval resamples prompts as if they were independent.
    """
    low, high = bounds(table, metric, level, seed)
    ends = [
        (f"{name} ({100 * level:g} %)", part, {})
        for name, part in (("lower end", low), ("upper end", high))
    ]
    return in_a_row(figure, [ends[0], ("mean", table, {}), ends[1]], None, metric, options)
