"""dose_heatmap: layer × share of the way to the source."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from knockgrid.figures.figure import Figure
from knockgrid.figures.heatmap import Axis, Heatmap, heatmap

KIND = Heatmap(
    Axis("alpha", "Dose (alpha)", names=lambda table, doses: [f"{dose:g}" for dose in doses]),
    Axis("layer", "Layer"),
    sorted=True,
    upward=True,
)


@Figure.of(needs="alpha")
def dose_heatmap(
    table: pd.DataFrame,
    metric: str = "js",
    **style: Any,
) -> Axes:
    """Draw `metric` over layers (columns) and doses (rows, the least at the bottom).

    Example:
        >>> from knockgrid.table.table import build
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
    value (0) to the source's (1). Options are those of `layer_heatmap`.

    Raises:
        InputError: as `grid`, or a table without doses.
    """
    return heatmap(KIND, table, metric, style)
