"""position_heatmap: layer × token position."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from knockgrid.figures.figure import Figure
from knockgrid.figures.heatmap import Axis, Heatmap, heatmap
from knockgrid.figures.words import plain
from knockgrid.table.table import metadata_of


def _names(table: pd.DataFrame, values: list) -> list[str]:
    """Position names, or the tokens themselves where one prompt was taken token by token."""
    positions = list(map(str, values))
    sides = {side["id"]: side for side in metadata_of(table).get("prompts", [])}
    prompts = list(table["prompt"].unique())
    if len(prompts) > 1 or prompts[0] not in sides or not all(p.isdigit() for p in positions):
        return [plain(position) for position in positions]
    side = sides[prompts[0]]
    subject = side.get("subject_tokens", [])
    tokens = dict(enumerate(side["tokens"]))  # other prompts of the sweep may have been longer
    return [plain(tokens.get(int(p), p)) + "*" * (int(p) in subject) for p in positions]


KIND = Heatmap(
    Axis("layer", "Layer"), Axis("position", "Token position", names=_names, slanted=True)
)


@Figure.of(needs="position")
def position_heatmap(
    table: pd.DataFrame,
    metric: str = "js",
    **style: Any,
) -> Axes:
    """Draw `metric` over named positions (columns) and layers (rows, the first on top).

    Example:
        >>> from knockgrid.table.table import build
        >>> table = build(
        ...     [
        ...         {"prompt": "a", "intervention": at, "position": at, "layer": layer, "js": 0.1}
        ...         for at in ("subject_last", "last") for layer in range(3)
        ...     ],
        ...     {"unit": "nats"},
        ... )
        >>> [label.get_text() for label in position_heatmap(table).get_xticklabels()]
        ['subject_last', 'last']

    The table comes from a sweep over `per_position()`, averaged over prompts by name. Where the
    positions are the tokens of one prompt, columns carry their text, and those of the subject a
    star. With `direction="denoising"` and `metric="logp_answer"` this is causal tracing. Options
    are those of `layer_heatmap`.

    Raises:
        InputError: as `grid`, or a table without positions.

    Source: Orgad et al. 2024, arXiv 2410.02707 (positions); Meng et al. 2022, arXiv 2202.05262
    (restoration). Limit: a position after the prompt is measured at the token after it, so columns
    of the answer are about later tokens than those of the prompt.
    """
    return heatmap(KIND, table, metric, style)
