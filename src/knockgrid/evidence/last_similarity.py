"""last_similarity: how alike the last tokens' states are within a label."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.edits.layers import layer_list
from knockgrid.evidence.label_curves import exact, labelled_prompts, recorded, row, table_of
from knockgrid.host.bridge import check_ready, load, n_layers
from knockgrid.host.hooks import act_name_of
from knockgrid.passes.prepared import default_bos, prepare
from knockgrid.prompts.prompt import Prompt

ALONE = "NA: the only prompt of its label has nothing to be compared with"


def last_similarity(
    model: str | Path | TransformerBridge,
    prompts: Sequence[Prompt],
    frame: pd.DataFrame,
    *,
    layers: str | int | Sequence[int] = "all",
    act_name: str = "resid_post",
    prepend_bos: bool | None = None,
) -> pd.DataFrame:
    """The mean cosine similarity of each prompt's last-token state to the others of its label.

    Example:
        >>> import knockgrid as kg
        >>> prompts = kg.facts("us_state_capital")[:4]
        >>> frame = kg.evidence.labels(kg.evidence.reliance("demo", prompts, progress=False), 0.42)
        >>> table = kg.evidence.last_similarity("demo", prompts, frame, layers=[0, 29])
        >>> bool(table.last_similarity.dropna().between(-1, 1).all())
        True

    The mean over the prompts of a label is the mean over its pairs. A prompt alone under its label
    is NA. `frame` comes from `labels`; rows are as in `subject_norm`.

    Raises:
        InputError: a frame without labels.

    Source: Cheang et al. 2025 (arXiv 2510.09033).

    Limits: a label that is mostly one relation has similar prompts for that reason alone. Pairs
    share prompts, so a bootstrap band over prompts is too narrow.
    """
    model, act_name = load(model), act_name_of(act_name)
    check_ready(model)
    label = {str(p.id): label for p, label in labelled_prompts(prompts, frame)}
    chosen = layer_list(layers, n_layers(model))
    bos = default_bos(model, prepend_bos)
    ready = prepare(model, prompts, bos, 1)
    kept = [one for one in ready if str(one.prompt.id) in label]
    states = {
        (str(one.prompt.id), layer): exact(acts[act_name, layer][i, -1]).flatten()
        for batch, acts in recorded(model, kept, [(act_name, layer) for layer in chosen])
        for i, one in enumerate(batch)
        for layer in chosen
    }
    found: dict[tuple[str, int], float] = {}
    for name in dict.fromkeys(label.values()):
        members = [prompt for prompt, own in label.items() if own == name]
        for layer in chosen:
            found.update(
                ((prompt, layer), value)
                for prompt, value in zip(
                    members,
                    similarity_to_others(torch.stack([states[p, layer] for p in members])),
                    strict=True,
                )
            )
    rows = [
        row(prompt, name, layer, "last_similarity", value, "ok" if value == value else ALONE)
        for prompt, name in label.items()
        for layer in chosen
        for value in [found[prompt, layer]]
    ]
    told = "cosine similarity within label"
    given = list(label.values())
    return table_of(model, rows, "last_similarity", told, frame, given, chosen, bos, ready)


def similarity_to_others(states: torch.Tensor) -> list[float]:
    """The mean cosine of each row of `[prompt, d]` to all other rows; NaN for a single one.

    Example:
        >>> similarity_to_others(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]))
        [0.5, 0.5, 0.0]
    """
    if len(states) < 2:
        return [float("nan")] * len(states)
    unit = states / states.norm(dim=1, keepdim=True)
    cosines = unit @ unit.T
    return ((cosines.sum(1) - cosines.diagonal()) / (len(states) - 1)).tolist()
