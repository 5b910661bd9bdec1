"""The weight matrices of modules, joint projections split: their norms and changes."""

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.errors import InputError
from knockgrid.evidence.checked import exact
from knockgrid.host.bridge import n_layers

# The part of a block that holds the matrix. The bridge has split joint projections there.
PARTS = {
    "attn. q": "attn.q",
    "attn. k": "attn.k",
    "attn. v": "attn.v",
    "attn. o": "attn.o",
    "mlp. up": "mlp.in",
    "mlp. down": "mlp.out",
    "mlp. gate": "mlp.gate",
}


def weight_of(model: TransformerBridge, module: str, layer: int) -> Tensor | None:
    """A module's matrix, in the orientation the model keeps it in; None where it has no single one.

    A mixture of experts has one `mlp. down` for each expert, so it has none in this sense.
    """
    found: torch.nn.Module | None = model.blocks[layer]
    for name in PARTS[module].split("."):
        found = getattr(found, "_modules", {}).get(name)
    weight = getattr(found, "weight", None)
    return weight.detach() if isinstance(weight, Tensor) and weight.dim() == 2 else None


def weight_norm(weight: Tensor) -> float:
    """The Frobenius norm ‖W‖_F, summed in float64."""
    return float(torch.linalg.vector_norm(exact(weight)))


def weight_change(weight: Tensor, other: Tensor) -> float:
    """How far another checkpoint's matrix is from this one, ‖W_b - W_a‖_F / ‖W_a‖_F."""
    return weight_norm(exact(other) - exact(weight)) / weight_norm(weight)


def check_comparable(model: TransformerBridge, other: TransformerBridge) -> None:
    """Refuse a second checkpoint of another architecture, number of layers or shape of a matrix."""
    pairs = [(str(one.cfg.architecture), n_layers(one)) for one in (model, other)]
    if pairs[0] != pairs[1]:
        raise _unlike(*(f"{name} with {layers} layers" for name, layers in pairs))
    for layer in range(n_layers(model)):
        for module in PARTS:
            weights = [weight_of(one, module, layer) for one in (model, other)]
            shapes = [None if weight is None else tuple(weight.shape) for weight in weights]
            if shapes[0] != shapes[1]:
                raise _unlike(*(f"{module} of shape {one} at layer {layer}" for one in shapes))


def _unlike(mine: str, other: str) -> InputError:
    return InputError(
        f"compare_to has {other}, and the model has {mine}; give two checkpoints of one "
        "architecture, such as a model and its fine-tuned version"
    )
