"""Sizes: the dimensions of a transformer, and the bytes that its passes and runs take."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.host.bridge import d_vocab


@dataclass(frozen=True)
class Sizes:
    """The dimensions of a decoder; `itemsize` is the bytes of one number."""

    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int
    d_head: int
    d_mlp: int
    d_vocab: int
    itemsize: int

    def row(self, length: int, suffix: int, n_tokens: int) -> int:
        """An upper estimate of the bytes that one row needs while a pass is in one block.

        Residual, normed input, q, k, v, mixed heads and MLP per suffix token; scores and pattern;
        gathered keys and values of the whole length; logits and their float32 copy.
        """
        wide = self.n_heads * self.d_head
        per_token = 6 * self.d_model + 4 * wide + 4 * self.d_mlp
        scores = 4 * self.n_heads * suffix * length
        keys = 4 * wide * length
        logits = n_tokens * self.d_vocab * (self.itemsize + 4)
        return (per_token * suffix + scores + keys) * self.itemsize + logits

    def cache(self, length: int) -> int:
        """The bytes of the keys and values of all blocks."""
        return 2 * self.n_layers * self.n_kv_heads * self.d_head * length * self.itemsize

    def act(self, name: str, length: int) -> int:
        """The bytes of one recorded activation."""
        width = {
            **dict.fromkeys(("q", "z"), self.n_heads * self.d_head),
            **dict.fromkeys(("k", "v"), self.n_kv_heads * self.d_head),
            **dict.fromkeys(("pre", "post", "pre_linear", "mlp_pre", "mlp_post"), self.d_mlp),
            **dict.fromkeys(("attn_scores", "pattern"), self.n_heads * length),
            "result": self.n_heads * self.d_model,
        }.get(name, self.d_model)
        return length * width * self.itemsize

    def run(
        self, length: int, n_tokens: int, acts: Iterable[str], keep_kv: bool, edges: bool
    ) -> int:
        """The bytes that one recorded run keeps: activations, keys and values, logits, edges."""
        kept = sum(self.act(name, length) for name in acts)
        kept += self.cache(length) if keep_kv else 0
        kept += self.n_layers * length**2 if edges else 0
        return kept + n_tokens * self.d_vocab * self.itemsize


PASS = {"cpu": (12, 2e9)}
"""Tokens that take as long as reading the weights, and as starting the operations of a pass of a
model with one parameter in its blocks: small models wait for the latter."""


def pass_tokens(model: TransformerBridge) -> float:
    """Roughly how many tokens cost as much as the fixed cost of a pass."""
    sizes = sizes_of(model)
    reading, starting = PASS.get(str(model.cfg.device).split(":")[0], (150, 1e12))
    width = 4 * sizes.n_heads * sizes.d_head + 3 * sizes.d_mlp
    reading *= min(4, sizes.itemsize) / 4
    return reading + starting / (sizes.n_layers * sizes.d_model * width)


def sizes_of(model: TransformerBridge) -> Sizes:
    """The sizes of a loaded model."""
    dtype = next(model.original_model.parameters()).dtype
    return sizes_in(model.cfg, d_vocab(model), dtype)


def lens_config(config: Any) -> Any:
    """The sizes of a `transformers` configuration under TransformerLens's names."""
    from transformer_lens.model_bridge.sources.transformers import (
        map_default_transformer_lens_config,
    )

    return map_default_transformer_lens_config(config)


def sizes_in(cfg: Any, d_vocab: int, dtype: torch.dtype) -> Sizes:
    """The sizes that a TransformerLens config holds; some of them have a default there."""
    heads = int(cfg.n_heads)
    return Sizes(
        n_layers=int(cfg.n_layers),
        d_model=int(cfg.d_model),
        n_heads=heads,
        n_kv_heads=int(getattr(cfg, "n_key_value_heads", None) or heads),
        d_head=int(cfg.d_head),
        d_mlp=int(getattr(cfg, "d_mlp", None) or 4 * cfg.d_model),
        d_vocab=d_vocab,
        itemsize=dtype.itemsize,
    )
