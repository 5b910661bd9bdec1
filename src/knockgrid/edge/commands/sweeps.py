"""Commands that compute a run: demo, sweep."""

from pathlib import Path
from typing import Annotated, Any

import typer

from knockgrid.edge.commands.given import DEMO_RELATIONS, Out, layers_of


def run(
    flags: dict[str, Any],
    config: Path | None,
    out: Path,
    dry_run: bool,
    by: str | None,
    shard: str | None = None,
) -> None:
    """Carry out a sweep from settings to figures; everything is checked before it begins."""
    from knockgrid.edge.config import read_config

    settings = read_config(config, flags)
    from knockgrid._table import metadata_of
    from knockgrid.edge.carry_out import carry_out
    from knockgrid.edge.choose import choose_prompts
    from knockgrid.edge.draw import draw
    from knockgrid.edge.plan import estimate, load_model

    if dry_run:
        model = load_model(settings)
        prompts = choose_prompts(settings, model).prompts
        typer.echo(str(estimate(model, settings, prompts)))
        return
    table = carry_out(settings, out, lambda: load_model(settings), shard=shard)
    written = [out / "manifest.json"]
    if "unfinished" in metadata_of(table):
        done = metadata_of(table)["unfinished"]
        typer.echo(f"{done['finished']} of {done['shards']} shards are there, others go on")
        return
    if settings.n_tokens == 1:
        for kind in ("heatmap", "curve"):
            written += draw(table, out, kind=kind, by=by)
    else:
        written += draw(table, out, kind="tokens", metric="kl", by=None)
    for path in written:
        typer.echo(str(path))


def demo(
    out: Out = Path("runs/demo"),
    limit: Annotated[int, typer.Option(help="At most this many known facts.")] = 120,
    dry_run: Annotated[bool, typer.Option(help="Print cells and an estimate only.")] = False,
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
    run(flags, None, out, dry_run, "treatment")


def sweep(
    model: Annotated[str | None, typer.Option(help="demo, a folder, or a hub name.")] = None,
    prompts: Annotated[
        str | None, typer.Option(help="JSONL, CSV or Parquet file, hf:name:split, or facts.")
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
    top: Annotated[
        int | None, typer.Option(help="Most probable tokens kept of every row, for the report.")
    ] = None,
    shard: Annotated[
        str | None, typer.Option(help="Carry out this part only: 2/8, or auto (SLURM, torchrun).")
    ] = None,
    dry_run: Annotated[bool, typer.Option(help="Print cells and an estimate only.")] = False,
) -> None:
    """Sweep a model over prompts and draw the layer heatmap; the same command again goes on."""
    flags = {
        "relations": tuple(relation) if relation else None,
        "rows": tuple(row) if row else None,
        "source": tuple(source) if source else None,
        "window": tuple(int(w) if w.isdigit() else w for w in window) if window else None,
        "layers": layers_of(layers),
    }
    same = (
        "model prompts known limit unknown labels label_form "
        "contrasts nulls noise_floor form noise act_name n_tokens mode unit samples "
        "direction executor dtype device device_map revision prepend_bos seed batch top"
    )
    given = locals()
    run(
        flags | {name: given[name] for name in same.split()},
        config,
        out,
        dry_run,
        "treatment" if source and len(source) > 1 else None,
        shard,
    )
