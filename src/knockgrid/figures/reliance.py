"""Reliance before and after labels are cut from it: prompt by prompt, and over the threshold."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from knockgrid.errors import InputError
from knockgrid.figures.canvas import Size, drawing, legend_beside, letter
from knockgrid.figures.curves import COLOURS, STYLES
from knockgrid.figures.ticks import Shown, chosen, relabelled
from knockgrid.figures.words import plain, set_title
from knockgrid.table.table import metadata_of

RULES = {"mean_fa": "mean of correct", "median_fa": "median of correct"}
"""How a threshold on reliance was found."""
SIDES = (("correct", True, "o", 0.17, COLOURS[0]), ("wrong", False, "x", -0.17, COLOURS[1]))
LABELS = {"FA-high": (0, 0), "FA-low": (0, 1), "AH": (1, 0), "UH": (1, 1)}  # colour, line style


def reliance_plot(
    frame: pd.DataFrame,
    *,
    by: str = "relation",
    ax: Axes | None = None,
    figsize: Size | None = None,
    fontsize: float | int | None = None,
    row_order: Shown | None = None,
    seed: int = 0,
    title: str | None = None,
) -> Axes:
    """Draw each prompt's reliance as a point, correct above wrong, in a row per relation.

    Example:
        >>> frame = pd.DataFrame({
        ...     "prompt": ["a", "b", "c"], "relation": ["x", "x", "y"],
        ...     "correct": [True, False, False], "reliance": [0.5, 0.3, 0.1],
        ... })
        >>> ax = reliance_plot(frame)
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['y (0 + 1)', 'x (1 + 1)', 'all (1 + 2)']

    The frame comes from `reliance`, or from `labels`, whose threshold is then a line. Rows are in
    the order of their mean, the smallest on top, and name how many prompts are correct + wrong; the
    last row is all prompts. A bar marks the mean of each side. Points are jittered in height
    (`seed`) so that they can be told apart. Prompts without a reliance are counted in the title.
    `figsize`, `fontsize`, `ax` and `row_order` are as in `layer_heatmap`.

    Raises:
        InputError: not a frame of `reliance`, nothing to draw, or an unknown column `by`.
    """
    for name in ("correct", "reliance", by):
        if name not in frame:
            raise InputError(f"the frame has no column {name!r}; make it with reliance")
    kept = frame[frame["reliance"].notna()]
    if kept.empty:
        raise InputError("no prompt has a reliance; the column 'note' says why")
    groups = kept[by].astype(object).where(kept[by].notna(), "none")
    order = list(kept.groupby(groups)["reliance"].mean().sort_values(kind="stable").index)
    order = chosen(by, order, row_order)
    parts = [kept[groups == name] for name in order]
    labels = relabelled(order, list(map(plain, order)), row_order)
    if len(parts) > 1:
        parts.append(kept)
        labels.append("all")
    counts = [(right := int(part["correct"].sum()), len(part) - right) for part in parts]
    names = [f"{name} ({a} + {b})" for name, (a, b) in zip(labels, counts, strict=True)]
    size = 6.5 + 0.07 * max(map(len, names)), 1.1 + 0.34 * len(parts)
    draw = np.random.default_rng(seed)
    with drawing(*size, ax, figsize, fontsize) as ax:
        for y, part in enumerate(parts):
            _points(ax, y, part, draw)
        value = metadata_of(frame).get("threshold")
        if value is not None:
            told = RULES.get(str(metadata_of(frame).get("threshold_rule")), "threshold")
            label = f"{told}: {value:.3g}"
            ax.axvline(value, color="0.3", linestyle="--", linewidth=1.2, label=label)
        ax.set_yticks(range(len(parts)), names)
        ax.set_ylim(len(parts) - 0.5, -0.5)
        ax.set_xlim(left=min(0.0, float(kept["reliance"].min())))
        if len(parts) > 1:
            ax.axhline(len(parts) - 1.5, color="0.8", linewidth=0.8)
        ax.set_xlabel("Reliance on the subject: JS divergence (nats)")
        ax.spines[["top", "right"]].set_visible(False)
        right, missing = int(kept["correct"].sum()), len(frame) - len(kept)
        more = f", {missing} without reliance" if missing else ""
        set_title(ax, title, f"n = {right} correct + {len(kept) - right} wrong{more}")
        legend_beside(ax)
    return ax


def _points(ax: Axes, y: int, part: pd.DataFrame, draw: np.random.Generator) -> None:
    for name, correct, marker, above, colour in SIDES:
        x = part.loc[part["correct"].to_numpy(bool) == correct, "reliance"].to_numpy(float)
        middle = y - above
        jitter = middle + draw.uniform(-0.1, 0.1, len(x))
        look = {"color": colour, "marker": marker, "s": 13, "alpha": 0.55, "linewidths": 0.9}
        ax.scatter(x, jitter, label=name if y == 0 else None, gid=name, **look)
        if len(x):
            ends = [middle - 0.17, middle + 0.17]
            ax.plot([x.mean()] * 2, ends, color=colour, linewidth=2.5, zorder=4)


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
