"""The cache of keys and values: its classes, its name, and its way to attention.

`transformers` names the argument `past_key_values` up to 5.23 and `cache` from 5.24 on. Where a
bridge computes attention itself, TransformerLens 4.3 looks only for the older name.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from inspect import signature, unwrap
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn import Module
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.host.bridge import has_hook, n_layers

if TYPE_CHECKING:
    from transformers.cache_utils import Cache, DynamicCache
    from transformers.cache_utils import DynamicLayer as Layer
else:
    try:
        from transformers.cache_utils import Cache, DynamicCache
        from transformers.cache_utils import DynamicLayer as Layer
    except ImportError:  # of a later version
        Cache = DynamicCache = Layer = object
THERE = Layer is not object

NEW, OLD = "cache", "past_key_values"
NAMES = (NEW, OLD)  # of the argument; where a model takes both, the older is deprecated


def cache_name(model: TransformerBridge) -> str | None:
    """The name by which the model's forward takes a cache of keys and values, or None."""
    takes = signature(model.original_model.forward).parameters if THERE else {}
    return next((name for name in NAMES if name in takes), None)


def takes_cache(model: TransformerBridge) -> bool:
    """Whether the model's forward takes a `transformers` cache."""
    return cache_name(model) is not None


def should_take_cache(model: TransformerBridge) -> bool:
    """Whether a model has a switch for a cache and keys in all blocks, whatever its versions do."""
    keys = (has_hook(model, "k", layer) for layer in range(n_layers(model)))
    return hasattr(getattr(model.original_model, "config", None), "use_cache") and all(keys)


def growing_cache() -> Cache:
    """An empty cache that keeps all positions of all layers."""
    return Cache(layer_class_to_replicate=Layer)


def empty_cache(model: TransformerBridge) -> Cache:
    """The cache that a model generates with, but no layer forgets: edits count from token 0."""
    past = DynamicCache(config=getattr(model.original_model, "config", None))
    for layer in past.layers:
        if hasattr(layer, "sliding_window"):
            vars(layer)["sliding_window"] = torch.iinfo(torch.int32).max
    return past


def copied(past: Cache | None) -> Cache | None:
    """A cache that goes on while the given one stays; None where layers write in place."""
    plain = ("DynamicLayer", "DynamicSlidingWindowLayer")  # they put new tensors together
    if past is None or any(type(one).__name__ not in plain for one in past.layers):
        return None
    other = copy(past)
    vars(other)["layers"] = [copy(one) for one in past.layers]
    return other


def layer_of(keys: Tensor, values: Tensor) -> Layer:
    """A layer that already holds keys and values `[row, head, pos, d_head]`."""
    one = Layer()
    one.lazy_initialization(keys, values)
    one.keys, one.values = keys, values
    return one


def keys_and_values(past: Cache | None) -> list[tuple[Tensor, Tensor]]:
    """The keys and values of every layer."""
    layers: list[Any] = [] if past is None else past.layers
    return [(layer.keys, layer.values) for layer in layers]


@contextmanager
def cache_arguments(model: TransformerBridge, past: Cache | None) -> Iterator[dict[str, Any]]:
    """The arguments that hand a cache to one pass; every attention finds it meanwhile."""
    name = None if past is None else cache_name(model)
    if name is None:
        yield {}
        return
    updating, reading = _readers(model) if name == NEW else ((), ())
    taken = [part.register_forward_pre_hook(_renamed, with_kwargs=True) for part in reading]
    for part in updating:
        vars(part)[UPDATE] = _under_both_names(getattr(part, UPDATE))
    try:
        yield {name: past, "use_cache": True}
    finally:
        for part in updating:
            vars(part).pop(UPDATE, None)
        for handle in taken:
            handle.remove()


UPDATE = "_update_kv_cache"  # by which a bridge's attention reads and extends the cache
_READERS: "WeakKeyDictionary[Module, tuple[list[Module], list[Module]]]" = WeakKeyDictionary()


def _readers(model: TransformerBridge) -> tuple[list[Module], list[Module]]:
    """Parts of a bridge that know only the older name: in `UPDATE`, and in their forward."""
    if model not in _READERS:
        parts = [part for part in model.modules() if part is not model]
        own = [part for part in parts if type(part).__module__.startswith("transformer_lens.")]
        updating = [part for part in own if _old_only(getattr(type(part), UPDATE, None))]
        reading = [part for part in own if _old_only(type(part).forward)]
        _READERS[model] = updating, reading
    return _READERS[model]


def _old_only(function: Callable[..., Any] | None) -> bool:
    """Whether the code of a function knows the cache by its older name only."""
    code = getattr(unwrap(function), "__code__", None) if function is not None else None
    words = set() if code is None else {*map(str, code.co_consts), *code.co_varnames}
    return OLD in words and NEW not in words


def _renamed(part: Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return args, {OLD if name == NEW else name: value for name, value in kwargs.items()}


def _under_both_names(update: Callable[..., Any]) -> Callable[..., Any]:
    return lambda k, v, **kwargs: update(k, v, **{OLD: kwargs.get(NEW), **kwargs})
