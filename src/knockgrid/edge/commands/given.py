"""What several commands are given."""

from pathlib import Path
from typing import Annotated, Any

import typer

from knockgrid._errors import InputError

Out = Annotated[Path, typer.Option(help="Run folder to write: manifest, shards, figures.")]
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
