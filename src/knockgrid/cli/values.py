"""What the shell offers as values: lists that are written down, so that no heavy import is needed.

A Tab must answer at once, and the places where these lists are decided import models or figures.
`tests/unit/test_command_line.py` holds each list against its place.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import get_args

from knockgrid.cli.reproduce import studies
from knockgrid.runs.closed import CLOSED, ENGINES

KINDS = ("heatmap", "curve", "tokens", "positions", "modules", "heads", "doses")
METRICS = (
    *("js", "kl", "kl_reverse", "tv", "logp_clean", "rank_clean"),
    *("logp_answer", "rank_answer"),
)
VALUES: dict[str, tuple[str, ...]] = {
    "act_name": ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "z", "q", "k", "v"),
    "device": ("cpu", "cuda", "mps"),
    "device_map": ("auto", "balanced", "balanced_low_0", "sequential"),
    "engine": ENGINES,
    "form": ("plain", "chat"),
    "format": ("csv", "jsonl"),
    "kind": KINDS,
    "label_form": ("plain", "chat"),
    "layers": ("all",),
    "metric": METRICS,
    "model": ("demo",),
    "row": ("subject", "attention", "last"),
    "source": ("noise", "noise:1", "noise:5", "swap", "zero", "mean"),
    "window": ("1", "5", "only", "all_but", "from", "up_to"),
    **CLOSED,
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
    """The command, with values offered for each parameter that has a closed list.

    A new option takes part by its name: it needs a line in `VALUES`, and nothing where it is
    declared.
    """
    for name, parameter in inspect.signature(command).parameters.items():
        values = offered(name)
        for info in get_args(parameter.annotation)[1:]:
            if values is not None and getattr(info, "autocompletion", True) is None:
                info.autocompletion = completer(values)
    return command


def completer(values: Callable[[], tuple[str, ...]]) -> Callable[[str], Iterator[str]]:
    """What typer calls; of the values it keeps those that begin as the word at the cursor does."""

    def complete(incomplete: str) -> Iterator[str]:
        yield from values()

    return complete
