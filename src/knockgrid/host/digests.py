"""Digests that tell models and tokenizers apart."""

import hashlib
import re
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformer_lens.model_bridge import TransformerBridge

_DIGESTS: "WeakKeyDictionary[Any, tuple[Any, str]]" = WeakKeyDictionary()
FEW = 61
"""Values of a parameter that tell whether a cached digest still holds."""


def _cached(owner: Any, state: Any, compute: Callable[[Any], str]) -> str:
    """A digest of an object, computed only when its state has changed."""
    found = _DIGESTS.get(owner)
    if found is None or found[0] != state:
        found = state, compute(owner)
        _DIGESTS[owner] = found
    return found[1]


def weights_state(model: TransformerBridge) -> tuple[Any, ...]:
    """What changes with the weights: their addresses, their write counts, a few of their values.

    PyTorch does not count a write through `.data`; the values lie an odd number apart, so that no
    single column of a matrix has them all.
    """
    whole = model.original_model
    few: dict[Any, list[torch.Tensor]] = {}
    writes = []
    for one in (*whole.parameters(), *whole.buffers()):
        writes.append((id(one), one.data_ptr(), 0 if one.is_inference() else one._version))
        some = one.detach().reshape(-1)[:: one.numel() // FEW | 1]
        few.setdefault((one.dtype, one.device), []).append(some)
    seen = [torch.cat(some).view(torch.uint8).cpu().numpy().tobytes() for some in few.values()]
    return tuple(writes), tuple(map(hash, seen))


def weights_digest(model: TransformerBridge) -> str:
    """A digest of name, shape and evenly spaced values of every parameter.

    It tells a fine-tuned model from its base, without reading every weight; a change of single
    weights between the samples escapes it.
    """
    return _cached(model, weights_state(model), _weights_digest)


def _weights_digest(model: TransformerBridge, samples: int = 1024) -> str:
    digest = hashlib.sha256()
    for name, value in model.original_model.state_dict().items():
        flat = value.detach().reshape(-1)
        some = flat[:: max(1, flat.numel() // samples)]
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(some.to("cpu", torch.float64).numpy().tobytes())
    return digest.hexdigest()


def tokenizer_digest(tokenizer: Any) -> str:
    """A digest of a fast tokenizer: vocabulary, merges, rules; not the padding that calls set."""
    backend = tokenizer.backend_tokenizer
    parts = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
    rules = [repr(getattr(backend, name)) for name in parts]
    added = repr(sorted(backend.get_added_tokens_decoder().items()))
    state = (id(backend), type(backend.model), backend.get_vocab_size(), *rules, added)
    return _cached(tokenizer, state, _tokenizer_digest)


def _tokenizer_digest(tokenizer: Any) -> str:
    text = tokenizer.backend_tokenizer.to_str()
    last = re.compile(r'"truncation":.*?,"padding":.*?,"added_tokens":', re.DOTALL)
    text = last.sub('"truncation":null,"padding":null,"added_tokens":', text, count=1)
    return hashlib.sha256(text.encode()).hexdigest()
