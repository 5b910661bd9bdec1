"""Chunked: one recorded pass, some positions after the other, with all final states.

Attention scores grow with queries times keys. A long text is read a part at a time, and the keys
and values of earlier parts stand in the cache, as they do when a model generates.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.host.bridge import has_hook, hook_name, n_layers
from knockgrid.host.cache import Cache, Layer, keys_and_values, takes_cache
from knockgrid.host.sizes import Sizes, sizes_of
from knockgrid.passes.run import (
    Hooks,
    Recording,
    Site,
    as_hook,
    noise_hooks,
    run_hooked,
    save_act,
    see_edges,
)

SCORES = 32 * 2**20
"""Bytes of attention scores, and of what is computed from them, in one pass over a part."""

LEAST = 16
"""Queries of the smallest part."""


class RoomyLayer(Layer):
    """One layer of the cache with room for all positions, so that parts are not copied together."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.room, self.done = n, 0

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Keep new keys and values `[row, head, pos, d_head]`; all there are so far."""
        end, found = self.done + key_states.shape[2], list[Tensor]()
        for name, new in (("keys", key_states), ("values", value_states)):
            if not self.done:
                setattr(self, name, new.new_empty((*new.shape[:2], self.room, new.shape[3])))
            kept: Tensor = getattr(self, name)
            kept[:, :, self.done : end] = new
            found.append(kept[:, :, :end])
        self.done = end
        return found[0], found[1]

    def get_seq_length(self) -> int:
        """Positions so far."""
        return self.done

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys, for the model's own mask."""
        return self.done + query_length, 0


def parts(start: int, end: int, size: int) -> Iterator[tuple[int, int]]:
    """The positions from `start` to `end` in parts of at most `size`."""
    for first in range(start, end, size):
        yield first, min(first + size, end)


def part_size(sizes: Sizes, length: int, rows: int = 1) -> int:
    """The queries of a part whose attention scores fit."""
    return max(LEAST, SCORES // (4 * sizes.n_heads * length * sizes.itemsize * rows))


def keep_final(
    found: list[Tensor], activation: Tensor, hook: Any = None, on: slice = slice(-1, None)
) -> Tensor:
    """Keep what the unembedding reads, and let a single position of it on, or those asked for."""
    found.append(activation.detach())
    return activation[:, on]


def record_states(
    model: TransformerBridge,
    ids: Tensor,
    n_prompt: int,
    *,
    sites: Sequence[Site],
    noise: Tensor | None = None,
    keep_kv: bool = True,
    edges: bool = False,
    all_logits: bool = False,
) -> Recording:
    """What `record` gives, with the final states of `ids` `[batch, pos]`.

    There are logits after the prompt alone, or with `all_logits` after each token that follows it.
    """
    n, found, logits = ids.shape[1], list[Tensor](), list[Tensor]()
    past = None
    if keep_kv and takes_cache(model):
        past = Cache(layer_class_to_replicate=partial(RoomyLayer, n))  # type: ignore[arg-type]
    size = n if past is None else part_size(sizes_of(model), n, len(ids))
    acts: list[dict[Site, Tensor]] = []
    seen: list[dict[int, Tensor]] = []
    for first, end in parts(0, n, size):
        acts.append({})
        seen.append({})
        some = None if noise is None else noise[:, first:end]
        hooks: Hooks = [(name, as_hook(add)) for name, add in noise_hooks(model, some)]
        hooks += [(hook_name(model, *site), partial(save_act, acts[-1], site)) for site in sites]
        for layer in range(n_layers(model)) if edges else ():
            if has_hook(model, "attn_scores", layer):
                name = hook_name(model, "attn_scores", layer)
                hooks.append((name, partial(see_edges, seen[-1], layer)))
        begin, stop = max(n_prompt - 1, first), min(end, n if all_logits else n_prompt)
        on = slice(begin - first, stop - first) if begin < stop else slice(-1, None)
        hooks.append(("unembed.hook_in", partial(keep_final, found, on=on)))
        with torch.no_grad():
            made = run_hooked(model, ids[:, first:end], hooks, past)
        logits += [made] if begin < stop else []
        _share(seen[-1])
    whole = {site: torch.cat([one[site] for one in acts], 1) for site in acts[-1]}
    visible, kv = _joined(seen, n), keys_and_values(past)
    return Recording(whole, kv, torch.cat(logits, 1), visible, torch.cat(found, dim=1))


def _share(seen: dict[int, Tensor]) -> None:
    """Keep what several layers can see only once, on the CPU."""
    kept: list[Tensor] = []
    for layer, sees in seen.items():
        sees = sees.cpu()
        same = next((one for one in kept if torch.equal(one, sees)), None)
        if same is None:
            kept.append(sees)
        seen[layer] = sees if same is None else same


def _joined(seen: Sequence[dict[int, Tensor]], n: int) -> dict[int, Tensor]:
    """What layers can see `[batch, query, key]`, parts of the queries put together."""
    made: dict[tuple[int, ...], Tensor] = {}
    found: dict[int, Tensor] = {}
    for layer in seen[0]:
        some = [part[layer] for part in seen]
        key = tuple(map(id, some))
        if key not in made:
            wide = [torch.nn.functional.pad(one, (0, n - one.shape[-1])) for one in some]
            made[key] = torch.cat(wide, dim=1)
        found[layer] = made[key]
    return found
