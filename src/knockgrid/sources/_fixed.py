"""fixed: a vector the user gives."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from knockgrid._errors import InputError
from knockgrid._source import Source, Where


@final
@dataclass(frozen=True, eq=False)
class Fixed(Source):
    """The frozen value behind `fixed()`."""

    vectors: Tensor | Mapping[int, Tensor]

    @property
    def label(self) -> str:
        return self._label

    @cached_property
    def _label(self) -> str:  # once: it reads the vectors back from their device
        parts = self.vectors.items() if isinstance(self.vectors, Mapping) else [(-1, self.vectors)]
        digest = hashlib.sha256()
        for layer, vector in sorted(parts, key=lambda part: part[0]):
            digest.update(f"{layer}{tuple(vector.shape)}".encode())
            digest.update(vector.detach().to("cpu", torch.float64).contiguous().numpy().tobytes())
        return f"fixed({digest.hexdigest()[:8]})"

    def _vector(self, layer: int) -> Tensor:
        if isinstance(self.vectors, Mapping):
            if layer not in self.vectors:
                raise InputError(
                    f"fixed() has no vector for layer {layer}; it has {sorted(self.vectors)}"
                )
            return self.vectors[layer]
        return self.vectors if self.vectors.dim() == 1 else self.vectors[layer]

    def value(self, where: Where) -> Tensor:
        vector, like = self._vector(where.layer), where.base
        if vector.shape != like.shape[-vector.dim() :]:
            raise InputError(
                f"fixed() has a vector of shape {tuple(vector.shape)} for layer {where.layer}, and "
                f"{where.act_name} has {tuple(like.shape[1:])} at each position"
            )
        return vector.to(like).expand_as(like)


def fixed(vectors: Tensor | Mapping[int, Tensor]) -> Fixed:
    """Put a given vector in place: one for all layers, or one for each.

    Example:
        >>> import torch, knockgrid as kg
        >>> source = kg.fixed(torch.zeros(576))
        >>> kg.patch("resid_post", "last", source).source is source
        True

    `vectors` is `[d_model]`, `[layer, d_model]`, or a mapping from layer to `[d_model]` (or the
    shape that the activation has at one position).

    Raises:
        InputError: not a tensor; later, a layer without a vector or a vector of another shape.
    """
    parts = list(vectors.values()) if isinstance(vectors, Mapping) else [vectors]
    if not parts or not all(isinstance(part, Tensor) for part in parts):
        raise InputError("fixed() takes a tensor, or a mapping from layer to tensor")
    return Fixed(vectors)
