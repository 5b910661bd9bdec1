"""The modules of a block by their usual names, and the activations that they output."""

from transformer_lens.model_bridge import TransformerBridge

from knockgrid.errors import unknown
from knockgrid.host.bridge import has_hook, hook_name, n_layers

# Label -> the short names its output may have, with the hook point that each must stand for: in
# mixtures of experts `pre` is the input of the router, and there is no single up or gate matrix.
POINTS = {
    "attn. q": (("q", "attn.q.hook_out"),),
    "attn. k": (("k", "attn.k.hook_out"),),
    "attn. v": (("v", "attn.v.hook_out"),),
    "attn. o": (("attn_out", ""),),
    "mlp. up": (("pre_linear", "mlp.in.hook_out"), ("pre", "mlp.in.hook_out")),
    "mlp. down": (("mlp_out", ""),),
    "mlp. gate": (("pre", "mlp.gate.hook_out"),),
}


def modules_of(model: TransformerBridge) -> dict[str, str]:
    """The modules that every block of a model has, with the short name of each one's output.

    Joint projections (one matrix for q, k and v, or for gate and up) are split by the bridge. A
    mixture of experts has no `mlp. up` and `mlp. gate`: `mlp. down` is then the sum of its experts.
    """
    found: dict[str, str] = {}
    for label, points in POINTS.items():
        for name, end in points:
            if all(
                has_hook(model, name, at)
                and (not end or hook_name(model, name, at) == f"blocks.{at}.{end}")
                for at in range(n_layers(model))
            ):
                found.setdefault(label, name)
    return found


def module_acts(model: TransformerBridge, modules: "list[str] | None") -> dict[str, str]:
    """The named modules, or all that the model has, each with its output's short name."""
    has = modules_of(model)
    for name in modules or ():
        if name not in has:
            raise unknown(f"module of {model.cfg.architecture}", name, has)
    return {name: has[name] for name in modules or has}
