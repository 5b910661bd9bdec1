"""Run: the record of one forward pass over one prompt.

Runs are recorded under `no_grad`, not `inference_mode`, so that gradients can be taken through
their tensors.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.display.listing import listing, marked
from knockgrid.errors import InputError
from knockgrid.host.bridge import has_hook, hook_name, n_layers
from knockgrid.host.cache import (
    Cache,
    cache_arguments,
    empty_cache,
    growing_cache,
    keys_and_values,
    layer_of,
    takes_cache,
)
from knockgrid.passes.edit import Apply
from knockgrid.passes.exclusive import exclusive, of_this_thread
from knockgrid.prompts.positions import Tokens
from knockgrid.prompts.prompt import Prompt

Site = tuple[str, int | None]  # act_name and layer
Hooks = list[tuple[str, Callable[..., Tensor | None]]]


@dataclass(frozen=True)
class Exact:
    """The exact answer of an output: its tokens, its text and whose it is, or why there is none."""

    tokens: range | None = None
    text: str | None = None
    by: str | None = None
    why: str = "the answer is not in the output"


@dataclass(frozen=True, eq=False)
class Run:
    """One recorded pass: tokens, activations by site, keys and values, measured logits.

    `ids` is `[pos]`: the prompt and, where several tokens are measured, its continuation. `acts`
    maps (act_name, layer) to `[pos, ...]`, `kv` holds one (K, V) pair `[head, pos, d_head]` per
    layer as the cache holds them, `logits` is `[token, d_vocab]` at the measured tokens.
    `visible` maps a layer to `[query, key]`: whether any head can attend there, as its scores
    show. `n_valid` counts the measured tokens up to and including the end-of-text token. `noise`
    `[pos, d_model]` was added to the embeddings. `named` maps names of answer positions to places,
    `exact` says which words of the output are its answer. `final` `[pos, d_model]` is what the
    unembedding reads, where the whole text is measured; then `logits` are those after the prompt
    alone.
    """

    prompt: Prompt
    tokens: Tokens
    ids: Tensor
    acts: Mapping[Site, Tensor]
    kv: Sequence[tuple[Tensor, Tensor]]
    logits: Tensor
    n_valid: int
    visible: Mapping[int, Tensor] = field(default_factory=dict)
    noise: Tensor | None = None
    named: Mapping[str, int] = field(default_factory=dict)
    final: Tensor | None = None
    exact: Exact = Exact()

    @property
    def n_prompt(self) -> int:
        """Tokens of the prompt, BOS included."""
        return len(self.tokens)

    @property
    def n_tokens(self) -> int:
        """Measured tokens; token 0 is the one after the prompt."""
        return self.logits.shape[0]

    @cached_property
    def generated(self) -> tuple[int, ...]:
        """The measured tokens themselves: the continuation, and the argmax after it."""
        behind = self.ids[self.n_prompt :].tolist()
        known = not behind or self.final is None  # else logits are those after the prompt
        return (*behind, *([int(self.logits[-1].argmax())] if known else []))

    def _repr_html_(self) -> str:
        layers = Counter(act_name for act_name, layer in self.acts if layer is not None)
        held = [f"{act_name} ({n} layers)" for act_name, n in layers.items()]
        others = len(self.acts) - layers.total()
        held += [f"{others} others"] if others else []
        return listing(
            f"Run of prompt {self.prompt.id}",
            [
                ("text", marked(self.prompt.whole, self.prompt.spans)),
                ("tokens", f"{self.n_prompt} of the prompt, {self.n_tokens} measured"),
                ("activations", ", ".join(held) or "none"),
                ("keys and values", f"{len(self.kv)} layers" if self.kv else "none"),
                ("noise", None if self.noise is None else "on the embeddings"),
            ],
        )


@dataclass(frozen=True, eq=False)
class Recording:
    """A batch of passes: what `Run` holds, with a leading batch dimension."""

    acts: Mapping[Site, Tensor]
    kv: Sequence[tuple[Tensor, Tensor]]
    logits: Tensor
    visible: Mapping[int, Tensor]
    final: Tensor | None = None


def keep_measured(positions: slice) -> Callable[..., Tensor]:
    """A hook that lets only the measured positions reach the unembedding.

    It sits at `unembed.hook_in`; GPT-2, GPT-J and GPT-Neo reshape between the last block and there.
    """
    return lambda activation, hook=None: activation[:, positions]


def noise_hooks(model: TransformerBridge, noise: Tensor | None) -> list[tuple[str, Apply]]:
    """The hooks that add the noise of the run that a pass edits."""
    if noise is None:
        return []
    return [(hook_name(model, "embed"), lambda embedded: embedded + noise.to(embedded))]


def as_hook(apply: Apply) -> Callable[..., Tensor]:
    """A TransformerLens hook from a function of the activation."""
    return lambda activation, hook: apply(activation)


def input_device(model: TransformerBridge) -> torch.device:
    """Where token ids go: the embedding's device, also under a `device_map`."""
    return torch.device(str(model.cfg.device))


