"""What the passes behind several analyses share: checks before them, batches, and metadata."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.edits.intervention import Intervention, check_names
from knockgrid.edits.layers import layer_list
from knockgrid.engine.bind import Bound, bind
from knockgrid.engine.checks import check_edits, check_places
from knockgrid.engine.settings import Settings
from knockgrid.engine.setup import settings_of
from knockgrid.host.bridge import check_ready, describe, n_layers
from knockgrid.passes.prepared import Prepared, batches, default_bos, prepare
from knockgrid.prompts.prompt import Prompt
from knockgrid.spec import Spec


def checked(
    model: TransformerBridge,
    prompts: Sequence[Prompt] | Prompt,
    rows: Sequence[Intervention],
    layers: str | int | Sequence[int],
    prepend_bos: bool | None,
    n_tokens: int = 1,
    seed: int = 0,
) -> tuple[list[Prepared], Settings]:
    """Prompts and settings of passes over some rows, refused before anything is computed."""
    check_ready(model)
    check_names(rows)
    chosen = layer_list(layers, n_layers(model))
    check_edits(model, rows, chosen)
    bos = default_bos(model, prepend_bos)
    ready = prepare(model, [prompts] if isinstance(prompts, Prompt) else prompts, bos, n_tokens)
    check_places(ready, rows, n_tokens)
    return ready, settings_of(Spec(n_tokens=n_tokens, seed=seed, top=0), rows, chosen, bos)


def bound_batches(
    model: TransformerBridge,
    ready: Sequence[Prepared],
    settings: Settings,
    dropped: dict[str, dict[str, str]],
) -> Iterator[Bound]:
    """Batches with their cells; `dropped` takes, by intervention, prompts without a source."""
    number = {one.prompt.id: i for i, one in enumerate(ready)}
    for batch in batches(ready):
        bound = bind(model, batch, [number[one.prompt.id] for one in batch], settings)
        for (index, name), reason in bound.dropped.items():
            dropped.setdefault(name, {})[str(batch[index].prompt.id)] = reason
        yield bound


def about(model: TransformerBridge, settings: Settings) -> dict[str, Any]:
    """What a table says of the model and of its rows."""
    return {
        "unit": "nats",
        "seed": settings.seed,
        "prepend_bos": settings.prepend_bos,
        "layer_order": list(settings.layers),
        "intervention_order": [one.name for one in settings.interventions],
        "labels": {one.name: one.label for one in settings.interventions},
        "model": describe(model),
    }


def exact(activation: Tensor) -> Tensor:
    """An activation in float64, on the CPU, as some devices have none."""
    return activation.detach().to("cpu", torch.float64)
