"""head_heatmap: head × layer."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from knockgrid.figures.figure import Figure
from knockgrid.figures.heatmap import Axis, Heatmap, heatmap

KIND = Heatmap(
    Axis("head", "Head", names=lambda table, heads: [str(int(head)) for head in heads]),
    Axis("layer", "Layer"),
)


@Figure.of(needs="head")
def head_heatmap(
    table: pd.DataFrame,
    metric: str = "js",
    **style: Any,
) -> Axes:
    """Draw `metric` over layers (columns) and attention heads (rows).

    Example:
        >>> from knockgrid.table.table import build
        >>> table = build(
        ...     [
        ...         {"prompt": "rome", "intervention": f"{h}", "head": h, "layer": layer, "js": 0.1}
        ...         for h in (0, 3) for layer in range(3)
        ...     ],
        ...     {"unit": "nats"},
        ... )
        >>> [label.get_text() for label in head_heatmap(table).get_yticklabels()]
        ['0', '3']

    The table comes from a sweep over `per_head()`; options are those of `layer_heatmap`.

    Raises:
        InputError: as `grid`, or a table without heads.

    Limit: heads that do the same work cover for each other, so single heads can look idle.
    """
    return heatmap(KIND, table, metric, style)
