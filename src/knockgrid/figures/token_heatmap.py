"""token_heatmap: layer × generated token."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from knockgrid.errors import InputError
from knockgrid.figures.figure import Figure
from knockgrid.figures.heatmap import Heatmap, Side, heatmap
from knockgrid.figures.marks import add_note
from knockgrid.figures.words import plain
from knockgrid.table.table import metadata_of


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
    tokens = Side("token", "Generated Token", _names)
    kind = Heatmap(
        Side("layer", "Layer", step=1), tokens, "YlOrRd", words=_words, more=_mark_divergence
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


def _names(table: pd.DataFrame, there: list) -> list[str]:
    tokens = list(map(int, there))
    if table["prompt"].nunique() > 1 or table["token_text"].isna().all():
        return [f"Gen{token}" for token in tokens]
    texts = table.drop_duplicates("token").set_index("token")["token_text"]
    return [f"Gen{token}\n{plain(texts[token])}" for token in tokens]


def _words(table: pd.DataFrame, metric: str, title: str | None) -> str:
    """The title names the row, and the mode of a sweep that measured more than the first token."""
    metadata = metadata_of(table)
    mode = plain(metadata.get("mode", "")) if metadata.get("n_tokens", 1) > 1 else ""
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
