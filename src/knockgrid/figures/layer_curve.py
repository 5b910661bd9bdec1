"""layer_curve: one line per intervention over the layers, with a band over prompts."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from knockgrid._errors import InputError
from knockgrid._table import cells, grid
from knockgrid.figures._canvas import new_axes
from knockgrid.figures._floor import floor_grid
from knockgrid.figures._heatmap import tick_places
from knockgrid.figures._words import metric_label, prompt_count, row_labels, titled

# Okabe and Ito's palette, told apart also by readers who are colour-blind; yellow is too pale
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
STYLES = ("-", "--", "-.", ":")
RESAMPLES = 2000
VISIBLE = 0.005  # of the largest mean: a noise floor below that lies on the axis


def layer_curve(
    table: pd.DataFrame,
    metric: str = "js",
    *,
    ax: Axes | None = None,
    level: float = 0.95,
    seed: int = 0,
    limits: tuple[float | int, float | int] | None = None,
    title: str | None = None,
) -> Axes:
    """Draw the mean of `metric` over prompts as one line per intervention, with a bootstrap band.

    Example:
        >>> from knockgrid._table import build
        >>> table = build(
        ...     [
        ...         {"prompt": p, "intervention": "last", "layer": layer, "js": js + layer / 10}
        ...         for p, js in [("rome", 0.1), ("oslo", 0.2)]
        ...         for layer in range(3)
        ...     ],
        ...     {"unit": "nats"},
        ... )
        >>> layer_curve(table).get_ylabel()
        'Avg. JS divergence (nats)'

    The band is the percentile interval of the mean at `level` over 2000 resamples of whole
    prompts, the same ones at every layer; `seed` fixes them. A single prompt has no band, and the
    legend says so. Layers that do not increase stand in the user's order at equal distances.
    Infinite means are not drawn, and the legend counts them. A noise floor in the metadata that can
    be seen on this scale is a thin dotted line, in the colour of its row where rows differ.
    `limits` bounds the axis, in the metric's unit.

    Raises:
        InputError: as `grid`, or a level outside (0, 1).

    Limit: prompts are taken as independent; where several share a relation or a subject the band is
    too narrow, and the cluster-aware intervals of the analysis rooms are the ones to report.
    """
    if not 0 < level < 1:
        raise InputError(f"level {level!r} is not between 0 and 1; give 0.95 for a 95 % band")
    means = grid(table, metric)
    parts = cells(table, metric, "intervention", "layer")
    names = row_labels(table, list(means.index))
    ax = ax or new_axes(7.0 + 0.06 * max(map(len, names)), 3.4)
    x = _places(list(means.columns))
    for i, name in enumerate(means.index):
        values = _by_prompt(parts, name, list(means.columns))
        _line(ax, i, x, means.loc[name].to_numpy(float), names[i])
        ax.fill_between(x, *band(values, level, seed), color=_colour(i), alpha=0.18, linewidth=0)
    _floor(ax, x, means, floor_grid(table, metric, means, parts))
    _finish(ax, x, means, limits)
    ax.set_ylabel(metric_label(table, metric))
    ax.set_title(titled(title, prompt_count(parts)), fontsize="medium")
    _legend(ax, _band_text(parts, level))
    return ax


def band(values: np.ndarray, level: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper edge of the bootstrap interval of the mean of `values` `[prompt, layer]`.

    Example:
        >>> low, high = band(np.array([[0.1, 0.5], [0.3, 0.5]]), 0.95, seed=0)
        >>> low.round(3).tolist(), high.round(3).tolist()
        ([0.1, 0.5], [0.3, 0.5])

    Missing values (NaN) leave the mean; a layer with fewer than two values, or an infinite one, has
    no interval (NaN).
    """
    known = np.isfinite(values)
    draws = np.random.default_rng(seed).multinomial(
        len(values), np.full(len(values), 1 / len(values)), size=RESAMPLES
    )
    with np.errstate(invalid="ignore"):  # a resample may hold none of a layer's values
        means = draws @ np.where(known, values, 0.0) / (draws @ known.astype(float))
    edges = np.full((2, values.shape[1]), np.nan)
    usable = (known.sum(0) > 1) & ~np.isinf(values).any(0)
    tails = [(1 - level) / 2, (1 + level) / 2]
    edges[:, usable] = np.nanquantile(means[:, usable], tails, axis=0)
    return edges[0], edges[1]


def _by_prompt(parts: pd.DataFrame, name: str, layers: list) -> np.ndarray:
    row = parts[parts["row"] == name]
    return row.pivot(index="prompt", columns="column", values="value")[layers].to_numpy(float)


def _places(layers: list) -> np.ndarray:
    increasing = all(a < b for a, b in zip(layers, layers[1:], strict=False))
    return np.array(layers if increasing else range(len(layers)), dtype=float)


def _colour(i: int) -> str:
    return COLOURS[i % len(COLOURS)]


def _line(ax: Axes, i: int, x: np.ndarray, y: np.ndarray, label: str) -> None:
    infinite = int(np.isinf(y).sum())
    note = f" (infinite at {infinite} layer{'s' * (infinite > 1)})" if infinite else ""
    style = {"color": _colour(i), "marker": MARKERS[i % len(MARKERS)], "markersize": 3.5}
    drawn = np.where(np.isinf(y), np.nan, y)
    ax.plot(x, drawn, linestyle=STYLES[i % len(STYLES)], linewidth=1.4, label=label + note, **style)


def _floor(ax: Axes, x: np.ndarray, means: pd.DataFrame, floor: pd.DataFrame | None) -> None:
    """A thin dotted line per noise floor, where it would be seen on the scale of the means."""
    highest = np.nanmax(np.abs(means.replace([np.inf, -np.inf], np.nan).to_numpy(float)), initial=0)
    if floor is None or not floor.max(axis=None) > VISIBLE * highest:
        return
    rows = floor.to_numpy(float)
    alike = bool((rows == rows[:1]).all())
    for i, row in enumerate(rows[:1] if alike else rows):
        style = {"color": "0.35" if alike else _colour(i), "linestyle": ":", "linewidth": 0.8}
        label = "noise floor" if i == 0 else "_"
        ax.plot(x, row, label=label, gid="floor", **style)


def _finish(ax: Axes, x: np.ndarray, means: pd.DataFrame, limits: tuple | None) -> None:
    layers = list(means.columns)
    places = tick_places(layers)
    ax.set_xticks(x[places], [str(layers[place]) for place in places])
    ax.set_xlabel("Layer")
    ax.spines[["top", "right"]].set_visible(False)
    if limits is not None:
        ax.set_ylim(limits)
    elif np.nanmin(means.to_numpy(float), initial=0.0) >= 0:
        ax.set_ylim(bottom=0.0)


def _legend(ax: Axes, title: str) -> None:
    # beside the lines: wherever it stood among them it would cover some table's band
    place = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "borderaxespad": 0}
    legend = ax.legend(title=title, frameon=False, fontsize="small", alignment="left", **place)
    legend.get_title().set_fontsize("small")


def _band_text(parts: pd.DataFrame, level: float) -> str:
    if parts.groupby(["row", "column"])["value"].count().max() < 2:
        return "one prompt: no band"
    return f"band: {100 * level:g} % bootstrap"
