"""Unembed: logits of final states, some at a time, for texts whose logits would not fit."""

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.host.hooks import user_hooks
from knockgrid.passes.run import Hooks, input_device, run_hooked

TRIED = 4
"""States that both ways to the logits are compared on."""


class Unembedding:
    """What a model makes of the states that its unembedding reads: caps and scales included.

    A pass over a single token, whose final state is replaced, has all that comes after it on any
    architecture. The unembedding's module alone spares that pass where it gives the same.
    """

    def __init__(self, model: TransformerBridge) -> None:
        self.model = model
        self.direct: bool | None = None

    def __call__(self, states: Float[Tensor, "pos d_model"]) -> Float[Tensor, "pos d_vocab"]:
        """The logits of final states."""
        with torch.inference_mode():
            if self.direct is None:
                self.direct = self._agree(states[:TRIED])
            return self._alone(states) if self.direct else self._in_pass(states)

    def _agree(self, states: Tensor) -> bool:
        if user_hooks(self.model):
            return False
        try:
            alone, whole = self._alone(states), self._in_pass(states)
        except Exception:  # a module of another form
            return False
        within = 8 * torch.finfo(whole.dtype).eps * float(whole.abs().max())
        return alone.shape == whole.shape and float((alone - whole).abs().max()) <= within

    def _alone(self, states: Tensor) -> Tensor:
        return self.model.unembed(states[None])[0]

    def _in_pass(self, states: Tensor) -> Tensor:
        ids = torch.zeros(1, 1, dtype=torch.long).to(input_device(self.model))
        put: Hooks = [("unembed.hook_in", lambda activation, hook: states[None].to(activation))]
        return run_hooked(self.model, ids, put)[0]
