"""What the shell offers as values: lists that are written down, so that no heavy import is needed.

A Tab must answer at once, and the places where these lists are decided import models or figures.
`tests/unit/test_terminal.py` holds each list against its place.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import get_args

from knockgrid.cli.reproduce import studies
from knockgrid.display.drawers import functions
from knockgrid.figures.figure import figure_names
from knockgrid.spec import ENGINES, FIELDS, METRICS, ROWS, allowed


def sources() -> Iterator[str]:
    """The drawer's sources that can be made without an argument."""
    for name, made in functions("sources").items():
        takes = made.args
        if len(takes.args) == len(takes.defaults) and None not in takes.kw_defaults:
            yield name


SETTABLE = {name: allowed(name) for name, one in FIELDS.items() if not one.metadata["flag"]}
VALUES: dict[str, tuple[str, ...]] = {
    "device": ("cpu", "cuda", "mps"),
    "engine": ENGINES,
    "form": ("plain", "chat"),
    "format": ("csv", "jsonl"),
    "kind": figure_names(),
    "layers": ("all",),
    "metric": METRICS,
    "model": ("demo",),
    "more": tuple(f"{name}={one}" for name, every in SETTABLE.items() for one in every),
    "row": ROWS,
    "source": ("noise:1", "noise:5", *sources()),
    "window": ("1", "5", "only", "all_but", "from", "up_to"),
    **{name: allowed(name) for name in FIELDS if allowed(name) and name not in SETTABLE},
}
RELATION = re.compile(r'"relation": ?"([^"]+)"')


def relations() -> tuple[str, ...]:
    """The relations of the bundled facts, in their order; the prompts themselves are not read."""
    text = files("knockgrid.prompts").joinpath("facts.jsonl").read_text("utf-8")
    return tuple(dict.fromkeys(RELATION.findall(text)))


def offered(name: str) -> Callable[[], tuple[str, ...]] | None:
    """What is offered for a parameter of this name, or None where any text may stand."""
    if name == "relation":
        return relations
    if name == "studies":
        return lambda: (*studies(), "all")
    return (lambda: VALUES[name]) if name in VALUES else None


def completed(command: Callable[..., None]) -> Callable[..., None]:
    """The command, with values offered for each parameter that has a closed list, by its name."""
    for name, parameter in inspect.signature(command).parameters.items():
        values = offered(name)
        for info in get_args(parameter.annotation)[1:]:
            if values is not None and getattr(info, "autocompletion", True) is None:
                info.autocompletion = values  # of which typer keeps those that fit what is typed
    return command
