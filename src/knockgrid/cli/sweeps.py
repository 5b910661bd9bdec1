"""Commands that compute a run: demo, sweep."""

from collections.abc import Callable
from inspect import Parameter, Signature
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from knockgrid.cli import given
from knockgrid.cli.printed import Json, Printer, printed
from knockgrid.spec import FIELDS, ROWS, rows_as_data

Out = Annotated[Path, typer.Option(help="Run folder to write: manifest, shards, figures.")]


def demo(
    out: Out = Path("runs/demo"),
    limit: Annotated[int, typer.Option(help="At most this many known facts.")] = 120,
    dry_run: Annotated[bool, typer.Option(help="Print cells and an estimate only.")] = False,
    as_json: Json = False,
) -> None:
    """Sweep a small real model over facts it knows: noise and swap, windows 5 and 1."""
    flags = {
        "relations": given.DEMO_RELATIONS,
        "known": True,
        "limit": limit,
        "interventions": rows_as_data(sources=("noise", "swap"), windows=(5, 1)),
    }
    with printed(as_json) as said:
        sweep_and_draw(said, None, flags, out, dry_run=dry_run)


def flags_of(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a flag for every field of `Spec` that has one."""
    own = Signature.from_callable(command).parameters.values()
    kept = [one for one in own if one.kind is not Parameter.VAR_KEYWORD]
    for name, one in FIELDS.items():
        if one.metadata["flag"]:
            kind = one.metadata["kind"]
            if not isinstance(kind, type):  # a union or a literal
                kinds = [each for each in get_args(kind) if isinstance(each, type)]
                kind = next((each for each in kinds if each is not type(None)), str)
            option = Annotated[kind | None, typer.Option(help=f"{one.metadata['help']}.")]  # type: ignore[valid-type]
            kept.append(Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=option))
    command.__signature__ = Signature(kept)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in kept}
    return command


@flags_of
def sweep(
    study: Annotated[
        Path | None, typer.Argument(help="YAML file with any field of a Spec.", show_default=False)
    ] = None,
    *,
    out: Out = Path("runs/sweep"),
    column: given.Column = None,
    relation: given.Relation = None,
    known: Annotated[
        bool | None, typer.Option("--known/--all", help="Only prompts answered right.")
    ] = None,
    row: Annotated[list[str] | None, typer.Option(help="subject, attention, last.")] = None,
    source: Annotated[
        list[str] | None, typer.Option(help="noise, noise:1, swap, zero, mean.")
    ] = None,
    window: Annotated[list[str] | None, typer.Option(help="Attention window in layers.")] = None,
    layers: Annotated[str | None, typer.Option(help="all, or 0,4,10-12.")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="A measure; all of the default.")] = None,
    more: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any other field of a Spec: samples=5."),
    ] = None,
    shard: Annotated[
        str | None, typer.Option(help="Compute this part only: 2/8, or auto (SLURM, torchrun).")
    ] = None,
    engine: Annotated[
        str, typer.Option(help="single, or ray, as ray:workers=4,cpus=2,gpus=1,address=HOST:PORT.")
    ] = "single",
    dry_run: Annotated[
        bool, typer.Option(help="Estimate time, memory and disk only; loads no large model.")
    ] = False,
    flops: Annotated[
        float | None, typer.Option(help="TFLOP/s of the device that a dry run is for.")
    ] = None,
    print_spec: Annotated[
        bool, typer.Option(help="Print a study file that says the same, and compute nothing.")
    ] = False,
    as_json: Json = False,
    **flags: Any,
) -> None:
    """Sweep a model over prompts and draw the layer heatmap; the same command again resumes."""
    fields = {
        **flags,
        "known": known,
        "columns": given.pairs_of(column),
        "relations": tuple(relation) if relation else None,
        "metrics": tuple(metric) if metric else None,
        "layers": given.layers_of(layers),
        **given.set_fields(more),
    }
    if row or source or window:
        windows = [int(one) if one.isdigit() else one for one in window or ["5"]]
        fields["interventions"] = rows_as_data(row or ROWS, source or ["noise"], windows)
    with printed(as_json) as said:
        if print_spec:
            from knockgrid.runs.study import as_yaml, read_spec

            return said.line(as_yaml(read_spec(study, fields)).rstrip("\n"))
        by = "treatment" if source and len(source) > 1 else None
        sweep_and_draw(said, study, fields, out, shard, engine, by, dry_run, flops)


def sweep_and_draw(
    said: Printer,
    study: Path | None,
    flags: dict[str, Any],
    out: Path,
    shard: str | None = None,
    engine: str = "single",
    by: str | None = "treatment",
    dry_run: bool = False,
    flops: float | None = None,
) -> None:
    """From a study and flags to a run with its figures; everything is checked before it begins."""
    from knockgrid.runs.study import read_spec

    spec = read_spec(study, flags)
    from knockgrid.reports.draw import draw
    from knockgrid.runs.estimate import estimate
    from knockgrid.runs.running import run
    from knockgrid.runs.split import part_of
    from knockgrid.table.left_out import left_out
    from knockgrid.table.table import metadata_of, metrics, with_layers

    part_of(shard)
    chosen = given.engine_of(engine, spec.device)
    if dry_run:
        found = estimate(spec, flops)
        said.add(**vars(found), memory=found.memory)
        return said.line(str(found))
    table = run(spec, out, shard=shard, engine=chosen)
    said.add(run=str(out), **counts(table))
    for line in left_out(table):
        said.note(line)
    if done := metadata_of(table).get("unfinished"):
        return said.line(f"{done['finished']} of {done['shards']} shards are there, others go on")
    said.wrote(out / "manifest.json")
    kinds: dict[str, str | None] = {"layer_heatmap": by, "layer_curve": by}
    if spans := bool(table["measured"].notna().any() and table["span"].notna().any()):
        kinds = {"span_heatmap": None}
    elif table["layer"].isna().all():
        return said.note("every row edits layers of its own, so there is no figure over layers")
    elif table["token"].nunique() > 1:
        kinds = {"token_heatmap": None}
    of: Any = table if spans else with_layers(table)
    shown = {"metric": metrics(table)[0]} if spans else {}
    for kind, panels in kinds.items():
        for path in draw(of, out, kind=kind, by=panels, **shown):
            said.wrote(path)


def counts(table: Any) -> dict[str, Any]:
    """What a script may ask of a run: how much there is, and whether that is all."""
    from knockgrid.table.table import metadata_of

    metadata = metadata_of(table)
    return {
        "finished": "unfinished" not in metadata,
        "rows": len(table),
        "prompts": int(table["prompt"].nunique()),
        "without_value": int((table["status"] != "ok").sum()),
        "dropped": {name: len(reasons) for name, reasons in metadata["dropped"].items()},
        "executor": metadata["receipt"]["executor"],
    }
