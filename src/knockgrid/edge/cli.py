"""The command line. Heavy imports happen inside commands only, so that `--help` stays fast."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from knockgrid._errors import InputError

app = typer.Typer(
    name="knockgrid",
    help="Block what a language model knows at one place and layer; measure how far its output "
    "distribution moves.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Out = Annotated[Path, typer.Option(help="Run folder to write: table, manifest, figures.")]
Text = Annotated[str | None, typer.Option()]
DEMO_RELATIONS = (
    "country_capital_city",
    "capital_of_country",
    "country_language",
    "landmark_in_city",
    "us_city_state",
    "city_in_country",
    "us_state_capital",
    "company_country",
    "dish_cuisine",
    "person_nationality",
)


def run(
    flags: dict[str, Any], config: Path | None, out: Path, dry_run: bool, by: str | None
) -> None:
    """Carry out a sweep from settings to figures; everything is checked before it begins."""
    from knockgrid.edge.config import read_config

    settings = read_config(config, flags)
    from knockgrid.edge.carry_out import carry_out
    from knockgrid.edge.choose import choose_prompts
    from knockgrid.edge.draw import draw
    from knockgrid.edge.plan import estimate, load_model

    if dry_run:
        model = load_model(settings)
        prompts = choose_prompts(settings, model).prompts
        typer.echo(str(estimate(model, settings, prompts)))
        return
    table = carry_out(settings, out, lambda: load_model(settings))
    written = [out / "table.parquet", out / "manifest.json"]
    if settings.n_tokens == 1:
        for kind in ("heatmap", "curve"):
            written += draw(table, out, kind=kind, by=by)
    else:
        written += draw(table, out, kind="tokens", metric="kl", by=None)
    for path in written:
        typer.echo(str(path))


@app.command()
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


def _layers(given: str | None) -> Any:
    """`all`, or numbers and ranges: `0,4,10-12`."""
    if given is None or given == "all":
        return given
    found: list[int] = []
    for part in given.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            raise InputError(f"layers are {given!r}; write all, or numbers and ranges: 0,4,10-12")
        found += range(int(first), int(last or first) + 1)
    return tuple(found)


@app.command()
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
    dry_run: Annotated[bool, typer.Option(help="Print cells and an estimate only.")] = False,
) -> None:
    """Sweep a model over prompts and draw the layer heatmap."""
    flags = {
        "relations": tuple(relation) if relation else None,
        "rows": tuple(row) if row else None,
        "source": tuple(source) if source else None,
        "window": tuple(int(w) if w.isdigit() else w for w in window) if window else None,
        "layers": _layers(layers),
    }
    same = (
        "model prompts known limit unknown labels label_form "
        "contrasts nulls noise_floor form noise act_name n_tokens mode unit samples "
        "direction executor dtype device device_map revision prepend_bos seed"
    )
    given = locals()
    run(
        flags | {name: given[name] for name in same.split()},
        config,
        out,
        dry_run,
        "treatment" if source and len(source) > 1 else None,
    )


@app.command()
def figure(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    kind: Annotated[
        str, typer.Option(help="heatmap, curve, tokens, positions, modules, heads, doses.")
    ] = "heatmap",
    metric: Annotated[str, typer.Option(help="A number column of the table.")] = "js",
    by: Annotated[str | None, typer.Option(help="Panels by this column, or treatment.")] = None,
) -> None:
    """Draw a figure from a run folder, without the model."""
    from knockgrid.edge.draw import draw
    from knockgrid.edge.store import open_run

    for path in draw(open_run(run_folder), run_folder, kind=kind, metric=metric, by=by):
        typer.echo(str(path))


@app.command()
def reproduce(
    figures: Annotated[
        list[str], typer.Argument(help="f1 ... f5, heads, paths, positions, or all.")
    ],
    model: Annotated[str, typer.Option(help="demo, a folder, or a hub name.")] = "demo",
    out: Annotated[Path, typer.Option(help="Folder for tables and figures.")] = Path(
        "runs/reproduce"
    ),
    quick: Annotated[bool, typer.Option("--quick", help="Few prompts and layers.")] = False,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16, ...")] = None,
    device: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Make the tables of the published figures and draw them; tables on disk are drawn again."""
    from functools import cache

    from knockgrid.edge.config import read_config
    from knockgrid.edge.plan import load_model
    from knockgrid.edge.reproduce import chosen, recipe_of
    from knockgrid.edge.reproduce import reproduce as made

    config = read_config(None, {"model": model, "dtype": dtype, "device": device})
    settings = {"model": model, "dtype": config.dtype, "quick": quick}
    names = chosen(figures)
    for name in names:
        recipe_of(name)
    load = cache(lambda: load_model(config))
    for name in names:
        for path in made(name, load, settings, out):
            typer.echo(str(path))


