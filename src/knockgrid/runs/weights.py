"""Weights: how many parameters a model has and how it is shaped, without loading them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.errors import InputError
from knockgrid.passes.prepared import default_bos
from knockgrid.host.sizes import Sizes, sizes_in, sizes_of
from knockgrid.host.models import lens_config

SMALL = 2 * 10**9
"""Bytes of weights up to which a model in a local folder is loaded to be timed."""


@dataclass(frozen=True, eq=False)
class Shape:
    """A model as an estimate sees it; `block` counts the parameters of one block."""

    sizes: Sizes
    parameters: int
    block: int
    weights: int
    tokenizer: Any
    bos: bool


def worth_loading(model: str) -> bool:
    """Whether a model is loaded to be timed: the demo, or small weights in a local folder."""
    if model == "demo":
        return True
    files = [path for kind in ("*.safetensors", "*.bin") for path in Path(model).glob(kind)]
    return bool(files) and sum(path.stat().st_size for path in files) <= SMALL


def of_model(model: TransformerBridge) -> Shape:
    """The shape of a loaded model."""
    bos = default_bos(model, None)
    return _shape(model.original_model, sizes_of(model), model.tokenizer, bos)


def of_config(model: str, revision: str | None, dtype: torch.dtype) -> Shape:
    """The shape that a config gives: the model is built without memory for its weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(model, revision=revision, trust_remote_code=False)
        with torch.device("meta"):
            whole = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
        cfg = lens_config(config)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(
            f"the config of model {model!r} could not be read ({first}); give 'demo', a folder "
            "with a config.json, or a hub name that this machine can reach"
        ) from error
    sizes = sizes_in(cfg, int(config.get_text_config().vocab_size), dtype)
    tokenizer = _tokenizer(model, revision)
    bos = tokenizer is None or getattr(tokenizer, "bos_token_id", None) is not None
    return _shape(whole, sizes, tokenizer, bos)


def _shape(whole: Any, sizes: Sizes, tokenizer: Any, bos: bool) -> Shape:
    parameters = list(whole.parameters())
    total = sum(one.numel() for one in parameters)
    weights = sum(one.numel() * one.itemsize for one in parameters)
    tied = bool(getattr(whole.config.get_text_config(), "tie_word_embeddings", False))
    outside = sizes.d_vocab * sizes.d_model * (1 if tied else 2)
    return Shape(sizes, total, max(1, total - outside) // sizes.n_layers, weights, tokenizer, bos)


def _tokenizer(model: str, revision: str | None) -> Any:
    """The tokenizer, or None where there is none: prompts can then be guessed at."""
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(model, revision=revision, trust_remote_code=False)
    except Exception:  # it raises whatever its files make it stumble over
        return None
    return found if getattr(found, "is_fast", False) and len(found) > 1 else None
