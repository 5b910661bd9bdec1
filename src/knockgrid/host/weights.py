"""weights: heads and neurons written by hand into an ordinary Llama or GPT-2, with leaks around.

The residual stream has a dimension of its own for everything that a mechanism needs. Two ballast
dimensions keep the norm of every state nearly the same, so that norm layers multiply by a number
that is known beforehand, by which all weights divide.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

BALLAST = 3.0
BESIDE = 3.0
"""Squared norm of what a state holds beside its ballast, about."""
LOOK, REST = 12.0, 6.0
"""Attention scores of what a head looks for, and of BOS, at which it rests."""
STEEP = 16.0
"""A neuron gets half of it where all that it waits for is there, and less than minus half else."""
APART = 5.0
"""Logits that one dimension of an answer adds."""
ROPE_THETA = 1e8
"""So slow that the last dimensions of a head do not turn within a prompt."""


class Weights:
    """Matrices of a model whose residual stream has named dimensions."""

    def __init__(
        self,
        dims: Sequence[str],
        vocabulary: Sequence[str],
        n_layers: int,
        n_heads: int,
        n_moved: int,
    ) -> None:
        self.dims = {name: 2 + i for i, name in enumerate(dims)}
        self.vocabulary = {word: i for i, word in enumerate(vocabulary)}
        room = max(16, n_moved + 2, -(-(2 + len(dims)) // n_heads))
        self.d_head = room + room % 2
        d_model, n_words = self.d_head * n_heads, len(vocabulary)
        self.d_mlp = len(dims)
        self.norm = (d_model / (2 * BALLAST**2 + BESIDE)) ** 0.5
        self.embed = torch.zeros(n_words, d_model)
        self.embed[:, :2] = torch.tensor([BALLAST, -BALLAST])
        self.unembed = torch.zeros(n_words, d_model)
        shape = (n_layers, n_heads, self.d_head, d_model)
        self.q, self.k, self.v, self.o = (torch.zeros(shape) for _ in range(4))
        self.gate, self.up, self.down = (
            torch.zeros(n_layers, self.d_mlp, d_model) for _ in range(3)
        )
        self.used = [0] * n_layers
        rest = self._asks(REST)
        self.q[:, :, -2, 0] = rest / BALLAST  # wherever nothing else is found, heads rest at BOS
        self.k[:, :, -2, self.dims["bos"]] = rest

    def _asks(self, score: float) -> float:
        return (score * self.d_head**0.5) ** 0.5 / self.norm

    def word(self, word: str, *names: str) -> None:
        """A word whose embedding holds some dimensions."""
        for name in names:
            self.embed[self.vocabulary[word], self.dims[name]] = 1.0

    def answer(self, word: str, *names: str) -> None:
        """A word that is said the more of some dimensions are there."""
        for name in names:
            self.unembed[self.vocabulary[word], self.dims[name]] = APART / self.norm

    def head(
        self,
        at: tuple[int, int],
        query: str,
        key: str,
        moves: Mapping[str, str],
        *,
        unless: str = "",
        strength: float = 1.0,
    ) -> None:
        """A head that looks from `query` at `key` and moves dimensions, not where `unless` is."""
        asks = self._asks(LOOK)
        self.q[at][-1, self.dims[query]] = asks
        if unless:
            self.q[at][-1, self.dims[unless]] = -asks
        self.k[at][-1, self.dims[key]] = asks
        for i, (source, into) in enumerate(moves.items()):
            self.v[at][i, self.dims[source]] = 1 / self.norm
            self.o[at][i, self.dims[into]] = strength

    def neuron(self, layer: int, on: Sequence[str], writes: str) -> None:
        """A neuron that writes a dimension where all of some dimensions are there."""
        i, self.used[layer] = self.used[layer], self.used[layer] + 1
        for name in on:
            self.gate[layer, i, self.dims[name]] = STEEP / self.norm
        self.gate[layer, i, 0] = -STEEP * (len(on) - 0.5) / (self.norm * BALLAST)
        self.up[layer, i, 0] = 1 / (self.norm * BALLAST)
        self.down[layer, i, self.dims[writes]] = 2 / STEEP

    def leak(self, scale: float, draw: torch.Generator) -> None:
        """Add noise of a scale to every matrix, so that everything moves everything a little."""
        inner = (self.q, self.k, self.v, self.o, self.gate, self.up, self.down)
        for matrix in (self.embed, self.unembed, *inner):
            noise = torch.randn(matrix.shape, generator=draw) / matrix.shape[-1] ** 0.5
            matrix += scale * noise

    def model(self, shape: str, n_context: int) -> PreTrainedModel:
        """A model of the Hugging Face library with these weights: norms are 1, biases 0."""
        n_layers, n_heads, _, d_model = self.q.shape
        sizes = {
            "vocab_size": len(self.vocabulary),
            "hidden_size": d_model,
            "num_hidden_layers": n_layers,
            "num_attention_heads": n_heads,
            "max_position_embeddings": n_context,
            "bos_token_id": self.vocabulary["<s>"],
            "eos_token_id": self.vocabulary["</s>"],
            "tie_word_embeddings": False,
        }
        with torch.random.fork_rng(devices=[]):  # which draws weights first
            model, weights = SHAPES[shape](self, sizes)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if (given := weights.get(name.removesuffix(".weight"))) is not None:
                    assert given.shape == parameter.shape, name
                    parameter.copy_(given)
                elif name.endswith("bias"):
                    parameter.zero_()
        return model.eval()


Made = tuple[PreTrainedModel, dict[str, Tensor]]


def _llama(made: Weights, sizes: dict[str, Any]) -> Made:
    more = {"intermediate_size": made.d_mlp, "rope_theta": ROPE_THETA}
    weights = {"model.embed_tokens": made.embed, "lm_head": made.unembed}
    for i in range(len(made.q)):
        of = f"model.layers.{i}"
        for name, matrix in (("q", made.q), ("k", made.k), ("v", made.v)):
            weights[f"{of}.self_attn.{name}_proj"] = matrix[i].flatten(0, 1)
        weights[f"{of}.self_attn.o_proj"] = made.o[i].flatten(0, 1).T
        weights[f"{of}.mlp.gate_proj"] = made.gate[i]
        weights[f"{of}.mlp.up_proj"] = made.up[i]
        weights[f"{of}.mlp.down_proj"] = made.down[i].T
    return LlamaForCausalLM(LlamaConfig(**sizes, **more)), weights


def _gpt2(made: Weights, sizes: dict[str, Any]) -> Made:
    weights = {"transformer.wte": made.embed, "lm_head": made.unembed}
    weights["transformer.wpe"] = torch.zeros(sizes["max_position_embeddings"], sizes["hidden_size"])
    for i in range(len(made.q)):
        of = f"transformer.h.{i}"
        qkv = torch.cat([matrix[i].flatten(0, 1) for matrix in (made.q, made.k, made.v)])
        weights[f"{of}.attn.c_attn"] = qkv.T
        weights[f"{of}.attn.c_proj"] = made.o[i].flatten(0, 1)
        weights[f"{of}.mlp.c_fc"] = made.gate[i].T
        weights[f"{of}.mlp.c_proj"] = made.down[i]
    return GPT2LMHeadModel(GPT2Config(**sizes, n_inner=made.d_mlp)), weights


SHAPES: dict[str, Callable[[Weights, dict[str, Any]], Made]] = {"llama": _llama, "gpt2": _gpt2}
