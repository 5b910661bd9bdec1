"""Hook points of a bridge: their names, which of them are off, and whose a hook is."""

from typing import Any
from weakref import WeakKeyDictionary

from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.utilities import get_act_name

__all__ = ["HookPoint", "full_name", "gated", "origin", "points", "wired"]


def full_name(act_name: str, layer: int | None = None) -> str:
    """The hook name of a TransformerLens short name.

    Example:
        >>> full_name("resid_pre", 3)
        'blocks.3.hook_resid_pre'
    """
    return get_act_name(act_name, layer)


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


def wired(handle: Any) -> bool:
    """Whether a hook is a permanent one of TransformerLens itself."""
    permanent = bool(getattr(handle, "is_permanent", False))
    return permanent and origin(getattr(handle, "user_hook", None)) == "transformer_lens"


def origin(hook: Any) -> str:
    """The package that a hook comes from."""
    hook = getattr(hook, "func", hook)  # of a partial
    return str(getattr(hook, "__module__", "")).split(".")[0]
