"""layer_heatmap: layer × intervention, the published figure with the rows Subj., Attn. and Last."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Colormap

from knockgrid.figures._heatmap import Limits, grid_of, over_layers
from knockgrid.figures._words import row_labels


def layer_heatmap(
    table: pd.DataFrame,
    metric: str = "js",
    *,
    ax: Axes | None = None,
    limits: Limits | None = None,
    cmap: str | Colormap | None = None,
    annotate: bool = False,
    title: str | None = None,
) -> Axes:
    """Draw `metric`, averaged over prompts, as a heatmap of interventions (rows) × layers.

    Example:
        >>> from knockgrid._table import build
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

    Rows and layers keep the user's order. The colours run from 0 (or the least value, where some
    are negative) to the largest value, or over `limits`, in the metric's unit, which the colour
    bar names. Cells without a value are hatched and the reason is given below; infinite ones carry
    ∞; cells below the metadata's `noise_floor` are hatched with dots. `annotate` writes numbers.

    Raises:
        InputError: as `grid`, or limits that are not finite and increasing.

    Source: Cheang et al., arXiv 2510.09033, figures 2 and 12.
    Limit: an average over prompts hides how far they differ; `layer_curve` shows that.
    """
    made = grid_of(table, metric, "intervention", "layer")
    names = row_labels(table, list(made.values.index))
    style = {"ax": ax, "limits": limits, "annotate": annotate, "title": title}
    return over_layers(made, names, cmap=cmap or "Blues", **style)
