"""The figures of a run as SVG that stands inside a page."""

import io
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from knockgrid.display.escape import html
from knockgrid.errors import InputError
from knockgrid.figures import contrast_curves, layer_curve, layer_heatmap, panels, token_heatmap
from knockgrid.figures.canvas import root
from knockgrid.reports.draw import by_source
from knockgrid.table.table import metadata_of
from knockgrid.table.treatments import only_rows, treatments

SETTINGS: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "knockgrid"}
NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
MOST = 12
"""Figures of one kind: a page with more is no summary."""


class Picture(NamedTuple):
    """A figure, or the reason why there is none."""

    title: str
    svg: str
    reason: str


def pictures(table: pd.DataFrame, metric: str) -> list[Picture]:
    """The main figures of a table: heatmap and curves per source, or each row over its tokens."""
    plans = enumerate(_plans(table, metric))
    return [picture(title, f"figure{number}", make) for number, (title, make) in plans]


def picture(title: str, name: str, make: Callable[[], Any]) -> Picture:
    """What a figure's function draws, or why it refuses to."""
    try:
        return Picture(title, inline(make(), title, name), "")
    except InputError as error:
        return Picture(title, "", str(error))


def _plans(table: pd.DataFrame, metric: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    metadata, mine = metadata_of(table), treatments(table)
    main = only_rows(table, [one.name for one in mine])
    if metadata.get("n_tokens", 1) > 1:
        for one in mine[:MOST]:
            yield f"Tokens: {one.name}", partial(token_heatmap, main, metric, intervention=one.name)
        return
    several = len({one.source for one in mine if one.source is not None}) > 1
    grouped = several or table["group"].notna().any()
    part = by_source(main) if several else main
    for title, figure in (("Heatmap", layer_heatmap), ("Curves", layer_curve)):
        by_group = partial(panels, part, figure, metric=metric)
        yield title, by_group if grouped else partial(figure, part, metric)
    if any(one.get("role") == "contrast" for one in metadata.get("interventions", [])):
        yield "Contrasts", partial(contrast_curves, table)


def inline(figure: Figure | Axes, title: str, name: str) -> str:
    """A figure as an SVG element whose ids no other figure has, with a title for screen readers.

    Example:
        >>> text = inline(Figure(), 'a "title"', "one")
        >>> text[:60]
        '<svg role="img" aria-label="a &quot;title&quot;" viewBox="0 '
        >>> "http" in text, 'id="one-figure_1"' in text
        (False, True)
    """
    file = io.BytesIO()
    with matplotlib.rc_context(SETTINGS):
        root(figure).savefig(file, format="svg", metadata=NO_METADATA, bbox_inches="tight")
    text = file.getvalue().decode("utf-8")
    head, body = text[text.index("<svg") :].split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'(<[^<>]*?\s)id="', rf'\1id="{name}-', body)
    body = re.sub(r'(?:xlink:)?href="#', f'href="#{name}-', body)
    body = body.replace("xlink:href", "href").replace("url(#", f"url(#{name}-")
    return f'<svg role="img" aria-label="{html(title)}" {box[0] if box else ""}>{body}'
