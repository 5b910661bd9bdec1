"""head_heatmap: head × layer."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Colormap

from knockgrid.figures._heatmap import Limits, grid_of, only, over_layers


def head_heatmap(
    table: pd.DataFrame,
    metric: str = "js",
    *,
    ax: Axes | None = None,
    limits: Limits | None = None,
    cmap: str | Colormap | None = None,
    annotate: bool = False,
    title: str | None = None,
) -> Axes:
    """Draw `metric` over layers (columns) and attention heads (rows).

    Example:
        >>> from knockgrid._table import build
        >>> table = build(
        ...     [
        ...         {"prompt": "rome", "intervention": f"{h}", "head": h, "layer": layer, "js": 0.1}
        ...         for h in (0, 3) for layer in range(3)
        ...     ],
        ...     {"unit": "nats"},
        ... )
        >>> [label.get_text() for label in head_heatmap(table).get_yticklabels()]
        ['0', '3']

    The table comes from a sweep over `per_head()`.

    Raises:
        InputError: as `grid`, or a table without heads.

    Limit: heads that do the same work cover for each other, so single heads can look idle.
    """
    table = only(table, None, "head")
    made = grid_of(table, metric, "head", "layer")
    names = [str(int(head)) for head in made.values.index]
    style = {"ax": ax, "limits": limits, "annotate": annotate, "title": title}
    ax = over_layers(made, names, cmap=cmap or "Blues", **style)
    ax.set_ylabel("Head")
    return ax
