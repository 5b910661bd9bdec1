"""Commands that draw: figure, reproduce, evidence."""

from pathlib import Path
from typing import Annotated

import typer

from knockgrid.cli import given
from knockgrid.cli.printed import Json, printed
from knockgrid.figures.figure import figure_names

REPRODUCED = Path("runs/reproduce")


def figure(
    run_folder: given.Run,
    kind: Annotated[str, typer.Option(help=f"{', '.join(figure_names())}.")] = "layer_heatmap",
    metric: Annotated[
        str | None, typer.Option(help="A number column of the table; else the figure's own.")
    ] = None,
    by: Annotated[str | None, typer.Option(help="Panels by this column, or treatment.")] = None,
    as_json: Json = False,
) -> None:
    """Draw a figure from a run folder, without the model."""
    from knockgrid.reports.draw import draw, figure_of
    from knockgrid.runs.store import open_run

    with printed(as_json) as said:
        table = open_run(run_folder)
        metric = metric or figure_of(kind).metric
        said.add(run=str(run_folder), kind=kind, metric=metric)
        for path in draw(table, run_folder, kind=kind, metric=metric, by=by):
            said.wrote(path)


def reproduce(
    studies: Annotated[
        list[str], typer.Argument(help="Names of studies, scripts of your own, or all.")
    ],
    model: given.Model = "demo",
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for tables and figures: of one script itself, else of a folder per study.",
            show_default=str(REPRODUCED),
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few prompts and layers.")] = False,
    dtype: given.Dtype = None,
    device: given.Device = None,
    as_json: Json = False,
) -> None:
    """Make the tables of studies and draw their figures; tables on disk are drawn again."""
    from functools import cache

    from knockgrid.cli.reproduce import chosen, read_study
    from knockgrid.cli.reproduce import reproduce as made
    from knockgrid.runs.job import load_model
    from knockgrid.runs.study import read_spec

    spec = read_spec(None, {"model": model, "dtype": dtype, "device": device})
    settings = {"model": model, "dtype": spec.dtype, "quick": quick}
    found = {name: read_study(script) for name, script in chosen(studies).items()}
    load = cache(lambda: load_model(spec))
    alone = len(studies) == 1 and studies[0].endswith(".py")
    with printed(as_json) as said:
        said.add(out=str(out or REPRODUCED), studies=list(found), quick=quick)
        for name, study in found.items():
            own = out if out and alone else (out or REPRODUCED) / name
            for path in made(study, load, settings, own):
                said.wrote(path)


def evidence(
    model: given.Model = "demo",
    prompts: Annotated[str, typer.Option(help="As for sweep.")] = "facts",
    column: given.Column = None,
    out: Annotated[Path, typer.Option(help="Folder for the runs and figures.")] = Path(
        "runs/evidence"
    ),
    relation: given.Relation = None,
    limit: Annotated[int, typer.Option(help="Known prompts.")] = 100,
    unknown: Annotated[int, typer.Option(help="Prompts that are answered wrong.")] = 100,
    layers: Annotated[str | None, typer.Option(help="all, or 0,4,10-12.")] = None,
    dtype: given.Dtype = None,
    device: given.Device = None,
    as_json: Json = False,
) -> None:
    """Labels, contrasts, nulls, bands, noise floor and the claims card, from one command."""
    from knockgrid.runs.study import read_spec

    relations = (
        tuple(relation) if relation else given.DEMO_RELATIONS if prompts == "facts" else None
    )
    fields = {"model": model, "prompts": prompts, "columns": given.pairs_of(column), "limit": limit}
    fields |= {"unknown": unknown, "relations": relations, "layers": given.layers_of(layers)}
    spec = read_spec(None, {**fields, "dtype": dtype, "device": device})
    from knockgrid.reports.evidence import CARD
    from knockgrid.reports.evidence import evidence as made
    from knockgrid.table.parquet import read_table

    with printed(as_json) as said:
        for path in made(spec, out):
            said.wrote(path)
        if as_json:
            counts = read_table(out / CARD)["outcome"].value_counts()
            said.add(out=str(out), claims={str(name): int(n) for name, n in counts.items()})
