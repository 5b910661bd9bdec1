"""dose_heatmap: layer × share of the way to the source."""

from dataclasses import replace

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Colormap

from knockgrid.figures._heatmap import Limits, grid_of, only, over_layers


def dose_heatmap(
    table: pd.DataFrame,
    metric: str = "js",
    *,
    ax: Axes | None = None,
    limits: Limits | None = None,
    cmap: str | Colormap | None = None,
    annotate: bool = False,
    title: str | None = None,
) -> Axes:
    """Draw `metric` over layers (columns) and doses (rows, the least at the bottom).

    Example:
        >>> from knockgrid._table import build
        >>> table = build(
        ...     [
        ...         {"prompt": "a", "intervention": f"{x}", "alpha": x, "layer": 0, "js": x}
        ...         for x in (0.5, 1.0)
        ...     ],
        ...     {"unit": "nats"},
        ... )
        >>> [label.get_text() for label in dose_heatmap(table).get_yticklabels()]
        ['0.5', '1']

    The table comes from a sweep over `per_alpha()`; a dose is the share of the way from the clean
    value (0) to the source's (1).

    Raises:
        InputError: as `grid`, or a table without doses.
    """
    table = only(table, None, "alpha")
    made = grid_of(table, metric, "alpha", "layer")
    made = replace(made, values=made.values.sort_index())
    names = [f"{dose:g}" for dose in made.values.index]
    style = {"ax": ax, "limits": limits, "annotate": annotate, "title": title}
    ax = over_layers(made, names, cmap=cmap or "Blues", **style)
    ax.invert_yaxis()
    ax.set_ylabel("Dose (alpha)")
    return ax
