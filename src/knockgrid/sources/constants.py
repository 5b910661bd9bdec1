"""zero, mean and fixed: values that do not depend on the prompt."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, final

import torch
from torch import Tensor

from knockgrid.errors import InputError
from knockgrid.sources.source import Source, Where

OF_HEADS = ("q", "k", "v", "z", "rot_q", "rot_k", "result")
"""Activations that have a vector for each head."""


@final
@dataclass(frozen=True)
class Zero(Source):
    """The frozen value behind `zero()`."""

    @property
    def label(self) -> str:
        return "zero()"

    def value(self, where: Where) -> Tensor:
        return torch.zeros_like(where.base)


@final
@dataclass(frozen=True)
class MeanActivation(Source):
    """The frozen value behind `mean_activation()`."""

    needs_statistics: ClassVar[bool] = True

    @property
    def label(self) -> str:
        return "mean_activation()"

    def value(self, where: Where) -> Tensor:
        assert where.mean is not None
        return where.mean.to(where.base).expand_as(where.base)


@final
@dataclass(frozen=True, eq=False)
class Fixed(Source):
    """The frozen value behind `fixed()`."""

    vectors: Tensor | Mapping[int, Tensor]

    @cached_property
    def label(self) -> str:  # type: ignore[override]  # once: it reads the vectors back
        parts = self.vectors.items() if isinstance(self.vectors, Mapping) else [(-1, self.vectors)]
        digest = hashlib.sha256()
        for layer, vector in sorted(parts, key=lambda part: part[0]):
            digest.update(f"{layer}{tuple(vector.shape)}".encode())
            digest.update(vector.detach().to("cpu", torch.float64).contiguous().numpy().tobytes())
        return f"fixed({digest.hexdigest()[:8]})"

    def check(self, act_name: str, n_layers: int) -> None:
        if isinstance(self.vectors, Mapping):
            return
        shape, each = tuple(self.vectors.shape), 1 + (act_name in OF_HEADS)
        inside = "n_heads, d_head" if each == 2 else "d_model"
        of_layers = len(shape) > 0 and shape[0] == n_layers
        if of_layers and len(shape) == each + 1:
            return
        both = of_layers and len(shape) == each == 2
        if both or len(shape) != each:
            why = "may be one for each layer or for each head" if both else "does not fit"
            raise InputError(
                f"fixed() has shape {shape}, which {why} at {act_name!r}; give [{inside}] for all "
                f"layers, [{n_layers}, {inside}] for each, or a mapping from layer to [{inside}]"
            )

    def _vector(self, layer: int, n_dims: int) -> Tensor:
        if not isinstance(self.vectors, Mapping):
            return self.vectors if self.vectors.dim() <= n_dims else self.vectors[layer]
        if layer not in self.vectors:
            raise InputError(
                f"fixed() has no vector for layer {layer}; it has {sorted(self.vectors)}"
            )
        return self.vectors[layer]

    def value(self, where: Where) -> Tensor:
        like = where.base
        vector = self._vector(where.layer, like.dim() - 1)
        if vector.shape != like.shape[1:]:
            raise InputError(
                f"fixed() has a vector of shape {tuple(vector.shape)} for layer {where.layer}, and "
                f"{where.act_name} has {tuple(like.shape[1:])} at each position"
            )
        return vector.to(like).expand_as(like)


def zero() -> Zero:
    """Replace an activation by zeros.

    Example:
        >>> import knockgrid as kg
        >>> kg.patch("mlp_out", "last", kg.zero()).source.label
        'zero()'

    Limits: the model never has a zero state; at the last token it saturates the divergence at every
    layer, so it says little about *where* something is.
    """
    return Zero()


def mean_activation() -> MeanActivation:
    """Replace an activation by its mean over the prompt set at the same position name.

    Example:
        >>> import knockgrid as kg
        >>> kg.patch("resid_post", "subject_last", kg.mean_activation()).source.label
        'mean_activation()'

    The mean is taken over all tokens of the place, once over all prompts of the sweep.
    """
    return MeanActivation()


def fixed(vectors: Tensor | Mapping[int, Tensor]) -> Fixed:
    """Put a given vector in place: one for all layers, or one for each.

    Example:
        >>> import torch, knockgrid as kg
        >>> source = kg.fixed(torch.zeros(576))
        >>> kg.patch("resid_post", "last", source).source is source
        True

    `vectors` has the shape of the activation at one position (`[d_model]`; of `q`, `k`, `v` and
    `z` `[n_heads, d_head]`), with a first dimension of layers where each has its own, or maps
    layers to such vectors. Another shape, or a layer without a vector, is an `InputError`.
    """
    parts = list(vectors.values()) if isinstance(vectors, Mapping) else [vectors]
    if not parts or not all(isinstance(part, Tensor) for part in parts):
        raise InputError("fixed() takes a tensor, or a mapping from layer to tensor")
    return Fixed(vectors)
