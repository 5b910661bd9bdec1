"""The figures of a run as SVG that stands inside a page."""

import io
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from knockgrid.display.escape import html
from knockgrid.errors import InputError
from knockgrid.figures import contrast_curves, layer_curve, layer_heatmap, panels, token_heatmap
from knockgrid.reports import draw
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
    """The main figures of a table: heatmap and curves per source, tokens where there are several.

    Example:
        >>> from knockgrid.table.table import build
        >>> row = {"prompt": "rome", "intervention": "last", "layer": 0, "js": 0.1}
        >>> described = [{"name": "last", "source": "zero()", "window": 1}]
        >>> told = {"unit": "nats", "interventions": described, "labels": {"last": "Last."}}
        >>> [one.title for one in pictures(build([row], told), "js")]
        ['Heatmap', 'Curves']
    """
    found = []
    for number, (title, make) in enumerate(_plans(table, metric)):
        try:
            found.append(Picture(title, inline(make(), title, f"figure{number}"), ""))
        except InputError as error:
            found.append(Picture(title, "", str(error)))
    return found


def _plans(table: pd.DataFrame, metric: str) -> Iterator[tuple[str, Callable[[], Any]]]:
    metadata = metadata_of(table)
    mine = treatments(table)
    main = only_rows(table, [one.name for one in mine])
    if metadata.get("n_tokens", 1) > 1:
        for one in mine[:MOST]:
            yield f"Tokens: {one.name}", _tokens(main, metric, one.name)
        return
    several = len({one.source for one in mine if one.source is not None}) > 1
    by = "group" if several or table["group"].notna().any() else None
    part = draw.treatments(main) if several else main
    for title, figure in (("Heatmap", layer_heatmap), ("Curves", layer_curve)):
        yield title, _figure(part, figure, metric, by)
    if any(one.get("role") == "contrast" for one in metadata.get("interventions", [])):
        yield "Contrasts", lambda: contrast_curves(table)


def _figure(part: pd.DataFrame, figure: Any, metric: str, by: str | None) -> Callable[[], Any]:
    if by is None:
        return lambda: figure(part, metric)
    return lambda: panels(part, figure, by=by, metric=metric)


def _tokens(part: pd.DataFrame, metric: str, name: str) -> Callable[[], Any]:
    return lambda: token_heatmap(part, metric, intervention=name)


def inline(figure: Figure | Axes, title: str, name: str) -> str:
    """A figure as an SVG element whose ids no other figure has, with a title for screen readers.

    Example:
        >>> text = inline(Figure(), 'a "title"', "one")
        >>> text[:60]
        '<svg role="img" aria-label="a &quot;title&quot;" viewBox="0 '
        >>> "http" in text, 'id="one-figure_1"' in text
        (False, True)
    """
    whole = (figure.figure if isinstance(figure, Axes) else figure).canvas.figure
    file = io.BytesIO()
    with matplotlib.rc_context(SETTINGS):
        whole.savefig(file, format="svg", metadata=NO_METADATA, bbox_inches="tight")
    text = file.getvalue().decode("utf-8")
    text = text[text.index("<svg") :]
    head, body = text.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'(<[^<>]*?\s)id="', rf'\1id="{name}-', body)
    body = re.sub(r'(?:xlink:)?href="#', f'href="#{name}-', body)
    body = body.replace("xlink:href", "href").replace("url(#", f"url(#{name}-")
    return f'<svg role="img" aria-label="{html(title)}" {box[0] if box else ""}>{body}'
