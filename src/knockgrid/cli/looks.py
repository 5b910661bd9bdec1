"""Commands that look at what there is: check a model, list the facts, see to the installation."""

from typing import TYPE_CHECKING, Annotated

import typer

from knockgrid.cli.printed import Json, Printer, printed
from knockgrid.display.terminal import coloured, hung

if TYPE_CHECKING:
    from knockgrid.cli.self_test import Check


def check(
    model: Annotated[str, typer.Argument(help="demo, a folder, or a hub name.")],
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16, ...")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps.")] = None,
    as_json: Json = False,
) -> None:
    """Try every kind of edit on a model, and print which executor may be trusted with it."""
    from knockgrid.cli.check_model import checked, kinds
    from knockgrid.runs.job import load_model
    from knockgrid.runs.study import read_spec

    spec = read_spec(None, {"model": model, "dtype": dtype, "device": device})
    with printed(as_json) as said:
        bridge = load_model(spec)
        about = {"model": str(bridge.cfg.model_name), "n_layers": int(bridge.cfg.n_layers)}
        architecture = str(bridge.cfg.architecture)
        said.add(**about, architecture=architecture, kinds=[])
        said.line(f"{about['model']}: {architecture}, {about['n_layers']} layers")
        column, slow = max(len(one.kind) for one in kinds()), list[str]()
        for one in checked(bridge):
            said.document["kinds"].append(vars(one))
            if one.refused is None:
                word, style = str(one.executor), "bad" if one.slow else "good"
                text = f"{word:10}  JS within {one.max_difference:.0e} of the reference"
            else:
                word, style, text = "refused", "bad", f"refused: {one.refused}"
            said.line(coloured(hung(f"  {one.kind:{column}}  ", text), word, style))
            if one.slow is not None and one.slow not in slow:
                slow.append(one.slow)
        for reason in slow:
            said.line(coloured(hung("failed  ", reason), "failed", "bad"))
    if slow:
        raise typer.Exit(1)


def facts(
    relation: Annotated[list[str] | None, typer.Option(help="Only these relations.")] = None,
    as_jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Print the prompts, one object a line.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List the bundled facts by relation, or print them as a prompt file."""
    from knockgrid.errors import InputError
    from knockgrid.prompts import facts as bundled

    if as_json and as_jsonl:
        raise InputError("--json and --jsonl are both given; one lists relations, one prints facts")
    found = bundled(relation)
    with printed(as_json) as said:
        (print_prompts if as_jsonl else list_relations)(said, found)


def print_prompts(said: Printer, found: list) -> None:
    """Prompts as lines of a prompt file."""
    import json

    for p in found:
        row = {"id": p.id, "text": p.text, "spans": p.spans, "answers": p.answers}
        swap = None if p.swap is None else p.swap.id
        said.line(json.dumps({**row, "relation": p.relation, "swap": swap}, ensure_ascii=False))


def list_relations(said: Printer, found: list) -> None:
    """Relations with their number of prompts and the first of them."""
    from collections import Counter

    counts = Counter(str(p.relation) for p in found)
    first = {str(p.relation): p for p in reversed(found)}
    column = max(map(len, counts), default=0)
    listed = []
    for name, count in counts.items():
        example = f"{first[name].text} {first[name].answers[0]}"
        listed.append({"relation": name, "facts": count, "example": example})
        said.line(hung(f"{count:5}  {name:{column}}  ", example))
    said.add(facts=len(found), relations=listed)
    said.line(f"{len(found):5}  in all")


def doctor(as_json: Json = False) -> None:
    """Look at the installation, test it in a few seconds, and print a block for an issue."""
    from knockgrid.cli.doctor import examine

    with printed(as_json) as said:
        found = examine(lambda one: said.line(said_of(one)))
        said.add(**found.document())
        said.line("\nTo paste into an issue:\n")
        said.line(found.markdown())
    if not found.ok:
        raise typer.Exit(1)


def said_of(one: "Check") -> str:
    """A check as a line."""
    word, style = ("ok", "good") if one.ok else ("failed", "bad")
    said = one.name if one.ok else f"{one.name}: {one.advice}"
    return coloured(hung(f"{word:6}  ", said), word, style)
