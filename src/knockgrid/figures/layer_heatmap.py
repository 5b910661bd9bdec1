"""layer_heatmap: layer × intervention, the published figure with the rows Subj., Attn. and Last."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from knockgrid.figures.figure import Figure
from knockgrid.figures.heatmap import Axis, Heatmap, heatmap
from knockgrid.figures.words import row_labels

KIND = Heatmap(Axis("intervention", names=row_labels), Axis("layer", "Layer"))


@Figure.of()
def layer_heatmap(
    table: pd.DataFrame,
    metric: str = "js",
    **style: Any,
) -> Axes:
    """Draw `metric`, averaged over prompts, as a heatmap of interventions (rows) × layers.

    Example:
        >>> from knockgrid.table.table import build
        >>> table = build(
        ...     [
        ...         {"prompt": "rome", "intervention": name, "layer": layer, "js": layer / 10}
        ...         for name in ("subject", "attention", "last")
        ...         for layer in range(3)
        ...     ],
        ...     {"unit": "nats"},
        ... )
        >>> ax = layer_heatmap(table)
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['Subj.', 'Attn.', 'Last.']

    Rows and layers keep the user's order. Cells without a value are hatched and the reason is given
    below; infinite ones carry ∞; cells below the metadata's `noise_floor` are hatched with dots.

    Args:
        table: a table, or a part of one.
        metric: a number column of it.
        style: how it is drawn. All heatmaps have these options:
            `figsize` – width and height in inches, which `save` keeps; else what labels need.
            `ax` – an Axes of your own to draw on.
            `fontsize` – of labels, in points; else that of rcParams, or 7 where a panel has less
            than 5 inches of width and rcParams say nothing.
            `row_order`, `column_order` – those to show, in this order; a dict gives labels too.
            `ticks` – the layers to name, or a step; else as many as have room.
            `limits` – ends of the colours; else from 0, or the least value where some are negative.
            `cmap` – a colour map of matplotlib's.
            `diverging` – blue, white in the middle, orange; leaves out the outermost 2 %.
            `colorbar` – False for none, a text for its label.
            `annotate` – write numbers into the cells.
            `title` – stands before the number of prompts; "" for none at all.

    Raises:
        InputError: as `grid`, an unknown option, row, column or tick, a size that is none, or
            limits that are not finite and increasing.

    Source: Cheang et al., arXiv 2510.09033, figures 2 and 12.
    Limit: an average over prompts hides how far they differ; `layer_curve` shows that.
    """
    return heatmap(KIND, table, metric, style)
