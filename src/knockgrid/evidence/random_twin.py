"""random_twin: the same architecture with nothing learned, to test the method itself."""

from pathlib import Path
from typing import Any

import torch
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.errors import InputError
from knockgrid.host.models import random_bridge


def random_twin(
    model: str | Path, *, seed: int = 0, dtype: torch.dtype = torch.float32, **options: Any
) -> TransformerBridge:
    """A randomly initialised model of the same architecture, as a self-test of the method.

    Example:
        >>> import knockgrid as kg
        >>> twin = kg.evidence.random_twin("demo")
        >>> twin.cfg.n_layers, twin.training
        (30, False)

    `model` is a hub name, a local folder, or `"demo"`; only its configuration and tokenizer are
    used. The rows of a twin show what the method gives where there is no knowledge: every
    intervention still moves its random output, so that a shape that appears here as well comes from
    method and architecture. It is a self-test, not a band: its logits are nearly uniform, and the
    size of its divergences says nothing about that of a trained model.

    Source: `random_init_bridge` of TransformerLens; Adebayo et al. 2018 (arXiv 1810.03292), whose
    randomisation tests ask the same of saliency maps.

    Raises:
        InputError: a bridge, whose configuration alone does not say how it was loaded.
    """
    if not isinstance(model, str | Path):
        raise InputError(
            f"model is a {type(model).__name__}; give the name or folder that it was loaded from"
        )
    if str(model) == "demo":
        from knockgrid.host.demo import demo_folder

        model = demo_folder()
    twin = random_bridge(str(model), seed, dtype, options)
    # a configuration that was saved with another dtype leaves parts of the model in that one
    twin.original_model.to(dtype)
    return twin
