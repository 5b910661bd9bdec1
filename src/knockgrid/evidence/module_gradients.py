"""Gradients of the clean prediction with respect to what modules put out."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.errors import InputError
from knockgrid.host.bridge import hook_name
from knockgrid.passes.run import Hooks, Run, Site, keep_measured, run_hooked


def gradients(
    model: TransformerBridge, runs: Sequence[Run], sites: Sequence[Site]
) -> Mapping[Site, Tensor]:
    """By site, d log p(clean argmax after the prompt) / d activation, `[batch, pos, ...]`, in nats.

    The runs are equally long and hold prompts only. Derivatives are taken of activations, never of
    parameters: the model's own `requires_grad` is neither asked nor changed.
    """
    kept: dict[Site, Tensor] = {}
    hooks: Hooks = [(hook_name(model, "embed"), _rooted)]
    for site in sites:

        def keep(activation: Tensor, hook: Any, site: Site = site) -> Tensor:
            # The copy is what a patch would replace: only what is computed from it counts, and
            # later in-place arithmetic of the model does not reach what is kept here.
            kept[site] = activation.clone()
            return kept[site].clone()

        hooks.append((hook_name(model, *site), keep))
    hooks.append(("unembed.hook_in", keep_measured(slice(-1, None))))
    chosen = torch.stack([run.logits[0].argmax() for run in runs])
    with torch.enable_grad():
        logits = run_hooked(model, torch.stack([run.ids for run in runs]), hooks)[:, -1]
        logp = logits.to("cpu", torch.float64).log_softmax(-1)
        total = logp[torch.arange(len(runs)), chosen.cpu()].sum()  # rows are apart
        reached = [site for site in sites if site in kept and kept[site].requires_grad]
        acts = [kept[site] for site in reached] if total.requires_grad else []
        found = torch.autograd.grad(total, acts, allow_unused=True) if acts else ()
    grads = {site: g for site, g in zip(reached, found, strict=False) if g is not None}
    for act_name, layer in sites:
        if (act_name, layer) not in grads:
            raise InputError(
                f"no gradient reaches {act_name!r} at layer {layer} of {model.cfg.architecture}; "
                "leave that module out with modules=, or ask for statistics without gradients"
            )
    return grads


def _rooted(activation: Tensor, hook: Any) -> Tensor:
    """The embeddings as the root of the graph, so that frozen parameters make no difference."""
    return activation.detach().clone().requires_grad_()
