"""Commands that compute a run: demo, sweep."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from knockgrid.cli.given import DEMO_RELATIONS, Column, Out, columns_of, layers_of
from knockgrid.cli.printed import Json, Printer, printed
from knockgrid.errors import InputError, unknown
from knockgrid.runs.closed import ENGINES


def run(
    flags: dict[str, Any],
    config: Path | None,
    out: Path,
    dry_run: bool,
    by: str | None,
    shard: str | None = None,
    flops: float | None = None,
    engine: Any = "single",
    as_json: bool = False,
) -> None:
    """Carry out a sweep from settings to figures, and print what was written."""
    with printed(as_json) as said:
        carried(said, flags, config, out, dry_run, by, shard, flops, engine)


def carried(
    said: Printer,
    flags: dict[str, Any],
    config: Path | None,
    out: Path,
    dry_run: bool,
    by: str | None,
    shard: str | None,
    flops: float | None,
    engine: Any,
) -> None:
    """Carry out a sweep; everything is checked before it begins."""
    from knockgrid.runs.config import read_config

    settings = read_config(config, flags)
    from knockgrid.report.draw import draw
    from knockgrid.runs.carry_out import carry_out
    from knockgrid.runs.estimate import estimate
    from knockgrid.runs.plan import load_model
    from knockgrid.runs.split import local_device, part_of
    from knockgrid.table.left_out import left_out
    from knockgrid.table.table import metadata_of

    part_of(shard)
    if dry_run:
        found = estimate(settings, lambda: load_model(settings), flops)
        said.add(**vars(found), memory=found.memory)
        said.line(str(found))
        return
    engine = engine if isinstance(engine, str) else engine.on(settings.device)
    load = partial(load_model, settings, local_device(shard))
    table = carry_out(settings, out, load, shard=shard, engine=engine)
    written = [out / "manifest.json"]
    said.add(run=str(out), **counts(table))
    for line in left_out(table):
        said.note(line)
    if "unfinished" in metadata_of(table):
        done = metadata_of(table)["unfinished"]
        said.line(f"{done['finished']} of {done['shards']} shards are there, others go on")
        return
    if settings.n_tokens == 1:
        for kind in ("layer_heatmap", "layer_curve"):
            written += draw(table, out, kind=kind, by=by)
    else:
        written += draw(table, out, kind="token_heatmap")
    for path in written:
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


def demo(
    out: Out = Path("runs/demo"),
    limit: Annotated[int, typer.Option(help="At most this many known facts.")] = 120,
    dry_run: Annotated[bool, typer.Option(help="Print cells and an estimate only.")] = False,
    as_json: Json = False,
) -> None:
    """Sweep a small real model over facts it knows: noise and swap, windows 5 and 1."""
    flags = {
        "model": "demo",
        "relations": DEMO_RELATIONS,
        "known": True,
        "limit": limit,
        "source": ("noise", "swap"),
        "window": (5, 1),
    }
    run(flags, None, out, dry_run, "treatment", as_json=as_json)


def sweep(
    model: Annotated[str | None, typer.Option(help="demo, a folder, or a hub name.")] = None,
    prompts: Annotated[
        str | None,
        typer.Option(help="JSONL, JSON, CSV, TSV or Parquet file, hf:name:split, or facts."),
    ] = None,
    column: Column = None,
    template: Annotated[
        str | None, typer.Option(help="One for all prompts, {} or [X] for the subject.")
    ] = None,
    out: Out = Path("runs/sweep"),
    config: Annotated[Path | None, typer.Option(help="YAML or TOML file with settings.")] = None,
    relation: Annotated[list[str] | None, typer.Option(help="Keep these relations.")] = None,
    known: Annotated[
        bool | None, typer.Option("--known/--all", help="Only prompts answered right.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="At most this many prompts.")] = None,
    unknown: Annotated[
        int | None, typer.Option(help="And so many prompts that are answered wrong.")
    ] = None,
    labels: Annotated[
        bool | None, typer.Option("--labels", help="Group prompts by FA, AH and UH.")
    ] = None,
    label_form: Annotated[str | None, typer.Option(help="Label prompts in this form.")] = None,
    contrasts: Annotated[
        bool | None, typer.Option("--contrasts", help="Also sweep other tokens.")
    ] = None,
    nulls: Annotated[bool | None, typer.Option("--nulls", help="Also sweep nulls.")] = None,
    noise_floor: Annotated[bool | None, typer.Option("--floor/--no-floor")] = None,
    form: Annotated[str | None, typer.Option(help="plain, chat, or a text ending in {}.")] = None,
    row: Annotated[list[str] | None, typer.Option(help="subject, attention, last.")] = None,
    source: Annotated[
        list[str] | None, typer.Option(help="noise, noise:1, swap, zero, mean.")
    ] = None,
    noise: Annotated[float | None, typer.Option(help="Standard deviations of noise.")] = None,
    window: Annotated[list[str] | None, typer.Option(help="Attention window in layers.")] = None,
    act_name: Annotated[str | None, typer.Option(help="Patched activation.")] = None,
    layers: Annotated[str | None, typer.Option(help="all, or 0,4,10-12.")] = None,
    n_tokens: Annotated[int | None, typer.Option(help="Measured tokens.")] = None,
    mode: Annotated[str | None, typer.Option(help="prompt_only, persistent, free_run.")] = None,
    unit: Annotated[str | None, typer.Option(help="nats or bits.")] = None,
    samples: Annotated[int | None, typer.Option(help="Draws of a random source.")] = None,
    direction: Annotated[str | None, typer.Option(help="noise or denoise.")] = None,
    executor: Annotated[str | None, typer.Option(help="auto, staircase, reference.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16, float16, float64.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps.")] = None,
    device_map: Annotated[str | None, typer.Option(help="auto, balanced, ...")] = None,
    revision: Annotated[str | None, typer.Option(help="Revision on the hub.")] = None,
    prepend_bos: Annotated[bool | None, typer.Option("--bos/--no-bos")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all draws.")] = None,
    batch: Annotated[int | None, typer.Option(help="Prompts per shard, at most.")] = None,
    max_rows: Annotated[int | None, typer.Option(help="Rows of one pass, at most.")] = None,
    max_memory: Annotated[
        str | None, typer.Option(help="Beside the weights, at most: 4GB, 800MiB.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; by default one or all, as is faster.")
    ] = None,
    top: Annotated[
        int | None, typer.Option(help="Most probable tokens kept of every row, for the report.")
    ] = None,
    shard: Annotated[
        str | None, typer.Option(help="Carry out this part only: 2/8, or auto (SLURM, torchrun).")
    ] = None,
    engine: Annotated[str, typer.Option(help="single, or ray for actors on a cluster.")] = "single",
    workers: Annotated[int | None, typer.Option(help="Actors of the ray engine.")] = None,
    cpus: Annotated[int | None, typer.Option(help="CPUs, and so threads, of each actor.")] = None,
    gpus: Annotated[float | None, typer.Option(help="GPUs of each actor.")] = None,
    ray_address: Annotated[str | None, typer.Option(help="A Ray cluster, as host:port.")] = None,
    dry_run: Annotated[
        bool, typer.Option(help="Estimate time, memory and disk only; loads no large model.")
    ] = False,
    flops: Annotated[
        float | None, typer.Option(help="TFLOP/s of the device that a dry run is for.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Sweep a model over prompts and draw the layer heatmap; the same command again goes on."""
    flags = {
        "columns": columns_of(column),
        "relations": tuple(relation) if relation else None,
        "rows": tuple(row) if row else None,
        "source": tuple(source) if source else None,
        "window": tuple(int(w) if w.isdigit() else w for w in window) if window else None,
        "layers": layers_of(layers),
    }
    same = (
        "model prompts template known limit unknown labels label_form "
        "contrasts nulls noise_floor form noise act_name n_tokens mode unit samples "
        "direction executor dtype device device_map revision prepend_bos seed batch "
        "max_rows max_memory threads top"
    )
    given = locals()
    run(
        flags | {name: given[name] for name in same.split()},
        config,
        out,
        dry_run,
        "treatment" if source and len(source) > 1 else None,
        shard,
        flops,
        engine_of(engine, workers, cpus, gpus, ray_address),
        as_json=as_json,
    )


def engine_of(
    engine: str,
    workers: int | None,
    cpus: int | None,
    gpus: float | None,
    address: str | None,
) -> Any:
    """The engine that flags name, with its options."""
    options = {"workers": workers, "cpus": cpus, "gpus": gpus, "address": address}
    given = [name for name, value in options.items() if value is not None]
    if engine != "ray":
        if given:
            flags = ", ".join("--ray-address" if n == "address" else f"--{n}" for n in given)
            raise InputError(f"{flags} without --engine ray; give it, or leave them out")
        if engine not in ENGINES:
            raise unknown("engine", engine, ENGINES)
        return engine
    from knockgrid.runs.ray_engine import RayEngine

    return RayEngine(workers, cpus, gpus, address)
