"""Commands that look at what there is: check a model, list the facts, see to the installation."""

import json
from collections import Counter
from typing import TYPE_CHECKING, Annotated

import typer

from knockgrid.cli.given import Device, Dtype
from knockgrid.cli.printed import Json, Printer, printed
from knockgrid.display.terminal import coloured, hung

if TYPE_CHECKING:
    from knockgrid.cli.self_test import Check


def check(
    model: Annotated[str, typer.Argument(help="demo, a folder, or a hub name.")],
    dtype: Dtype = None,
    device: Device = None,
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
        if not as_jsonl:
            return list_relations(said, found)
        for p in found:
            row = {"id": p.id, "text": p.text, "spans": p.spans, "answers": p.answers}
            row |= {"relation": p.relation, "swap": None if p.swap is None else p.swap.id}
            said.line(json.dumps(row, ensure_ascii=False))


def list_relations(said: Printer, found: list) -> None:
    """Relations with their number of prompts and the first of them."""
    counts = Counter(str(p.relation) for p in found)
    first = {str(p.relation): p for p in reversed(found)}
    column = max(map(len, counts), default=0)
    said.add(facts=len(found), relations=[])
    for name, count in counts.items():
        example = f"{first[name].text} {first[name].answers[0]}"
        one = {"relation": name, "facts": count, "example": example}
        said.document["relations"].append(one)
        said.line(hung(f"{count:5}  {name:{column}}  ", example))
    said.line(f"{len(found):5}  in all")


def doctor(as_json: Json = False) -> None:
    """Look at the installation, test it in a few seconds, and print a block for an issue."""
    from knockgrid.cli.doctor import examine

    def show(one: "Check") -> None:
        word, style = ("ok", "good") if one.ok else ("failed", "bad")
        text = one.name if one.ok else f"{one.name}: {one.advice}"
        said.line(coloured(hung(f"{word:6}  ", text), word, style))

    with printed(as_json) as said:
        found = examine(show)
        said.add(**found.document())
        said.line("\nTo paste into an issue:\n")
        said.line(found.markdown())
    if not found.ok:
        raise typer.Exit(1)
