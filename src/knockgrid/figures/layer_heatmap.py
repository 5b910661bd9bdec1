"""layer_heatmap: layer × intervention, the published figure with the rows Subj., Attn. and Last."""

import math

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.ticker import MaxNLocator

from knockgrid._errors import InputError
from knockgrid._table import cells, grid, metadata_of
from knockgrid.figures._canvas import heatmap_size, new_axes
from knockgrid.figures._marks import mark
from knockgrid.figures._words import metric_label, prompt_count, row_labels, titled


def layer_heatmap(
    table: pd.DataFrame,
    metric: str = "js",
    *,
    ax: Axes | None = None,
    limits: tuple[float | int, float | int] | None = None,
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
    ∞; cells below the metadata's `noise_floor` carry a dot. `annotate` writes the numbers.

    Raises:
        InputError: as `grid`, or limits that are not finite and increasing.

    Source: Cheang et al., arXiv 2510.09033, figures 2 and 12.
    Limit: an average over prompts hides how far they differ; `layer_curve` shows that.
    """
    values = grid(table, metric)
    parts = cells(table, metric, "intervention", "layer")
    names = row_labels(table, list(values.index))
    low, high = _limits(values.to_numpy(float), limits)
    ax = ax or new_axes(*heatmap_size(*values.shape, max(map(len, names))))
    sns.heatmap(
        values,
        ax=ax,
        vmin=low,
        vmax=high,
        cmap=cmap or "Blues",
        annot=values.map(short).to_numpy() if annotate else False,
        fmt="",
        annot_kws={"fontsize": 6},
        linewidths=0.4,
        cbar_kws={
            "label": metric_label(table, metric),
            "ticks": MaxNLocator(5, steps=[1, 2, 5, 10]),
            "pad": 0.02,
        },
        xticklabels=False,
        yticklabels=False,
    )
    _name_axes(ax, list(values.columns), names)
    mark(ax, values, parts, _floor(table, metric))
    ax.set_title(titled(title, prompt_count(parts)), fontsize="medium")
    return ax


def _limits(values: np.ndarray, given: tuple | None) -> tuple:
    if given is not None:
        if not (len(given) == 2 and all(map(math.isfinite, given)) and given[0] < given[1]):
            raise InputError(f"limits {given!r} are not (low, high) with low < high")
        return given
    finite = values[np.isfinite(values)]
    # 0 is "no effect": a scale that starts elsewhere makes noise look like one
    low = finite.min(initial=0.0)
    high = finite.max() if low < 0 else finite.max(initial=0.0)
    return (low, high) if low < high else (low, low + 1.0)


def short(value: float) -> str:
    """A number that fits into a cell, to two decimals; "~0" is not quite 0.

    Example:
        >>> [short(value) for value in (0.4236, 0.0, 0.0004, -1.256, 31.4)]
        ['.42', '0', '~0', '-1.26', '31']
    """
    if value == 0:
        return "0"
    if abs(value) < 0.005:
        return "~0"
    if abs(value) >= 10:
        return f"{value:.0f}"
    return f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 0.995 else f"{value:.2f}"


def tick_places(layers: list) -> list[int]:
    """Which of the layers get a label: every second of a long consecutive run, else all of them.

    Example:
        >>> tick_places(list(range(10)))
        [0, 2, 4, 6, 8]
        >>> tick_places([0, 15, 16, 27])
        [0, 1, 2, 3]
    """
    consecutive = all(b == a + 1 for a, b in zip(layers, layers[1:], strict=False))
    # beyond 48 layers, every second label would no longer fit
    step = 2 * math.ceil(len(layers) / 48) if consecutive and len(layers) > 8 else 1
    return list(range(0, len(layers), step))


def _name_axes(ax: Axes, layers: list, names: list[str]) -> None:
    places = tick_places(layers)
    ax.set_xticks([place + 0.5 for place in places], [str(layers[place]) for place in places])
    ax.set_yticks([row + 0.5 for row in range(len(names))], names, rotation=0)
    ax.tick_params(length=2)
    ax.set_xlabel("Layer")
    ax.set_ylabel("")


def _floor(table: pd.DataFrame, metric: str) -> float | None:
    floor = metadata_of(table).get("noise_floor")
    if isinstance(floor, dict):
        return floor.get(metric)
    return floor if metric == "js" else None  # a bare number is measured in JS
