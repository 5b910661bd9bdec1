"""module_heatmap: layer × module."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from knockgrid.figures.figure import Figure
from knockgrid.figures.heatmap import Axis, Heatmap, heatmap
from knockgrid.figures.words import metric_label, plain
from knockgrid.table.table import metadata_of


def _words(table: pd.DataFrame, metric: str, title: str | None) -> str:
    """The title names the statistic; what exactly it is stands at the colour bar."""
    own = metadata_of(table).get("statistics", {})
    label = plain(metric) if metric in own else metric_label(table, metric)
    return " · ".join(filter(None, [title, label]))


KIND = Heatmap(
    Axis("layer", "Layer", step=3),
    Axis("module", "Module", names=lambda table, found: list(map(plain, found)), slanted=True),
    upward=True,
    words=_words,
)


@Figure.of(needs="module")
def module_heatmap(
    table: pd.DataFrame,
    metric: str = "js",
    **style: Any,
) -> Axes:
    """Draw a statistic over modules (columns) and layers (rows, the first at the bottom).

    Example:
        >>> from knockgrid.table.table import build
        >>> table = build(
        ...     [
        ...         {"prompt": "rome", "intervention": m, "module": m, "layer": layer, "js": 0.1}
        ...         for m in ("attn. q", "mlp. up") for layer in range(3)
        ...     ],
        ...     {"unit": "nats"},
        ... )
        >>> ax = module_heatmap(table)
        >>> ax.get_title()
        'Avg. JS divergence (nats) (n = 1 prompt)'

    The table comes from a sweep over `per_module()`, or from `module_statistics()`; title and
    colour bar name the statistic. Options are those of `layer_heatmap`. With `diverging=True` white
    is the grid's middle, not zero, and the outermost cells do not stretch the scale.

    Raises:
        InputError: as `grid`, or a table without modules.
    """
    return heatmap(KIND, table, metric, style)
