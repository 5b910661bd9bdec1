"""Commands that look at what there is: check a model, list the facts."""

from typing import Annotated

import typer


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
