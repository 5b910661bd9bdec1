"""Configurations of models: how attention is computed, and sizes."""

from typing import Any

from transformer_lens.model_bridge import TransformerBridge


def attention_of(model: TransformerBridge) -> str | None:
    """How `transformers` computes attention in a model: eager, sdpa, ..."""
    config = getattr(model.original_model, "config", None)
    return getattr(config, "_attn_implementation", None)


def lens_config(config: Any) -> Any:
    """The sizes of a `transformers` configuration under TransformerLens's names."""
    from transformer_lens.model_bridge.sources.transformers import (
        map_default_transformer_lens_config,
    )

    return map_default_transformer_lens_config(config)
