"""threshold_curve: how many prompts each label has, over the threshold."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from knockgrid.errors import InputError
from knockgrid.figures.canvas import Size, drawing, legend_beside, letter
from knockgrid.figures.layer_curve import COLOURS, STYLES
from knockgrid.figures.words import RULES, plain, set_title
from knockgrid.table.table import metadata_of

LABELS = {"FA-high": (0, 0), "FA-low": (0, 1), "AH": (1, 0), "UH": (1, 1)}  # colour, line style


def threshold_curve(
    sensitivity: pd.DataFrame,
    *,
    ax: Axes | None = None,
    figsize: Size | None = None,
    fontsize: float | int | None = None,
    title: str | None = None,
) -> Axes:
    """Draw the number of prompts per label over the threshold, with the usual thresholds marked.

    Example:
        >>> frame = pd.DataFrame(
        ...     {"threshold": [0.1, 0.3], "FA-high": [3, 1], "FA-low": [0, 2], "AH": [2, 0],
        ...      "UH": [0, 2], "agreement": [0.4, 1.0]}
        ... )
        >>> threshold_curve(frame).get_title()
        'n = 3 correct + 2 wrong'

    The frame comes from `threshold_sensitivity`. The grey line, on the right axis, is the share of
    prompts that keep the label that the mean of the correct ones gives. `figsize`, `fontsize` and
    `ax` are as in `layer_heatmap`.

    Raises:
        InputError: another frame.
    """
    missing = [n for n in ("threshold", *LABELS, "agreement") if n not in sensitivity]
    if missing or sensitivity.empty:
        what = f"no column {missing[0]!r}" if missing else "no rows"
        raise InputError(f"the frame has {what}; make it with threshold_sensitivity")
    with drawing(7.4, 3.4, ax, figsize, fontsize) as ax:
        x = sensitivity["threshold"].to_numpy(float)
        for name, (colour, style) in LABELS.items():
            look = {"color": COLOURS[colour], "linestyle": STYLES[style], "linewidth": 1.5}
            counts = sensitivity[name].to_numpy(float)
            ax.plot(x, counts, drawstyle="steps-post", label=name, **look)
        for rule, value in metadata_of(sensitivity).get("marks", {}).items():
            label = f"{RULES.get(rule, plain(rule))}: {value:.3g}"
            style = ":" if rule == "median_fa" else "-"
            ax.axvline(
                value, label=label, gid=plain(rule), color="black", linestyle=style, linewidth=1.0
            )
        ax.set_ylim(bottom=0)
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set(xlabel="Threshold on reliance (nats)", ylabel="Prompts")
        other = ax.twinx()
        letter(other)
        share = {"color": "0.6", "linewidth": 1.2, "label": "same label (right)"}
        other.plot(x, sensitivity["agreement"], **share)
        other.set_ylim(0, 1.02)
        other.set_ylabel("Share with the label of the mean", color="0.45")
        other.tick_params(colors="0.45")
        for one in (ax, other):
            one.spines["top"].set_visible(False)
        handles = [h for one in (ax, other) for h in one.get_legend_handles_labels()[0]]
        legend_beside(ax, handles=handles, bbox_to_anchor=(1.12, 1.0))
        first = sensitivity.iloc[0]
        right, wrong = int(first["FA-high"] + first["FA-low"]), int(first["AH"] + first["UH"])
        set_title(ax, title, f"n = {right} correct + {wrong} wrong")
    return ax
