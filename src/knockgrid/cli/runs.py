"""Commands on a run that is there: verify, report, methods, compact, export."""

from pathlib import Path
from typing import Annotated, cast

import typer

from knockgrid.cli.given import Run
from knockgrid.cli.printed import Json, printed
from knockgrid.errors import InputError


def verify(
    run_folder: Run,
    cells: Annotated[int, typer.Option(help="So many cells are computed anew.")] = 20,
    seed: Annotated[int, typer.Option(help="Of the draw of cells.")] = 0,
    as_json: Json = False,
) -> None:
    """Check a run's digests, and some of its cells with the reference executor."""
    from knockgrid.runs import verification as room

    with printed(as_json) as said:
        found = room.verify(run_folder, cells=cells, seed=seed)
        said.add(ok=found.ok, **vars(found))
        for line in room.report(found):
            said.line(line)
    if not found.ok:
        raise typer.Exit(1)


def methods(run_folder: Run, as_json: Json = False) -> None:
    """Print the methods paragraph of a run, and the BibTeX of what it used."""
    from knockgrid.reports.methods import methods as written

    with printed(as_json) as said:
        text = written(run_folder)
        paragraph, bibtex = text.split("\n\n", 1)
        said.add(paragraph=paragraph, bibtex=bibtex)
        said.line(text.rstrip("\n"))


def report(
    run_folder: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The file; report.html in the folder.")] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(metavar="A B", help="Two runs beside each other.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write one HTML file that opens offline: figures, cells, prompts, tokens, methods."""
    from knockgrid.reports import write as room

    if (run_folder is None) == (compare is None):
        raise InputError("give one run folder, or two with --compare")
    first, second = compare or (cast(Path, run_folder), None)
    with printed(as_json) as said:
        said.wrote(room.report(first, out, compare=second))


def compact(run_folder: Run, as_json: Json = False) -> None:
    """Put all shards of a finished run into one file."""
    from knockgrid.runs.store import compact as made

    with printed(as_json) as said:
        said.wrote(made(run_folder))
        said.add(run=str(run_folder), rows=rows_of(run_folder))


def export(
    run_folder: Run,
    out: Annotated[Path, typer.Option(help="File to write.")],
    format: Annotated[str, typer.Option(help="csv or jsonl.")] = "csv",
    as_json: Json = False,
) -> None:
    """Write the rows of a run as CSV or JSON lines."""
    from knockgrid.runs.store import export as made

    with printed(as_json) as said:
        said.wrote(made(run_folder, out, format))
        said.add(run=str(run_folder), format=format, rows=rows_of(run_folder))


def rows_of(run_folder: Path) -> int:
    """How many rows a run has by now."""
    from knockgrid.runs.store import scan_run

    return scan_run(run_folder).count_rows()
