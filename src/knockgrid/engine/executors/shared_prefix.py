"""The cache that hands every row of a pass the keys and values before its first position."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from knockgrid.host.cache import Cache, Layer, cache_of
from knockgrid.passes.edit import Placed
from knockgrid.passes.run import Run


class SharedPrefixLayer(Layer):
    """One layer of the cache: gathers the prefix for every row, stores nothing.

    `states` holds keys and values `[prompt, head, pos, d_head]` of which the first `length`
    positions are the prefix; the rest is room for those of the pass, so that one copy per row is
    enough. `row_prompt` tells for every row of the pass whose prompt it is. A batch that grows is
    served from the first entries.
    """

    def __init__(self, keys: Tensor, values: Tensor, row_prompt: Tensor, length: int) -> None:
        super().__init__()
        self.states, self.length = {"k": keys, "v": values}, length
        self.row_prompt = row_prompt.to(keys.device)
        self.writes: dict[str, tuple[Tensor, Tensor, Tensor]] = {}

    def replace(self, placed: Sequence[Placed]) -> None:
        """Give some rows the keys or values of another run, as an edge patch asks for."""
        for which in ("k", "v"):
            slots, values = [], []
            for one in placed:
                inside = [i for i, p in enumerate(one.edit.pos) if p < one.start]
                if one.edit.act_name == which and one.edit.cached is not None and inside:
                    slots += [(one.row + one.edit.row, one.edit.pos[i]) for i in inside]
                    values.append(one.edit.cached[: len(inside)])
            if slots:
                row, pos = torch.tensor(slots).to(self.row_prompt.device).unbind(1)
                self.writes[which] = (row, pos, torch.cat(values))

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Prefix and new states in one tensor, for as many rows as there are now."""
        return self._gather("k", key_states), self._gather("v", value_states)

    def _gather(self, which: str, new: Tensor) -> Tensor:
        states, rows = self.states[which], new.shape[0]
        if states.shape[0] == 1:
            found = states.expand(rows, -1, -1, -1).clone()
        else:
            found = states.index_select(0, self.row_prompt[:rows])
        found[:, :, self.length :] = new
        if which in self.writes:
            row, pos, value = self.writes[which]
            found[row, :, pos] = value.to(found.dtype)
        return found

    def get_seq_length(self) -> int:
        """Positions before the pass."""
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys, for the model's own mask."""
        return self.length + query_length, 0


def shared_prefix(
    runs: Sequence[Run], row_prompt: Tensor, start: int, placed: Sequence[Placed]
) -> Cache:
    """A `transformers` cache over the positions before `start` of some runs."""
    layers = []
    for layer in range(len(runs[0].kv)):
        keys, values = (torch.stack([run.kv[layer][i] for run in runs]) for i in (0, 1))
        layers.append(SharedPrefixLayer(keys, values, row_prompt, start))
        layers[-1].replace([one for one in placed if one.edit.layer == layer])
    return cache_of(layers)
