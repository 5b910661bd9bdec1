"""A sweep in memory: the model loaded, all batches collected, one table made of them."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from torch.nn import Module
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.display.progress import bar
from knockgrid.edits.intervention import Intervention
from knockgrid.engine.collect import Collected, collect
from knockgrid.engine.setup import set_up
from knockgrid.errors import InputError
from knockgrid.host.bridge import load
from knockgrid.passes.exclusive import exclusive
from knockgrid.prompts.prompt import Prompt
from knockgrid.spec import Spec
from knockgrid.table.left_out import warn_left_out
from knockgrid.table.metadata import exact_counts
from knockgrid.table.table import build


def sweep_in_memory(
    model: Any,
    prompts: Sequence[Prompt] | Prompt,
    interventions: Sequence[Intervention] | Intervention,
    *,
    progress: bool = True,
    **options: Any,
) -> pd.DataFrame:
    """The table of a sweep that writes nothing; `options` are fields of `Spec`."""
    bridge, spec = loaded(model), Spec(**{**options, "top": 0})
    with exclusive(bridge, "sweep"):
        setup, found = set_up(bridge, prompts, interventions, spec), Collected()
        place = {one.prompt.id: i for i, one in enumerate(setup.ready)}
        with bar(len(place) * setup.n_cells, " cells", "sweep", progress) as done:
            for batch in setup.batches():
                found += collect(setup, batch, [place[one.prompt.id] for one in batch], done.update)
        rows = found.in_order()
        reasons = [reason for some in found.dropped.values() for reason in some.values()]
        if not rows and reasons:
            raise InputError(f"no row has a usable prompt: {reasons[0]}")
        sides = sorted(found.sides, key=lambda side: place[side["id"]])
        exact = exact_counts(side["exact_from"] for side in sides)
        more = {**setup.metadata(), **(exact if setup.settings.at_exact else {})}
        known = {**more, "dropped": found.dropped, "prompts": sides}
        return warn_left_out(build(rows, known, setup.columns))


def loaded(model: Any, **options: Any) -> TransformerBridge:
    """The model itself, or the one that a name, a folder or a function stands for."""
    made = callable(model) and not isinstance(model, Module)
    given: Any = model() if made else model
    return load(given, **({} if made else options))