@app.command()
def check(
    model: Annotated[str, typer.Argument(help="demo, a folder, or a hub name.")],
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16, ...")] = None,
    device: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Try every kind of edit on a model, and print which executor may be trusted with it."""
    from knockgrid.edge.config import read_config
    from knockgrid.edge.report_check import checked

    settings = read_config(None, {"model": model, "dtype": dtype, "device": device})
    for line in checked(settings):
        typer.echo(line)


@app.command()
def evidence(
    model: Annotated[str, typer.Option(help="demo, a folder, or a hub name.")] = "demo",
    prompts: Annotated[str, typer.Option(help="As for sweep.")] = "facts",
    out: Annotated[Path, typer.Option(help="Folder for the runs and figures.")] = Path(
        "runs/evidence"
    ),
    relation: Annotated[list[str] | None, typer.Option(help="Keep these relations.")] = None,
    limit: Annotated[int, typer.Option(help="Known prompts.")] = 100,
    unknown: Annotated[int, typer.Option(help="Prompts that are answered wrong.")] = 100,
    layers: Annotated[str | None, typer.Option(help="all, or 0,4,10-12.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16, ...")] = None,
    device: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Labels, contrasts, nulls, bands, noise floor and the claims card, from one command."""
    from knockgrid.edge.config import read_config

    relations = tuple(relation) if relation else DEMO_RELATIONS if prompts == "facts" else None
    same = {"model": model, "prompts": prompts, "limit": limit, "unknown": unknown}
    more = {"relations": relations, "layers": _layers(layers), "dtype": dtype, "device": device}
    settings = read_config(None, {**same, **more})
    from knockgrid.edge.evidence import evidence as made
    from knockgrid.edge.plan import load_model

    for path in made(settings, out, lambda: load_model(settings)):
        typer.echo(str(path))


@app.command()
def verify(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    cells: Annotated[int, typer.Option(help="So many cells are computed anew.")] = 20,
    seed: Annotated[int, typer.Option(help="Of the draw of cells.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check a run's digests, and some of its cells with the reference executor."""
    from knockgrid.edge import verify as room

    found = room.verify(run_folder, cells=cells, seed=seed)
    for line in [room.as_json(found)] if as_json else room.report(found):
        typer.echo(line)
    if not found.ok:
        raise typer.Exit(1)


@app.command()
def methods(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
) -> None:
    """Print the methods paragraph of a run, and the BibTeX of what it used."""
    from knockgrid.edge.methods import methods as written

    typer.echo(written(run_folder), nl=False)


@app.command()
def facts(
    relation: Annotated[list[str] | None, typer.Option(help="Only these relations.")] = None,
    as_jsonl: Annotated[bool, typer.Option("--jsonl", help="Print the prompts.")] = False,
) -> None:
    """List the bundled facts by relation, or print them as a prompt file."""
    import json
    from collections import Counter

    from knockgrid.datasets import facts as bundled

    found = bundled(relation)
    if as_jsonl:
        for p in found:
            row = {"id": p.id, "text": p.text, "spans": p.spans, "answers": p.answers}
            swap = None if p.swap is None else p.swap.id
            typer.echo(
                json.dumps({**row, "relation": p.relation, "swap": swap}, ensure_ascii=False)
            )
        return
    for name, count in Counter(str(p.relation) for p in found).items():
        example = next(p for p in found if p.relation == name)
        typer.echo(f"{count:5}  {name:24}  {example.text} {example.answers[0]}")
    typer.echo(f"{len(found):5}  in all")


def main() -> None:
    """The entry point: bad input is one line on standard error and exit code 2."""
    try:
        app()
    except InputError as error:
        print(f"knockgrid: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
