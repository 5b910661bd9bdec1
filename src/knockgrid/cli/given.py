"""What several commands are given."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from knockgrid.errors import InputError, shown

Out = Annotated[Path, typer.Option(help="Run folder to write: manifest, shards, figures.")]
Column = Annotated[
    list[str] | None, typer.Option(help="What a column of the file is: attribute=answers.")
]
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


def columns_of(given: Sequence[str] | None) -> dict[str, str] | None:
    """What columns of a prompt file are: `attribute=answers`, once for each."""
    found: dict[str, str] = {}
    for one in given or ():
        column, sign, field = one.rpartition("=")
        if not (sign and column and field):
            raise InputError(
                f"--column is {shown(one)}; write a column and its field: attribute=answers"
            )
        if column in found:
            raise InputError(f"--column {shown(column)} is given twice; give it once")
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