def record(
    model: TransformerBridge,
    ids: Tensor,
    *,
    measured: slice,
    sites: Iterable[Site] = (),
    noise: Tensor | None = None,
    keep_kv: bool = True,
    past: Cache | None = None,
    edges: bool = False,
) -> Recording:
    """One pass over a batch `[batch, pos]` of equal lengths, and what later steps need of it."""
    acts: dict[Site, Tensor] = {}
    hooks: Hooks = [(name, as_hook(add)) for name, add in noise_hooks(model, noise)]
    for site in dict.fromkeys(sites):
        hooks.append((hook_name(model, *site), partial(save_act, acts, site)))
    seen: dict[int, Tensor] = {}
    for layer in range(n_layers(model)) if edges else ():
        if has_hook(model, "attn_scores", layer):
            hooks.append((hook_name(model, "attn_scores", layer), partial(see_edges, seen, layer)))
    hooks.append(("unembed.hook_in", keep_measured(measured)))
    if past is None and keep_kv and takes_cache(model):
        past = growing_cache()
    with torch.no_grad():
        logits = run_hooked(model, ids, hooks, past)
    visible = {layer: sees.cpu() for layer, sees in seen.items()}
    return Recording(acts, keys_and_values(past), logits, visible)


def save_act(acts: dict[Site, Tensor], site: Site, activation: Tensor, hook: Any) -> None:
    """A hook that keeps an activation."""
    acts[site] = activation.detach()


def see_edges(seen: dict[int, Tensor], layer: int, scores: Tensor, hook: Any) -> None:
    """A hook that keeps which keys any head can attend to."""
    # A masked score is -inf or the smallest number, plus at most a bias. Bridges that leave
    # attention to `transformers` hand out its weights here: masked, they are 0.
    masked = scores <= torch.finfo(scores.dtype).min / 2
    are_scores = masked.any() | (scores.shape[-1] == 1)
    seen[layer] = torch.where(are_scores, ~masked, scores > 0).any(1)


def run_hooked(
    model: TransformerBridge,
    ids: Tensor,
    hooks: Hooks,
    past: Cache | None = None,
    stop_at_layer: int | None = None,
) -> Tensor:
    """Logits of one pass with hooks, continuing a cache where there is one.

    Every pass of knockgrid goes through here, so that no other thread can come between; the hooks
    stay on the model only as long as the pass lasts.
    """
    own: Any = [(name, of_this_thread(hook_fn)) for name, hook_fn in hooks]
    stop: dict[str, Any] = {} if stop_at_layer is None else {"stop_at_layer": stop_at_layer}
    with exclusive(model, "a forward pass"), cache_arguments(model, past) as given:
        return model.run_with_hooks(ids, fwd_hooks=own, **given, **stop)


def unbatch(recording: Recording, outlines: Sequence[Run], noise: Tensor | None) -> list[Run]:
    """The outlines of runs with their rows of a recording; tensors are views, nothing is copied."""
    return [
        replace(
            run,
            acts={site: act[i] for site, act in recording.acts.items()},
            kv=[(k[i], v[i]) for k, v in recording.kv],
            logits=recording.logits[i],
            visible=_rows(recording.visible, i),
            final=None if recording.final is None else recording.final[i],
            noise=None if noise is None else noise[i],
        )
        for i, run in enumerate(outlines)
    ]


def _rows(visible: Mapping[int, Tensor], i: int) -> dict[int, Tensor]:
    """One row of what layers can see; layers that share one tensor go on sharing it."""
    row = {id(sees): sees[i] for sees in visible.values()}
    return {layer: row[id(sees)] for layer, sees in visible.items()}


def prefilled(runs: Sequence[Run], start: int) -> Cache:
    """A cache that already holds the positions before `start` of some runs, one row each."""
    layers = []
    for layer in range(len(runs[0].kv)):
        keys, values = (torch.stack([run.kv[layer][i][:, :start] for run in runs]) for i in (0, 1))
        layers.append(layer_of(keys, values))
    return Cache(layers=layers)


def continue_greedily(model: TransformerBridge, ids: Tensor, n: int) -> Tensor:
    """`ids` `[batch, pos]` followed by its n greedy next tokens."""
    last: Hooks = [("unembed.hook_in", keep_measured(slice(-1, None)))]
    past = empty_cache(model) if takes_cache(model) else None
    new = ids
    for _ in range(n):
        with torch.no_grad():
            logits = run_hooked(model, ids if past is None else new, last, past)
        new = logits[:, -1].argmax(-1, keepdim=True)
        ids = torch.cat([ids, new], dim=1)
    return ids


def count_valid(model: TransformerBridge, continuation: Tensor) -> list[int]:
    """Per row of `[batch, token]`, the measured tokens up to the end of the text."""
    end = getattr(model.tokenizer, "eos_token_id", None)
    rows = continuation.tolist()
    return [row.index(end) + 1 if end in row else len(row) + 1 for row in rows]


def check_length(model: TransformerBridge, prompt: Prompt, length: int) -> None:
    """Refuse a prompt that does not fit the model's context."""
    context = getattr(model.cfg, "n_ctx", None)
    if context and length > context:
        raise InputError(
            f"prompt {prompt.id!r} needs {length} tokens, and the model's context holds {context}; "
            "shorten it or measure fewer tokens"
        )
