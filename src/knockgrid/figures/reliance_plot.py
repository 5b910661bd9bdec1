"""reliance_plot: reliance itself, prompt by prompt, before any label is cut from it."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from knockgrid.errors import InputError
from knockgrid.figures.canvas import Size, drawing, legend_beside
from knockgrid.figures.layer_curve import COLOURS
from knockgrid.figures.ticks import Shown, chosen, relabelled
from knockgrid.figures.words import plain, titled
from knockgrid.table.table import metadata_of

SIDES = (("correct", True, "o", 0.17, 0), ("wrong", False, "x", -0.17, 1))  # and offset, colour


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
    names = [_row_name(name, part) for name, part in zip(labels, parts, strict=True)]
    size = 6.5 + 0.07 * max(map(len, names)), 1.1 + 0.34 * len(parts)
    draw = np.random.default_rng(seed)
    with drawing(*size, ax, figsize, fontsize) as ax:
        for y, part in enumerate(parts):
            for side in SIDES:
                _points(ax, y, part, side, draw)
        _threshold(ax, frame)
        ax.set_yticks(range(len(parts)), names)
        ax.set_ylim(len(parts) - 0.5, -0.5)
        ax.set_xlim(left=min(0.0, float(kept["reliance"].min())))
        if len(parts) > 1:
            ax.axhline(len(parts) - 1.5, color="0.8", linewidth=0.8)
        ax.set_xlabel("Reliance on the subject: JS divergence (nats)")
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_title("" if title == "" else titled(title, _count(frame)), fontsize="medium")
        legend_beside(ax)
    return ax


def _points(ax: Axes, y: int, part: pd.DataFrame, side: tuple, draw: np.random.Generator) -> None:
    name, correct, marker, above, colour = side
    x = part.loc[part["correct"].to_numpy(bool) == correct, "reliance"].to_numpy(float)
    middle = y - above
    jitter = middle + draw.uniform(-0.1, 0.1, len(x))
    style = {"color": COLOURS[colour], "marker": marker, "s": 13, "alpha": 0.55, "linewidths": 0.9}
    ax.scatter(x, jitter, label=name if y == 0 else None, gid=name, **style)
    if len(x):
        bar = {"color": COLOURS[colour], "linewidth": 2.5, "zorder": 4}
        ax.plot([x.mean()] * 2, [middle - 0.17, middle + 0.17], **bar)


def _row_name(name: str, part: pd.DataFrame) -> str:
    right = int(part["correct"].sum())
    return f"{name} ({right} + {len(part) - right})"


def _threshold(ax: Axes, frame: pd.DataFrame) -> None:
    value = metadata_of(frame).get("threshold")
    if value is not None:
        rule = {"mean_fa": "mean of correct", "median_fa": "median of correct"}
        told = rule.get(str(metadata_of(frame).get("threshold_rule")), "threshold")
        ax.axvline(value, color="0.3", linestyle="--", linewidth=1.2, label=f"{told}: {value:.3g}")


def _count(frame: pd.DataFrame) -> str:
    kept = frame["reliance"].notna()
    right = int(frame.loc[kept, "correct"].sum())
    missing = int((~kept).sum())
    more = f", {missing} without reliance" if missing else ""
    return f"n = {right} correct + {int(kept.sum()) - right} wrong{more}"
