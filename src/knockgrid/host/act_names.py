"""Names of activations as users write them: short names, or names of hooks."""

import re

from knockgrid.errors import InputError, shown
from knockgrid.host.hooks import full_name


def act_name_of(given: object) -> str:
    """The short name of an activation, also from the name of its hook.

    Example:
        >>> act_name_of("resid_post"), act_name_of("hook_mlp_out"), act_name_of("attn.hook_z")
        ('resid_post', 'mlp_out', 'z')
    """
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
