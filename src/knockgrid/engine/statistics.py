"""Set-level statistics: numbers taken over the whole prompt set before anything else is done."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.edits.intervention import Intervention, Statistics
from knockgrid.host.bridge import d_vocab, hook_name
from knockgrid.passes.prepared import Prepared, batches, ids_of
from knockgrid.passes.run import input_device, record, run_hooked
from knockgrid.prompts.positions import At, lacks, resolve


def embeddings(model: TransformerBridge, ids: Tensor) -> Tensor:
    """The embedding activations `[batch, pos, d_model]`, where noise would be added."""
    kept: list[Tensor] = []

    def save(activation: Tensor, hook: object) -> None:
        kept.append(activation.detach())

    with torch.no_grad():
        run_hooked(model, ids, [(hook_name(model, "embed"), save)], stop_at_layer=0)
    return kept[0]


def _subject_std(model: TransformerBridge, ready: Sequence[Prepared]) -> float:
    parts = []
    for batch in batches(ready):
        acts = embeddings(model, ids_of(model, batch))
        for i, one in enumerate(batch):
            parts.append(acts[i, list(resolve(one.prompt, one.tokens, "subject"))])
    return float(torch.cat(parts).double().std())


def _vocabulary_std(model: TransformerBridge, chunk: int = 4096) -> float:
    count, total, squares = 0, 0.0, 0.0
    for ids in torch.arange(d_vocab(model)).split(chunk):
        acts = embeddings(model, ids[None].to(input_device(model))).double()
        count += acts.numel()
        total += float(acts.sum())
        squares += float(acts.square().sum())
    return float(((squares - total**2 / count) / (count - 1)) ** 0.5)


def embedding_std(model: TransformerBridge, ready: Sequence[Prepared], scale_from: str) -> float:
    """The standard deviation that a noise level counts in.

    It is that of the activation at the point where the noise is added, over all entries of the
    subject tokens of the prompt set, or of the whole vocabulary.
    """
    if scale_from == "vocabulary":
        return _vocabulary_std(model)
    return _subject_std(model, ready)


def _wanted(interventions: Iterable[Intervention]) -> list[tuple[str, At]]:
    wanted = [
        site
        for one in interventions
        if one.source is not None and one.source.needs_statistics
        for site in one.sites
    ]
    return list({(act_name, repr(at)): (act_name, at) for act_name, at in wanted}.values())


def site_statistics(
    model: TransformerBridge,
    ready: Sequence[Prepared],
    interventions: Iterable[Intervention],
    layers: Sequence[int],
    at_most: int = 32,
) -> Statistics:
    """Mean vector and standard deviation at each site and position name that a source asks for.

    All tokens of a place count equally, over all prompts. Sums are kept in float64. `at_most`
    prompts are recorded at once.
    """
    wanted = _wanted(interventions)
    if not wanted:
        return {}
    sites = [(act_name, layer) for act_name, _ in wanted for layer in layers]
    sums: dict[tuple[str, int, str], list[Tensor]] = {}
    for batch in batches(ready, at_most=at_most):
        ids = ids_of(model, batch)
        seen = record(model, ids, measured=slice(-1, None), sites=sites, keep_kv=False)
        for act_name, at in wanted:
            for layer in layers:
                acts = seen.acts[act_name, layer]
                rows = [
                    acts[i, list(resolve(one.prompt, one.tokens, at))]
                    for i, one in enumerate(batch)
                    if lacks(one.prompt, one.tokens, at) is None
                ]
                if rows:
                    _add(sums.setdefault((act_name, layer, repr(at)), []), torch.cat(rows).double())
    return {key: _finish(*parts) for key, parts in sums.items()}


def _add(parts: list[Tensor], rows: Tensor) -> None:
    new = [torch.tensor(float(rows.shape[0])), rows.sum(0), rows.square().sum()]
    parts[:] = [a + b for a, b in zip(parts, new, strict=True)] if parts else new


def _finish(count: Tensor, total: Tensor, squares: Tensor) -> tuple[Tensor, Tensor]:
    mean = total / count
    n = count * total.numel()
    variance = (squares - total.sum() ** 2 / n) / (n - 1).clamp(min=1)
    return mean, variance.clamp(min=0).sqrt()
