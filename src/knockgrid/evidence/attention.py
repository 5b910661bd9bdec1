"""What the last token attends to: entropy of its attention, and the weight on the first token."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.host.bridge import has_hook, hook_name, n_layers


class Attention(NamedTuple):
    """Entropy in nats and weight on the first token, means over heads."""

    entropy: float
    sink: float


class Watch:
    """Hooks that note, at every layer, the attention row of one query in the first batch row.

    Example:
        >>> import knockgrid as kg
        >>> model = kg.load("demo")
        >>> watch = Watch(model, query=1)
        >>> _ = model.run_with_hooks(torch.tensor([[1, 504]]), fwd_hooks=watch.hooks)
        >>> sorted(watch.rows()) == list(range(30))
        True
    """

    def __init__(self, model: TransformerBridge, query: int) -> None:
        self._seen: dict[int, Tensor] = {}
        self.query = query
        layers = [layer for layer in range(n_layers(model)) if has_hook(model, "pattern", layer)]
        self.hooks = [(hook_name(model, "pattern", i), self._hook(i)) for i in layers]

    def _hook(self, layer: int) -> Any:
        def note(pattern: Any, hook: Any) -> None:
            # linear attention and delegated layers hand out something else, or nothing
            if isinstance(pattern, Tensor) and pattern.ndim == 4:
                weight = pattern[0, :, self.query].detach().float()
                entropy = torch.special.entr(weight).sum(-1).mean()
                self._seen[layer] = torch.stack([entropy, weight[:, 0].mean()]).cpu()

        return note

    def rows(self) -> dict[int, Attention]:
        """Per layer, what was seen."""
        return {layer: Attention(*found.tolist()) for layer, found in self._seen.items()}


def mean_over(rows: Mapping[int, Attention], layers: Iterable[int]) -> Attention | None:
    """The mean over those of some layers that have an attention pattern; None for none.

    Example:
        >>> mean_over({0: Attention(1.0, 0.5), 2: Attention(3.0, 0.0)}, [0, 1, 2])
        Attention(entropy=2.0, sink=0.25)
    """
    found = [rows[layer] for layer in layers if layer in rows]
    if not found:
        return None
    return Attention(*(sum(part) / len(found) for part in zip(*found, strict=True)))
