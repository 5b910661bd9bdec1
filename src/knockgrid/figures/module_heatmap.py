"""module_heatmap: layer × module."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap

from knockgrid._table import metadata_of
from knockgrid.figures._heatmap import Limits, grid_of, layers_down, only
from knockgrid.figures._words import metric_label, plain

# Blue and orange are told apart by readers who are colour-blind; white is the grid's middle.
BLUE_WHITE_ORANGE = LinearSegmentedColormap.from_list(
    "blue_white_orange", ["#2166ac", "#92c5de", "#ffffff", "#fdb863", "#e66101"]
)


def module_heatmap(
    table: pd.DataFrame,
    metric: str = "js",
    *,
    ax: Axes | None = None,
    limits: Limits | None = None,
    cmap: str | Colormap | None = None,
    annotate: bool = False,
    title: str | None = None,
) -> Axes:
    """Draw a statistic over modules (columns) and layers (rows, the first at the bottom).

    Example:
        >>> from knockgrid._table import build
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

    The table comes from a sweep over `per_module()`, or from `module_statistics()`. The colours run
    over the grid's own range, white being its middle, not zero; title and colour bar name the
    statistic.

    Raises:
        InputError: as `grid`, or a table without modules.
    """
    table = only(table, None, "module")
    made = grid_of(table, metric, "layer", "module")
    names = [plain(module) for module in made.values.columns]
    words = " · ".join(filter(None, [title, short_label(table, metric)]))
    style = {"ax": ax, "limits": limits, "annotate": annotate, "title": words}
    cmap = cmap or BLUE_WHITE_ORANGE
    ax = layers_down(made, names, step=3, cmap=cmap, centred=True, **style)
    ax.invert_yaxis()
    ax.set_xlabel("Module")
    return ax


def short_label(table: pd.DataFrame, metric: str) -> str:
    """The statistic in the title; what exactly it is stands at the colour bar."""
    own = metadata_of(table).get("statistics", {})
    return plain(metric) if metric in own else metric_label(table, metric)
