"""The heatmaps: layers against interventions, positions, heads, modules, doses and tokens."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from knockgrid.errors import InputError
from knockgrid.figures.figure import Figure
from knockgrid.figures.heatmap import Heatmap, Side, heatmap
from knockgrid.figures.marks import add_note
from knockgrid.figures.words import metric_label, plain, row_labels
from knockgrid.table.measures import logarithm
from knockgrid.table.table import averaged, grid, metadata_of

MOST = 30
"""Spans that are named along a side."""

LAYERS = Side("layer", "Layer")


@Figure.of()
def layer_heatmap(table: pd.DataFrame, metric: str = "js", **style: Any) -> Axes:
    """Draw `metric`, averaged over prompts, as a heatmap of interventions (rows) × layers.

    Example:
        >>> from knockgrid.table.table import build
        >>> row = {"prompt": "rome", "layer": 0, "js": 0.1}
        >>> rows = [{**row, "intervention": name} for name in ("subject", "attention", "last")]
        >>> ax = layer_heatmap(build(rows, {"unit": "nats"}))
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
            `limits` – ends of the colours; else from 0, or the least value where some are negative;
            of measures with a sign, as `logit_diff`, as far below 0 as above.
            `cmap` – a colour map of matplotlib's.
            `diverging` – blue, white in the middle, orange; leaves out the outermost 2 %. Measures
            with a sign have these colours always, white being 0.
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
        >>> row = {"prompt": "rome", "layer": 0, "js": 0.1}
        >>> places = ("subject_last", "last")
        >>> rows = [{**row, "intervention": at, "position": at} for at in places]
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
        >>> row = {"prompt": "rome", "layer": 0, "js": 0.1}
        >>> rows = [{**row, "intervention": f"{head}", "head": head} for head in (0, 3)]
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
        >>> row = {"prompt": "rome", "layer": 0, "js": 0.1}
        >>> rows = [{**row, "intervention": m, "module": m} for m in ("attn. q", "mlp. up")]
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
        >>> row = {"prompt": "rome", "layer": 0}
        >>> rows = [{**row, "intervention": f"{x}", "alpha": x, "js": x} for x in (0.5, 1.0)]
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


@Figure.of(needs="source_layer")
def layer_pair_heatmap(table: pd.DataFrame, metric: str = "js", **style: Any) -> Axes:
    """Draw `metric` over source layers (rows, the first at the bottom) and the layers they go to.

    Example:
        >>> from knockgrid.table.table import build
        >>> row = {"prompt": "rome", "layer": 0, "js": 0.1}
        >>> rows = [{**row, "intervention": f"{at}", "source_layer": at} for at in (4, 20)]
        >>> ax = layer_pair_heatmap(build(rows, {"unit": "nats"}))
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['4', '20']

    The table comes from a sweep over `edits.per_source_layer()`; options are those of
    `layer_heatmap`.

    Raises:
        InputError: as `layer_heatmap`, or a table without source layers.

    Source: Patchscopes (Ghandeharioun et al. 2024, arXiv 2401.06102); back-patching (Biran et al.
    2024, arXiv 2406.12775).
    """
    sources = Side("source_layer", "Source layer")
    kind = Heatmap(sources, Side("layer", "Target layer"), sorted=True, upward=True)
    return heatmap(kind, table, metric, style)


@Figure.of(needs="span")
def span_heatmap(
    table: pd.DataFrame, metric: str = "kl", *, mean: str = "plain", **style: Any
) -> Axes:
    """Draw `metric` over edited spans (rows) and measured spans (columns), in the text's order.

    Example:
        >>> from knockgrid.table.table import build
        >>> row = {"prompt": "sum", "intervention": "s0->all", "layer": None, "span": "s0"}
        >>> rows = [{**row, "measured": name, "kl": kl} for name, kl in (("s0", 0.4), ("s1", 0.1))]
        >>> ax = span_heatmap(build(rows, {"unit": "nats"}), mean="log")
        >>> [label.get_text() for label in ax.get_xticklabels()]
        ['s0', 's1']

    The table comes from a sweep over `per_span()` with `measure="all"`; a cell is the mean over the
    tokens of the measured span, with `mean="log"` that of log(x + 1e-9). Spans that the edit cannot
    reach are 0. Options are those of `layer_heatmap`.

    Raises:
        InputError: as `layer_heatmap`, or a table without measured spans.

    Source: Thought Anchors (Bogdan et al. 2025, arXiv 2506.19143), who then subtract each row's
    mean.
    """
    table, metric = averaged(table, metric, mean)
    values = grid(table, metric, "span", "measured").to_numpy(float)
    if mean == "log":  # cells that no edit reaches would take most of the scale
        reached = values[values > logarithm(0.0) + 0.5]
        ends = (float(reached.min()), float(reached.max())) if reached.size else (-1.0, 0.0)
        known = {"cmap": "Blues", "limits": ends if ends[0] < ends[1] else (ends[0] - 1, ends[1])}
        style = {**known, **{name: given for name, given in style.items() if given is not None}}
    spans = Side("span", "Edited span", _spans)
    kind = Heatmap(spans, Side("measured", "Measured span", _spans, slanted=True))
    return heatmap(kind, table, metric, style)


