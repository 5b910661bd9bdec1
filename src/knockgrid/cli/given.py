"""What several commands are given."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from knockgrid.errors import InputError, shown, unknown
from knockgrid.spec import ENGINES

Model = Annotated[str, typer.Option(help="demo, a folder, or a hub name.")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16, ...")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
Relation = Annotated[list[str] | None, typer.Option(help="Keep these relations.")]
Column = Annotated[
    list[str] | None, typer.Option(help="What a column of the file is: attribute=answers.")
]
DEMO_RELATIONS = (
    *("country_capital_city", "capital_of_country", "country_language", "landmark_in_city"),
    *("us_city_state", "city_in_country", "us_state_capital", "company_country"),
    *("dish_cuisine", "person_nationality"),
)


def pairs_of(given: Sequence[str] | None, flag: str = "--column") -> dict[str, str] | None:
    """`NAME=VALUE` pairs, each name once: `attribute=answers`."""
    found: dict[str, str] = {}
    for one in given or ():
        column, sign, field = one.rpartition("=") if flag == "--column" else one.partition("=")
        if not (sign and column and field):
            example = "attribute=answers" if flag == "--column" else "samples=5"
            raise InputError(f"{flag} is {shown(one)}; write a name and its value: {example}")
        if column in found:
            raise InputError(f"{flag} {shown(column)} is given twice; give it once")
        found[column] = field
    return found or None


def layers_of(given: str | None) -> Any:
    """`all`, or numbers and ranges: `0,4,10-12`."""
    if given is None or given == "all":
        return given
    found: list[int] = []
    for part in given.split(","):
        first, dash, last = part.strip().partition("-")
        ends = (first, last) if dash else (first, first)
        if not all(one.isdecimal() for one in ends) or int(ends[0]) > int(ends[1]):
            raise InputError(f"layers are {given!r}; write all, or numbers and ranges: 0,4,10-12")
        found += range(int(ends[0]), int(ends[1]) + 1)
    return tuple(found)


def set_fields(given: Sequence[str] | None) -> dict[str, Any]:
    """Fields of a `Spec` as `--set` gives them, each value as YAML reads it."""
    from knockgrid.runs.plain_yaml import plain_yaml

    return {name: plain_yaml(text) for name, text in (pairs_of(given, "--set") or {}).items()}


def engine_of(given: str, device: str | None) -> Any:
    """The engine that a text names, with its options: `ray:workers=4,gpus=0.5`."""
    name, _, options = given.partition(":")
    if name not in ENGINES:
        raise unknown("engine", name, ENGINES)
    if name == "single":
        if options:
            raise InputError(f"engine is {shown(given)}; only ray takes options")
        return name
    from knockgrid.runs.ray_engine import RayEngine

    kinds = {"workers": int, "cpus": int, "gpus": float, "address": str}
    found: dict[str, Any] = {}
    for one in filter(None, options.split(",")):
        option, _, value = one.partition("=")
        if option not in kinds:
            raise unknown("engine option", option, kinds)
        try:
            found[option] = kinds[option](value)
        except ValueError:
            raise InputError(f"engine option {option} is {shown(value)}; give a number") from None
    return RayEngine(**found).on(device)
