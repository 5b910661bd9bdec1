"""Set-level statistics: numbers taken over the whole prompt set before anything else is done."""

from collections.abc import Iterable, Sequence
from itertools import product

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.edits.intervention import Intervention, Statistics
from knockgrid.host.bridge import d_vocab, hook_name
from knockgrid.passes.prepared import Prepared, batches, whole_ids
from knockgrid.passes.run import input_device, record, run_hooked
from knockgrid.prompts.positions import lacks, resolve


def embeddings(model: TransformerBridge, ids: Tensor) -> Tensor:
    """The embedding activations `[batch, pos, d_model]`, where noise would be added."""
    kept: list[Tensor] = []

    def save(activation: Tensor, hook: object) -> None:
        kept.append(activation.detach())

    with torch.no_grad():
        run_hooked(model, ids, [(hook_name(model, "embed"), save)], stop_at_layer=0)
    return kept[0]


def embedding_std(model: TransformerBridge, ready: Sequence[Prepared], scale_from: str) -> float:
    """What a noise level counts in: the deviation of the embeddings of subjects or vocabulary."""
    if scale_from != "vocabulary":
        parts = []
        for batch in batches(ready):
            acts = embeddings(model, whole_ids(model, batch))
            for i, one in enumerate(batch):
                parts.append(acts[i, list(resolve(one.prompt, one.tokens, "subject"))])
        return float(torch.cat(parts).double().std())
    count, total, squares = 0, 0.0, 0.0
    for ids in torch.arange(d_vocab(model)).split(4096):
        acts = embeddings(model, ids[None].to(input_device(model))).double()
        count += acts.numel()
        total += float(acts.sum())
        squares += float(acts.square().sum())
    return float(((squares - total**2 / count) / (count - 1)) ** 0.5)


def site_statistics(
    model: TransformerBridge,
    ready: Sequence[Prepared],
    interventions: Iterable[Intervention],
    layers: Sequence[int],
    at_most: int = 32,
) -> Statistics:
    """Mean and deviation at each site and place that a source asks for, over all tokens alike."""
    wanted = {
        (act_name, repr(at)): at
        for one in interventions
        if one.source is not None and one.source.needs_statistics
        for act_name, at in one.sites
    }
    sites = [(act_name, layer) for act_name, _ in wanted for layer in layers]
    sums: dict[tuple[str, int, str], tuple[Tensor, ...]] = {}
    for batch in batches(ready, at_most=at_most) if sites else ():
        ids = whole_ids(model, batch)
        seen = record(model, ids, measured=slice(-1, None), sites=sites, keep_kv=False)
        for ((act_name, name), at), layer in product(wanted.items(), layers):
            acts, key = seen.acts[act_name, layer], (act_name, layer, name)
            rows = [
                acts[i, list(resolve(one.prompt, one.tokens, at))].double()
                for i, one in enumerate(batch)
                if lacks(one.prompt, one.tokens, at) is None
            ]
            if rows:
                every = torch.cat(rows)
                new = (torch.tensor(float(len(every))), every.sum(0), every.square().sum())
                sums[key] = tuple(map(torch.add, sums[key], new)) if key in sums else new
    return {key: _finish(*parts) for key, parts in sums.items()}


def _finish(count: Tensor, total: Tensor, squares: Tensor) -> tuple[Tensor, Tensor]:
    mean = total / count
    n = count * total.numel()
    variance = (squares - total.sum() ** 2 / n) / (n - 1).clamp(min=1)
    return mean, variance.clamp(min=0).sqrt()
