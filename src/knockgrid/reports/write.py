"""write: from a run folder to one page."""

import base64
import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from knockgrid.display.escape import html
from knockgrid.reports import told
from knockgrid.reports.compared import compared
from knockgrid.reports.opened import Opened, opened
from knockgrid.reports.packing import for_script
from knockgrid.reports.payload import payload
from knockgrid.reports.pictures import pictures
from knockgrid.reports.target import system_said, target_of
from knockgrid.table.parquet import whole_file

FILE, COMPARED = "report.html", "report_compare.html"
SCRIPTS = ("unpack.js", "words.js", "heatmap.js", "details.js", "prompts.js", "page.js")
COMPARING = ("unpack.js", "words.js", "heatmap.js", "compare.js", "page.js")


def report(
    folder: str | Path, out: str | Path | None = None, *, compare: str | Path | None = None
) -> Path:
    """Write the report of a run, one HTML file that opens offline, and return its path.

    Example:
        >>> import knockgrid as kg
        >>> kg.report("runs/nowhere")
        Traceback (most recent call last):
        ...
        knockgrid.errors.InputError: runs/nowhere holds no run (there is no manifest.json); ...

    Args:
        folder: a run folder. It may hold a run that is empty or has not ended, which the page says.
        out: the file; by default `report.html` in the run folder, or `report_compare.html`. An
            older report is replaced, any other file stays; missing folders are made.
        compare: another run folder: both on one scale, with the difference of their means.

    Neither the model nor its tokenizer is needed.

    Raises:
        InputError: no run, or a damaged one; a target that is a folder, is there and is no report,
            or cannot be written.
    """
    run = opened(folder)
    name = FILE if compare is None else COMPARED
    target = target_of(run.folder / name if out is None else out)
    if compare is None:
        text = page(run)
    else:
        text = rendered("compare.html", COMPARING, compared(run, opened(compare)))
    _write(text, target)
    return target


def page(run: Opened) -> str:
    """The page of one run."""
    has_rows = run.table is not None
    return rendered(
        "run.html",
        SCRIPTS,
        {
            "title": f"{run.name} – knockgrid report",
            "run": run,
            "headline": told.headline(run),
            "counts": told.counts(run),
            "warnings": list(told.warnings_of(run)),
            "settings": told.settings(run),
            "methods": told.methods_of(run),
            "pictures": pictures(run.table, _main_metric(run)) if run.table is not None else [],
            "data": payload(run) if has_rows else None,
        },
    )


def _main_metric(run: Opened) -> str:
    metrics = run.metadata["metrics"]
    return "js" if "js" in metrics else metrics[0]


def rendered(template: str, scripts: tuple[str, ...], content: Mapping[str, Any]) -> str:
    """A page with its style and script inside; every text from data is escaped on its way in."""
    environment = Environment(
        loader=FunctionLoader(_part),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda one: one if isinstance(one, Markup) else Markup(html(one)),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = '"use strict";\n' + "".join(map(_part, scripts))
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return environment.get_template(template).render(
        **{**content, "data": Markup(for_script(content["data"]))},
        style=Markup(_part("report.css")),
        script=Markup(script),
        # of all scripts only this one runs, and nothing can be loaded
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        version=version("knockgrid"),
        svg=Markup,
    )


def _part(name: str) -> str:
    return files("knockgrid.reports").joinpath("parts").joinpath(name).read_text("utf-8")


def _write(text: str, path: Path) -> None:
    with system_said(path), whole_file(path) as file:
        file.write(text.encode("utf-8"))
