"""Figures of a run, from its table alone: as files, and as SVG that stands inside a page."""

import io
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Whole

from knockgrid import figures
from knockgrid.display.escape import file_name, html
from knockgrid.errors import InputError, unknown
from knockgrid.figures.canvas import root
from knockgrid.figures.figure import Figure, figure_names
from knockgrid.runs.run_folder import FIGURES
from knockgrid.table.table import metadata_of
from knockgrid.table.treatments import only_rows, treatments

SETTINGS: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "knockgrid"}
NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
MOST = 12
"""Figures of one kind: a page with more is no summary."""


def figure_of(kind: str) -> Figure[..., Any]:
    """The figure with this name."""
    if kind not in figure_names():
        raise unknown("figure", kind, figure_names())
    return getattr(figures, kind)


def draw(
    table: pd.DataFrame,
    folder: Path,
    *,
    kind: str = "layer_heatmap",
    metric: str | None = None,
    by: str | None = None,
) -> tuple[Path, ...]:
    """Draw one figure of a table into the folder's `figures/`, as SVG, PDF and PNG.

    A figure with `each` is drawn once for each value of that column, and its files name the value.
    """
    figure = figure_of(kind)
    metric = metric or figure.metric
    if by == "treatment":
        table, by = by_source(table), "group"
    values = [None] if figure.each is None else list(table[figure.each].unique())
    written: list[Path] = []
    for value in values:
        part = table if value is None else table[table[figure.each] == value]
        named = [kind, *([] if value is None else [file_name(value)]), file_name(metric)]
        drawn = _drawn(figure, part, metric, by)
        written += figures.save(drawn, folder / FIGURES / "_".join(named))
    return tuple(written)


def _drawn(figure: Figure[..., Any], table: pd.DataFrame, metric: str, by: str | None) -> Any:
    if by is None:
        return figure(table, metric)
    if figure.by == "itself":
        return figure(table, metric, by=by)
    if figure.by == "no":
        raise InputError(f"{figure.name} has no panels by a column; leave out --by")
    return figures.panels(table, figure, by=by, metric=metric)


def by_source(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its corruption as the group, attention rows repeated in every group.

    A run with several sources names its rows `subject noise`, `subject swap`, ...; side by side
    each source is a panel of its own, and rows without a source belong to all of them.
    """
    found = treatments(table)
    plain = {one.name: one.name if one.source is None else one.row for one in found}
    parts = []
    for source in dict.fromkeys(one.source for one in found if one.source is not None):
        mine = [one.name for one in found if one.source in (source, None)]
        first = next(one.name for one in found if one.source == source)
        part = table[table["intervention"].isin(mine)]
        parts.append(part.assign(group=first.split(" ", 1)[-1]))
    if not parts:
        raise InputError("no row of this table has a source; leave out --by treatment")
    joined = pd.concat(parts, ignore_index=True)
    joined["intervention"] = joined["intervention"].replace(plain)
    metadata = dict(metadata_of(table))
    metadata["intervention_order"] = list(dict.fromkeys(plain.values()))
    metadata["labels"] = {plain.get(n, n): text for n, text in metadata["labels"].items()}
    if isinstance(metadata.get("noise_floor"), dict):
        metadata["noise_floor"] = {
            m: _renamed(f, plain) for m, f in metadata["noise_floor"].items()
        }
    joined.attrs = {**table.attrs, "knockgrid": metadata}
    return joined


def _renamed(floor: Any, plain: dict[str, str]) -> Any:
    """A noise floor under the rows' plain names; sources share the site, and so its floor."""
    if not isinstance(floor, dict):
        return floor
    cells = {plain.get(name, name): cells for name, cells in floor.get("cells", {}).items()}
    return {**floor, "cells": cells}


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
    if table["measured"].notna().any():
        yield "Spans", partial(figures.span_heatmap, main, metric)
        return
    if table["token"].nunique() > 1:
        for one in mine[:MOST]:
            make = partial(figures.token_heatmap, main, metric, intervention=one.name)
            yield f"Tokens: {one.name}", make
        return
    several = len({one.source for one in mine if one.source is not None}) > 1
    grouped = several or table["group"].notna().any()
    part = by_source(main) if several else main
    for title, figure in (("Heatmap", figures.layer_heatmap), ("Curves", figures.layer_curve)):
        by_group = partial(figures.panels, part, figure, metric=metric)
        yield title, by_group if grouped else partial(figure, part, metric)
    if any(one.get("role") == "contrast" for one in metadata.get("interventions", [])):
        yield "Contrasts", partial(figures.contrast_curves, table)


def inline(figure: Whole | Axes, title: str, name: str) -> str:
    """A figure as an SVG element whose ids no other figure has, with a title for screen readers."""
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
