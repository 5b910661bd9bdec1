"""write: from a run folder to one page, which replaces nothing but a report."""

import base64
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from knockgrid.display.escape import html
from knockgrid.errors import InputError, shown
from knockgrid.reports.compared import compared
from knockgrid.reports.draw import pictures
from knockgrid.reports.opened import Opened, opened
from knockgrid.reports.packing import for_script
from knockgrid.reports.page_text import counts, headline, methods_of, settings, warnings_of
from knockgrid.reports.payload import payload
from knockgrid.table.parquet import whole_file

FILE, COMPARED = "report.html", "report_compare.html"
SCRIPTS = ("unpack.js", "words.js", "heatmap.js", "details.js", "prompts.js", "page.js")
COMPARING = ("unpack.js", "words.js", "heatmap.js", "compare.js", "page.js")
MARK = b'<meta name="generator" content="knockgrid '
"""Stands in the head of every report, of whatever version."""
HEAD = 4096


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
    target = _target_of(run.folder / name if out is None else out)
    if compare is None:
        text = _rendered("run.html", SCRIPTS, _content(run))
    else:
        text = _rendered("compare.html", COMPARING, compared(run, opened(compare)))
    with _system_said(target), whole_file(target) as file:
        file.write(text.encode("utf-8"))
    return target


def _content(run: Opened) -> dict[str, Any]:
    """What the page of one run shows."""
    table, metrics = run.table, run.metadata["metrics"]
    main = "js" if "js" in metrics else metrics[0]
    return {
        "title": f"{run.name} – knockgrid report",
        "run": run,
        "headline": headline(run),
        "counts": counts(run),
        "warnings": list(warnings_of(run)),
        "settings": settings(run),
        "methods": methods_of(run),
        "pictures": [] if table is None else pictures(table, main),
        "data": None if table is None else payload(run),
    }


def _rendered(template: str, scripts: tuple[str, ...], content: Mapping[str, Any]) -> str:
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


def _target_of(out: str | Path) -> Path:
    """The file to write, once nothing but a report can be replaced by it."""
    path = Path(out)
    if str(out) == "-":
        raise _refused("'-'", "a report is one file that a browser opens; name one, as report.html")
    with _system_said(path):
        if path.is_dir():
            raise _refused(path, f"it is a folder; name a file in it, as {path / FILE}")
        there = next((one for one in path.parents if one.exists()), None)
        if there is not None and not there.is_dir():
            raise _refused(path, f"{there} is a file, not a folder; name another")
        if path.exists() and not path.is_file():
            raise _refused(path, "it is no ordinary file; name another")
        if path.exists() and not _is_report(path):
            raise _refused(
                path, "it is there and is no report of knockgrid; remove it, or name another"
            )
    return path


def _is_report(path: Path) -> bool:
    with path.open("rb") as file:
        return MARK in file.read(HEAD)


@contextmanager
def _system_said(path: Path) -> Iterator[None]:
    """Refuse in one sentence what the system refuses to write."""
    try:
        yield
    except InputError:
        raise
    except OSError as error:
        raise _refused(path, f"{error.strerror or error}; name another file") from None
    except ValueError as error:  # a name that no file can have
        raise _refused(shown(str(path)), f"{error}; name another file") from None


def _refused(target: object, why: str) -> InputError:
    return InputError(f"the report cannot be written to {target}: {why}")
