"""subject_attention: what attention brings from the subject to the last token."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch
from einops import einsum, rearrange, repeat
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.errors import InputError
from knockgrid.evidence.label_curves import Acts, curve
from knockgrid.host.bridge import load
from knockgrid.prompts.prompt import Prompt


def subject_attention(
    model: str | Path | TransformerBridge,
    prompts: Sequence[Prompt],
    frame: pd.DataFrame,
    *,
    layers: str | int | Sequence[int] = "all",
    prepend_bos: bool | None = None,
) -> pd.DataFrame:
    """The norm of what the last token receives from the subject's tokens through attention.

    Example:
        >>> import knockgrid as kg
        >>> prompts = kg.facts("us_state_capital")[:4]
        >>> frame = kg.evidence.labels(kg.evidence.reliance("demo", prompts, progress=False), 0.42)
        >>> table = kg.evidence.subject_attention("demo", prompts, frame, layers=[0, 29])
        >>> bool((table.subject_attention > 0).all()), len(table)
        (True, 8)

    Per prompt and layer ‖Σ_k Σ_h A_h[last, s_k] v_h(s_k) W_O‖ (activation units), over the
    subject's tokens s_k and the query heads h. Weights A (after the softmax) and values v (after
    the norm before W_V, with their bias) are the model's own; a value head serves all query heads
    of its group; the output bias is left out. Rows and `frame` are as in `subject_norm`.

    Raises:
        InputError: a frame without labels, a prompt without a subject, or a layer whose attention
            is not a weighted sum of values (another mechanism, or a gate behind it).

    Source: Cheang et al. 2025 (arXiv 2510.09033); the decomposition is that of Kobayashi et al.
    2020 (arXiv 2004.10102).

    Limit: the norm says how much is brought, not whether it is used; for that, `knockout`.
    """
    bridge = load(model)

    def norm(acts: Acts, layer: int, pos: Sequence[int]) -> Tensor:
        return contribution(bridge, acts, layer, pos).double().norm()

    told = {"subject_attention": "attention from subject (L2 norm)"}
    return curve(bridge, prompts, frame, layers, prepend_bos, told, ["pattern", "v", "z"], norm)


def contribution(model: TransformerBridge, acts: Acts, layer: int, keys: Sequence[int]) -> Tensor:
    """What the last token receives from some keys, `[d_model]`, from one prompt's activations."""
    pattern = acts["pattern", layer][:, -1]  # [head, key]
    z = rearrange(acts["z", layer][-1], "... -> (...)")  # with or without an axis of heads
    n_heads = pattern.shape[0]
    flat = rearrange(acts["v", layer], "key ... -> key (...)")
    values = rearrange(flat, "key (group d_head) -> key group d_head", d_head=len(z) // n_heads)
    shared = n_heads // values.shape[1]  # heads that read one group of values
    values = repeat(values, "key group d_head -> key (group shared) d_head", shared=shared)
    weighted = einsum(pattern.to(values), values, "head key, key head d_head -> key head d_head")
    total = rearrange(weighted.sum(0), "head d_head -> (head d_head)")
    gap = float((total - z).abs().max())
    room = 1e3 * torch.finfo(z.dtype).eps * max(float(total.abs().max()), float(z.abs().max()))
    if not gap <= room:
        raise InputError(
            f"the attention of layer {layer} is not its weights times its values (they differ by "
            f"{gap:.2g}), so it cannot be split by key; leave the layer out"
        )
    part = rearrange(weighted[list(keys)].sum(0), "head d_head -> (head d_head)")
    output = getattr(getattr(model.blocks[layer], "attn", None), "o", None)
    project = getattr(output, "original_component", None)  # without the bridge's hooks around it
    if project is None:
        raise InputError(f"layer {layer} has no attention with an output matrix; leave it out")
    with torch.no_grad():
        both = project(torch.stack([part, torch.zeros_like(part)])[None])[0]
    return both[0] - both[1]  # without the output bias
