"""reliance_plot: reliance itself, prompt by prompt, before any label is cut from it."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from knockgrid.errors import InputError
from knockgrid.figures.canvas import Size, drawing, legend_beside
from knockgrid.figures.layer_curve import COLOURS
from knockgrid.figures.ticks import Shown, chosen, relabelled
from knockgrid.figures.words import RULES, plain, set_title
from knockgrid.table.table import metadata_of

SIDES = (("correct", True, "o", 0.17, COLOURS[0]), ("wrong", False, "x", -0.17, COLOURS[1]))


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
