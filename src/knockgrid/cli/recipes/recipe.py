"""Recipe: how the tables of a figure are made, and how the figure is drawn from them alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.engine.answers import known
from knockgrid.errors import InputError
from knockgrid.prompts import facts
from knockgrid.prompts.prompt import Prompt

Tables = Mapping[str, pd.DataFrame]
RELATIONS = ("country_capital_city", "country_language", "landmark_in_city", "us_city_state")


@dataclass(frozen=True)
class Recipe:
    """One figure: `make` computes its tables, `draw` gives its pictures by file name."""

    title: str
    make: Callable[[TransformerBridge, bool], Tables]
    draw: Callable[[Tables], Mapping[str, Axes | Figure]]
    extra: str | None = None
    """The extra of the package that it needs."""


def known_facts(
    model: TransformerBridge, limit: int, relations: tuple[str, ...] = RELATIONS
) -> list[Prompt]:
    """So many facts that the model knows, from every relation alike.

    Raises:
        InputError: it knows none.
    """
    share = -(-limit // len(relations))
    found: list[Prompt] = []
    for relation in relations:
        some = facts(relation, tokenizer=model.tokenizer)[: 4 * share]
        found += list(known(model, some))[:share]
    if not found:
        raise InputError("the model knows none of the bundled facts, so there is nothing to block")
    return found[:limit]


def every(n: int, step: int) -> list[int]:
    """Every so many layers, the last one included."""
    return sorted({*range(0, n, step), n - 1})


def depth(model: TransformerBridge) -> int:
    """The number of layers."""
    return int(model.cfg.n_layers)
