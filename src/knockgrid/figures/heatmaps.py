"""The heatmaps of layers against interventions, positions, heads, modules and doses."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from knockgrid.figures.figure import Figure
from knockgrid.figures.heatmap import Heatmap, Side, heatmap
from knockgrid.figures.words import metric_label, plain, row_labels
from knockgrid.table.table import metadata_of

LAYERS = Side("layer", "Layer")


@Figure.of()
def layer_heatmap(table: pd.DataFrame, metric: str = "js", **style: Any) -> Axes:
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
    kind = Heatmap(Side("intervention", names=row_labels), LAYERS)
    return heatmap(kind, table, metric, style)


@Figure.of(needs="position")
def position_heatmap(table: pd.DataFrame, metric: str = "js", **style: Any) -> Axes:
    """Draw `metric` over named positions (columns) and layers (rows, the first on top).

    Example:
        >>> from knockgrid.table.table import build
        >>> rows = [
        ...     {"prompt": "a", "intervention": at, "position": at, "layer": 0, "js": 0.1}
        ...     for at in ("subject_last", "last")
        ... ]
        >>> ax = position_heatmap(build(rows, {"unit": "nats"}))
        >>> [label.get_text() for label in ax.get_xticklabels()]
        ['subject_last', 'last']

    The table comes from a sweep over `per_position()`, averaged over prompts by name. Where the
    positions are the tokens of one prompt, columns carry their text, and those of the subject a
    star. With `direction="denoising"` and `metric="logp_answer"` this is causal tracing. Options
    are those of `layer_heatmap`.

    Raises:
        InputError: as `layer_heatmap`, or a table without positions.

    Source: Orgad et al. 2024, arXiv 2410.02707 (positions); Meng et al. 2022, arXiv 2202.05262
    (restoration). Limit: a position after the prompt is measured at the token after it, so columns
    of the answer are about later tokens than those of the prompt.
    """
    kind = Heatmap(LAYERS, Side("position", "Token position", _positions, slanted=True))
    return heatmap(kind, table, metric, style)


def _positions(table: pd.DataFrame, there: list) -> list[str]:
    """Position names, or the tokens themselves where one prompt was taken token by token."""
    positions = list(map(str, there))
    sides = {side["id"]: side for side in metadata_of(table).get("prompts", [])}
    prompts = list(table["prompt"].unique())
    if len(prompts) > 1 or prompts[0] not in sides or not all(p.isdigit() for p in positions):
        return [plain(position) for position in positions]
    side = sides[prompts[0]]
    subject = side.get("subject_tokens", [])
    tokens = dict(enumerate(side["tokens"]))  # other prompts of the sweep may have been longer
    return [plain(tokens.get(int(p), p)) + "*" * (int(p) in subject) for p in positions]


@Figure.of(needs="head")
def head_heatmap(table: pd.DataFrame, metric: str = "js", **style: Any) -> Axes:
    """Draw `metric` over layers (columns) and attention heads (rows).

    Example:
        >>> from knockgrid.table.table import build
        >>> rows = [
        ...     {"prompt": "rome", "intervention": f"{h}", "head": h, "layer": 0, "js": 0.1}
        ...     for h in (0, 3)
        ... ]
        >>> ax = head_heatmap(build(rows, {"unit": "nats"}))
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['0', '3']

    The table comes from a sweep over `per_head()`; options are those of `layer_heatmap`.

    Raises:
        InputError: as `layer_heatmap`, or a table without heads.

    Limit: heads that do the same work cover for each other, so single heads can look idle.
    """
    kind = Heatmap(Side("head", "Head", lambda _, heads: [str(int(h)) for h in heads]), LAYERS)
    return heatmap(kind, table, metric, style)


@Figure.of(needs="module")
def module_heatmap(table: pd.DataFrame, metric: str = "js", **style: Any) -> Axes:
    """Draw a statistic over modules (columns) and layers (rows, the first at the bottom).

    Example:
        >>> from knockgrid.table.table import build
        >>> rows = [
        ...     {"prompt": "rome", "intervention": m, "module": m, "layer": 0, "js": 0.1}
        ...     for m in ("attn. q", "mlp. up")
        ... ]
        >>> module_heatmap(build(rows, {"unit": "nats"})).get_title()
        'Avg. JS divergence (nats) (n = 1 prompt)'

    The table comes from a sweep over `per_module()`, or from `module_statistics()`; title and
    colour bar name the statistic. Options are those of `layer_heatmap`. With `diverging=True` white
    is the grid's middle, not zero, and the outermost cells do not stretch the scale.

    Raises:
        InputError: as `layer_heatmap`, or a table without modules.
    """
    modules = Side("module", "Module", lambda _, names: list(map(plain, names)), slanted=True)
    kind = Heatmap(Side("layer", "Layer", step=3), modules, upward=True, words=_statistic)
    return heatmap(kind, table, metric, style)


def _statistic(table: pd.DataFrame, metric: str, title: str | None) -> str:
    """The title names the statistic; what exactly it is stands at the colour bar."""
    own = metadata_of(table).get("statistics", {})
    label = plain(metric) if metric in own else metric_label(table, metric)
    return " · ".join(filter(None, [title, label]))


@Figure.of(needs="alpha")
def dose_heatmap(table: pd.DataFrame, metric: str = "js", **style: Any) -> Axes:
    """Draw `metric` over layers (columns) and doses (rows, the least at the bottom).

    Example:
        >>> from knockgrid.table.table import build
        >>> rows = [
        ...     {"prompt": "a", "intervention": f"{x}", "alpha": x, "layer": 0, "js": x}
        ...     for x in (0.5, 1.0)
        ... ]
        >>> ax = dose_heatmap(build(rows, {"unit": "nats"}))
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['0.5', '1']

    The table comes from a sweep over `per_alpha()`; a dose is the share of the way from the clean
    value (0) to the source's (1). Options are those of `layer_heatmap`.

    Raises:
        InputError: as `layer_heatmap`, or a table without doses.
    """
    doses = Side("alpha", "Dose (alpha)", lambda _, found: [f"{dose:g}" for dose in found])
    return heatmap(Heatmap(doses, LAYERS, sorted=True, upward=True), table, metric, style)