def _spans(table: pd.DataFrame, there: list) -> list[str]:
    """The names of some spans; of many, those that have room."""
    step = -(-len(there) // MOST)
    return [plain(name) if i % step == 0 else "" for i, name in enumerate(there)]


@Figure.of(each="intervention")
def token_heatmap(
    table: pd.DataFrame, metric: str = "kl", *, intervention: str | None = None, **style: Any
) -> Axes:
    r"""Draw `metric` over generated tokens (columns) and layers (rows, in the user's order).

    Example:
        >>> from knockgrid.table.table import build
        >>> row = {"prompt": "rome", "intervention": "subject", "layer": 0, "token_text": " it"}
        >>> rows = [{**row, "token": token, "kl": 0.1 * token} for token in range(2)]
        >>> ax = token_heatmap(build(rows, {"unit": "nats", "mode": "prompt_only"}))
        >>> [label.get_text() for label in ax.get_xticklabels()]
        ['Gen0\n it', 'Gen1\n it']

    Gen0 is the token right after the prompt. One prompt has the clean run's tokens under the
    columns. The mode is in the title; in mode `free_run` a line stands left of the first token that
    the intervened model wrote differently (for several prompts: in at least half of them), and what
    lies right of it mixes the edit with the changed text. `intervention` picks one of several; the
    other options are those of `layer_heatmap`.

    Raises:
        InputError: as `layer_heatmap`, or several interventions and none picked.

    Limit: tokens after the text has ended are NA, so later columns hold fewer prompts.
    """
    tokens = Side("token", "Generated Token", _tokens)
    kind = Heatmap(
        Side("layer", "Layer", step=1), tokens, "YlOrRd", words=_row_and_mode, more=_mark_divergence
    )
    names = list(table["intervention"].unique())
    if intervention is None and len(names) > 1:
        raise InputError(
            f"the table has several interventions ({', '.join(names)}); give intervention="
        )
    if intervention is not None and intervention not in names:
        raise InputError(f"the table has no intervention {intervention!r}; it has {names}")
    one = table[table["intervention"] == (intervention or names[0])]
    return heatmap(kind, one, metric, style)


def _tokens(table: pd.DataFrame, there: list) -> list[str]:
    tokens = list(map(int, there))
    if table["prompt"].nunique() > 1 or table["token_text"].isna().all():
        return [f"Gen{token}" for token in tokens]
    texts = table.drop_duplicates("token").set_index("token")["token_text"]
    return [f"Gen{token}\n{plain(texts[token])}" for token in tokens]


def _row_and_mode(table: pd.DataFrame, metric: str, title: str | None) -> str:
    """The title names the row, and the mode of a sweep that measured more than the first token."""
    metadata = metadata_of(table)
    mode = plain(metadata.get("mode", "")) if table["token"].nunique() > 1 else ""
    return " · ".join(filter(None, [title, plain(table["intervention"].iloc[0]), mode]))


def _mark_divergence(ax: Axes, table: pd.DataFrame, values: pd.DataFrame) -> None:
    """A line before the first token at which at least half of the prompts diverge."""
    tokens = list(map(int, values.columns))
    first = table.drop_duplicates(["prompt", "layer"]).set_index("layer")["diverged"]
    look: dict[str, Any] = {"color": "#0072B2", "linewidth": 2.5}
    drawn = False
    for y, layer in enumerate(map(int, values.index)):
        own = first.loc[[layer]].astype("Float64").fillna(float("inf")).sort_values()
        at = own.iloc[(len(own) - 1) // 2]
        if at in tokens:
            x = tokens.index(int(at))
            ax.plot([x, x], [y, y + 1], gid="diverged", **look)
            drawn = True
    if drawn:
        some = "" if table["prompt"].nunique() == 1 else " in half of the prompts"
        add_note(ax, Line2D([], [], label=f"first diverging token{some}", **look))
