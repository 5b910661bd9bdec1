"""Some cells of a run once more, one full pass each, from its manifest and table."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from transformer_lens.model_bridge import TransformerBridge

from knockgrid.divergences.divergence import Divergence
from knockgrid.edits.intervention import Intervention
from knockgrid.engine.bind import bind
from knockgrid.engine.collect import finished, meter_of
from knockgrid.engine.executors import reference
from knockgrid.engine.executors.free_run import FreeRun
from knockgrid.engine.measure import Row
from knockgrid.engine.setup import Checked, check
from knockgrid.prompts.data import prompt_from_data
from knockgrid.spec import Spec

Wanted = tuple[str, int]  # intervention and layer
SAME = ("n_tokens", "mode", "unit", "samples", "direction", "prepend_bos", "seed")


def set_up_anew(
    model: TransformerBridge,
    metadata: Mapping[str, Any],
    interventions: Sequence[Intervention],
    layers: Sequence[int],
    known: Sequence[Any] = (),
) -> Checked:
    """The sweep behind a table, with its set-level statistics computed anew over all prompts.

    `layers` are those that will be asked for; means are recorded at no others.
    """
    prompts = [prompt_from_data(side) for side in metadata["prompts"]]
    own = {one.name: one for one in known if isinstance(one, Divergence)}
    measures = [own.get(name, name) for name in metadata["metrics"]]
    same = {name: metadata[name] for name in SAME}
    spec = Spec(layers=list(layers), metrics=measures, **same)
    return check(model, prompts, interventions, spec)


def rows_anew(sweep: Checked, prompt: str, wanted: Sequence[Wanted]) -> Iterator[Row]:
    """The rows of some cells of one prompt, one full pass each; free runs without a cache."""
    number = [one.prompt.id for one in sweep.ready].index(prompt)
    names = {name for name, _ in wanted}
    some = replace(
        sweep.settings,
        interventions=[one for one in sweep.settings.interventions if one.name in names],
        layers=list(dict.fromkeys(layer for _, layer in wanted)),
    )
    bound = bind(sweep.model, [sweep.ready[number]], [number], some)
    cells = [c for c in bound.cells if (c.intervention.name, c.layer) in wanted]
    bound = replace(bound, cells=cells)
    meter = meter_of(sweep.model, bound, sweep.measures, sweep.spec.unit, some)
    executor = FreeRun(cached=False) if sweep.spec.mode == "free_run" else reference
    for _, rows in finished(sweep.model, bound, meter, executor, 8):
        yield from rows
