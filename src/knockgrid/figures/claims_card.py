"""claims_card: one page that says what held, what did not, and what cannot be said."""

import textwrap
from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from knockgrid.errors import InputError
from knockgrid.figures.canvas import Size, scale, several
from knockgrid.figures.words import SENTENCE, plain
from knockgrid.table.table import metadata_of

# From Okabe and Ito's palette, pale enough to print black on, each with a sign of its own
STYLES = {
    "held": ("#BFE0F2", "✓"),
    "failed": ("#F6C6A3", "✗"),
    "undecided": ("#EDEDED", "?"),
    "too small to say": ("#FFFFFF", "·"),
    "not found": ("#FFFFFF", "–"),
}
UNSWEPT = "#F4F4F4"
COLUMNS = ("claim", "form", "corruption", "window", "value", "confirmed", "outcome")


def claims_card(
    frame: pd.DataFrame,
    *,
    ax: Axes | None = None,
    figsize: Size | None = None,
    fontsize: float | int | None = None,
    title: str | None = None,
) -> Figure:
    """Draw claims under each corruption and window (rows) in each form of the prompts (columns).

    Example:
        >>> line = {"claim": "last: the step begins", "form": "plain", "corruption": "swap()"}
        >>> rest = {"window": None, "value": "22.5", "confirmed": "22.4", "outcome": "held"}
        >>> figure = claims_card(pd.DataFrame([{**line, **rest}]))
        >>> [text.get_text() for text in figure.axes[0].texts if "22" in text.get_text()]
        ['✓ 22.5 → 22.4']

    A cell reads "value on the half it was found on → value on the other half". Signs say the same
    as colours. `figsize`, `fontsize` and `ax` are as in `layer_heatmap`.

    Raises:
        InputError: not a frame of `claims`, or one without lines.
    """
    missing = [name for name in COLUMNS if name not in frame]
    if missing:
        raise InputError(f"this is no frame of claims: it has no column {missing[0]!r}")
    if frame.empty:
        raise InputError("the frame holds no claims")
    unknown = sorted(set(frame["outcome"]) - set(STYLES))
    if unknown:
        raise InputError(f"outcome {unknown[0]!r} is none of {', '.join(STYLES)}")
    keyed = frame.assign(said=[_claim(line) for line in frame.to_dict("records")])
    forms = list(dict.fromkeys(keyed["form"]))
    claims = [said for some in keyed.groupby("claim", sort=False)["said"].unique() for said in some]
    size = (3.6 + 1.55 * len(forms), 1.1 + 0.27 * len(claims))
    counts = frame["outcome"].value_counts()
    outcomes = [name for name in STYLES if name in counts]
    with several(1, 1, 1, size, ax, figsize, fontsize) as (whole, (place,)):
        for line in keyed.to_dict("records"):
            _cell(place, forms.index(line["form"]), claims.index(line["said"]), line)
        place.set(xlim=(0, len(forms)), ylim=(len(claims), 0), facecolor=UNSWEPT)
        middles = [i + 0.5 for i in range(max(len(forms), len(claims)))]
        place.set_xticks(middles[: len(forms)], list(map(plain, forms)), fontsize=8 * scale())
        place.set_yticks(middles[: len(claims)], claims, fontsize=7 * scale())
        place.xaxis.tick_top()
        place.tick_params(length=0)
        place.spines[:].set_visible(False)
        meanings = [(STYLES[name][0], f"{STYLES[name][1]} {name}") for name in outcomes]
        if len(frame) < len(forms) * len(claims):
            meanings.append((UNSWEPT, "not swept"))
        handles = [Patch(facecolor=fill, edgecolor="0.6", label=said) for fill, said in meanings]
        under = {"loc": "upper left", "bbox_to_anchor": (0.0, -0.01), "ncols": len(handles)}
        place.legend(handles=handles, frameon=False, fontsize="small", borderaxespad=0, **under)
        if title != "" and ax is None:
            model = metadata_of(frame).get("model", {}).get("name")
            said = ", ".join(f"{counts[name]} {name}" for name in outcomes)
            own = f"{plain(model)}: {said}" if model else said
            whole.suptitle(title or own, fontsize="medium")
    return whole


def _claim(line: Mapping[Any, Any]) -> str:
    """A claim with what it was found under."""
    window = None if pd.isna(line["window"]) else f"window {plain(line['window'])}"
    corruption = None if pd.isna(line["corruption"]) else plain(line["corruption"])
    return " · ".join(filter(None, (plain(line["claim"], SENTENCE), corruption, window)))


def _cell(ax: Axes, x: int, y: int, line: Mapping[Any, Any]) -> None:
    colour, sign = STYLES[line["outcome"]]
    ax.add_patch(Rectangle((x, y), 1, 1, facecolor=colour, edgecolor="white", linewidth=1.5))
    values = " → ".join(plain(v) for v in (line["value"], line["confirmed"]) if v)
    said = textwrap.fill(f"{sign} {values}".strip(), 30)
    look: dict[str, Any] = {"ha": "center", "va": "center", "linespacing": 0.95}
    ax.text(x + 0.5, y + 0.5, said, fontsize=6.5 * scale(), **look)
