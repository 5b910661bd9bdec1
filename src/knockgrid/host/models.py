"""Configurations of models: how attention is computed, sizes, and random weights."""

from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import torch
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


def random_bridge(
    model: str, seed: int, dtype: torch.dtype, options: dict[str, Any]
) -> TransformerBridge:
    """A bridge of a model's architecture with random weights."""
    from transformer_lens.tools.analysis.interchange import random_init_bridge

    with redirect_stdout(StringIO()):  # it prints the device
        return random_init_bridge(model, seed=seed, dtype=dtype, **options)
