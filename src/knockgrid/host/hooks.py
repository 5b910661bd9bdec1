"""Hook points of a bridge: their names, which of them are off, and whose a hook is."""

import re
from typing import Any
from weakref import WeakKeyDictionary

from torch.nn import Module
from torch.nn.modules import module as every_module
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.utilities import get_act_name

from knockgrid.errors import InputError, shown


def full_name(act_name: str, layer: int | None = None) -> str:
    """The hook name of a TransformerLens short name, `blocks.3.hook_resid_pre` of resid_pre."""
    return get_act_name(act_name, layer)


def act_name_of(given: object) -> str:
    """The short name of an activation, also from the name of its hook: z from attn.hook_z."""
    if not isinstance(given, str) or not given:
        raise InputError(f"activation is {shown(given)}; give a name such as 'resid_post' or 'z'")
    layer, rest = re.fullmatch(r"(?:blocks\.(\d+)\.)?(.*)", given, re.DOTALL).groups()  # type: ignore[union-attr]
    short = rest.rpartition("hook_")[2]
    numbered = re.match(r"([a-z]+)(\d+)", short)
    if layer is None and numbered is not None:
        short, layer = numbered.groups()
    elif short != rest and full_name(short, 0) != f"blocks.0.{rest}":
        raise InputError(
            f"activation {shown(given)} has no short name, so it cannot be edited; write one such "
            "as 'resid_pre', 'resid_mid', 'resid_post', 'attn_out', 'mlp_out', 'z', 'post'"
        )
    if layer is not None:
        raise InputError(
            f"activation {shown(given)} names a layer; write {short!r}, and layers=[{layer}] where "
            "the layers are chosen"
        )
    return short


_POINTS: "WeakKeyDictionary[TransformerBridge, tuple[bool, dict[str, str]]]" = WeakKeyDictionary()


def points(model: TransformerBridge) -> dict[str, str]:
    """Every hook name with its canonical one; TransformerLens takes a millisecond to list them."""
    compatible = bool(model.compatibility_mode)
    kept = _POINTS.get(model)
    if kept is None or kept[0] is not compatible:
        kept = compatible, {n: str(point.name or n) for n, point in model.hook_dict.items()}
        _POINTS[model] = kept
    return kept[1]


def gated(model: TransformerBridge, name: str) -> str | None:
    """The switch that turns a hook point on, where it is off."""
    asked = getattr(model, "_gated_hook_reason", None)
    return None if asked is None else asked(name)


def user_hooks(model: TransformerBridge) -> list[str]:
    """The hook points and PyTorch modules that carry hooks of the user's own.

    Some bridges (OPT) wire permanent hooks of TransformerLens itself, and `transformers` sets hooks
    in a model's first pass; these are part of the model.
    """
    named = {
        str(point.name)
        for point in set(model.hook_dict.values())
        if any(not _wired(handle) for handle in (*point.fwd_hooks, *point.bwd_hooks))
    }
    modules = {
        name or "the whole model"
        for name, part in model.original_model.named_modules()
        if not isinstance(part, HookPoint) and carries_own(part)
    }
    everywhere = [h for k in HOOKS for h in getattr(every_module, f"_global_{k}", {}).values()]
    return sorted({*named, *modules, *(["every module"] if any(map(_is_own, everywhere)) else [])})


HOOKS = ("forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks")


def carries_own(part: Module) -> bool:
    """Whether a module has a PyTorch hook of the user's own."""
    return any(_is_own(hook) for kind in HOOKS for hook in getattr(part, f"_{kind}").values())


def _is_own(hook: Any) -> bool:
    return _origin(hook) not in ("transformer_lens", "transformers", "accelerate", "torch")


def _wired(handle: Any) -> bool:
    """Whether a hook is a permanent one of TransformerLens itself."""
    permanent = bool(getattr(handle, "is_permanent", False))
    return permanent and _origin(getattr(handle, "user_hook", None)) == "transformer_lens"


def _origin(hook: Any) -> str:
    hook = getattr(hook, "func", hook)  # of a partial
    return str(getattr(hook, "__module__", "")).split(".")[0]
