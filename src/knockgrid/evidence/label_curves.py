"""Companion curves: one number per prompt and layer, in a table with a row per label."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.edits.layers import layer_list
from knockgrid.engine.setup import versions
from knockgrid.errors import InputError
from knockgrid.evidence.labels import LABELS, check_labelled
from knockgrid.host.bridge import check_ready, describe, load, n_layers
from knockgrid.passes.prepared import Prepared, batches, default_bos, ids_of, prepare
from knockgrid.passes.run import Site, record
from knockgrid.prompts.positions import resolve
from knockgrid.prompts.prompt import Prompt
from knockgrid.table.table import build, metadata_of

Acts = dict[Site, Tensor]
Measure = Callable[[TransformerBridge, Acts, int, int, Sequence[int]], float]
"""From a batch's activations, its row, a layer and the subject's tokens to one number."""


def labelled_prompts(prompts: Sequence[Prompt], frame: pd.DataFrame) -> list[tuple[Prompt, str]]:
    """The prompts that have a label, with it.

    Raises:
        InputError: a frame without labels, or one of other prompts.
    """
    check_labelled(frame)
    given = dict(zip(frame["prompt"].astype(str), frame["label"], strict=True))
    kept = [(p, str(given[str(p.id)])) for p in prompts if pd.notna(given.get(str(p.id), pd.NA))]
    if not kept:
        raise InputError("none of the prompts has a label; give those that were labelled")
    return kept


def curves(
    model: str | Path | TransformerBridge,
    prompts: Sequence[Prompt],
    frame: pd.DataFrame,
    name: str,
    told: str,
    sites: Sequence[str],
    measure: Measure,
    layers: str | int | Sequence[int],
    prepend_bos: bool | None,
) -> pd.DataFrame:
    """The table of a companion curve: column `name`, one row per prompt and layer, by label."""
    model = load(model)
    check_ready(model)
    label = {str(p.id): label for p, label in labelled_prompts(prompts, frame)}
    chosen = layer_list(layers, n_layers(model))
    bos = default_bos(model, prepend_bos)
    ready = prepare(model, prompts, bos, 1)
    for one in ready:  # every place is found before anything is computed
        resolve(one.prompt, one.tokens, "subject")
    kept = [one for one in ready if str(one.prompt.id) in label]
    found: dict[tuple[str, int], float] = {}
    for batch, acts in recorded(model, kept, [(site, at) for site in sites for at in chosen]):
        for i, one in enumerate(batch):
            pos = resolve(one.prompt, one.tokens, "subject")
            for layer in chosen:
                found[str(one.prompt.id), layer] = measure(model, acts, i, layer, pos)
    rows = [
        row(str(one.prompt.id), label[str(one.prompt.id)], layer, name, value)
        for one in kept
        for layer in chosen
        for value in [found[str(one.prompt.id), layer]]
    ]
    return table_of(model, rows, name, told, frame, list(label.values()), chosen, bos, ready)


def recorded(
    model: TransformerBridge, ready: Sequence[Prepared], sites: Sequence[Site]
) -> Iterator[tuple[list[Prepared], Acts]]:
    """Batches of prompts with the activations of one clean pass."""
    for batch in batches(ready):
        kept = record(
            model, ids_of(model, batch), measured=slice(-1, None), sites=sites, keep_kv=False
        )
        yield batch, dict(kept.acts)


def row(prompt: str, label: str, layer: int, name: str, value: float, status: str = "ok") -> dict:
    """One row; its label is the line of a figure (`intervention`) and its panel (`group`)."""
    place = {"prompt": prompt, "group": label, "intervention": label, "layer": layer}
    return {**place, "layers": str(layer), name: value, "status": status}


def table_of(
    model: TransformerBridge,
    rows: Sequence[dict],
    name: str,
    told: str,
    frame: pd.DataFrame,
    given: Sequence[str],
    layers: Sequence[int],
    bos: bool,
    ready: Sequence[Prepared],
) -> pd.DataFrame:
    """The rows as a table whose lines say how many prompts they stand for."""
    counts = {label: given.count(label) for label in LABELS if label in given}
    named = set(frame.loc[frame["label"].notna(), "prompt"].astype(str))
    metadata = {
        "statistics": {name: told},
        "layer_order": list(layers),
        "intervention_order": list(counts),
        "group_order": list(counts),
        "labels": {label: f"{label} (n = {count})" for label, count in counts.items()},
        "counts": counts,
        "unlabelled": [str(one.prompt.id) for one in ready if str(one.prompt.id) not in named],
        "threshold": metadata_of(frame).get("threshold"),
        "prepend_bos": bos,
        "model": describe(model),
        "versions": versions(),
    }
    return build(rows, metadata)


def exact(activation: Tensor) -> Tensor:
    """An activation in float64 on the CPU."""
    return activation.detach().to("cpu", torch.float64)
