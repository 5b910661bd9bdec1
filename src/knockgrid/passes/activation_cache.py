"""TransformerLens's `ActivationCache` and knockgrid's `Run`, one from the other."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from transformer_lens import ActivationCache
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.errors import InputError
from knockgrid.host.bridge import hook_name, n_layers
from knockgrid.host.hooks import full_name, points
from knockgrid.passes.answer_positions import answer_positions
from knockgrid.passes.run import Run, Site, count_valid
from knockgrid.prompts.positions import Tokens, tokenize_prompt
from knockgrid.prompts.prompt import Prompt

SHORT = (
    *("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "q", "k", "v", "z", "rot_q"),
    *("rot_k", "result", "attn_scores", "pattern", "pre", "pre_linear", "post", "mid", "mlp_in"),
    *("attn_in", "q_input", "k_input", "v_input"),
)
"""Short names of activations of a block, as in `cache["resid_post", 3]`."""
IDS = "embed.hook_in"


def to_activation_cache(run: Run, model: TransformerBridge) -> ActivationCache:
    """The activations of a run as a TransformerLens cache with a batch of one.

    Example:
        >>> import knockgrid as kg
        >>> model = kg.load("demo")
        >>> prompt = kg.Prompt("The capital of Italy is", spans={"subject": "Italy"})
        >>> logits, cache = model.run_with_cache(prompt.text)
        >>> run = kg.passes.from_activation_cache(cache, logits, prompt, model)
        >>> again = kg.passes.to_activation_cache(run, model)
        >>> bool((again["resid_post", 3] == cache["resid_post", 3]).all())
        True

    Each has every name that the bridge gives it (`blocks.3.hook_resid_post`, `blocks.3.hook_out`);
    the token ids are `embed.hook_in`. Tensors are views, so nothing is copied; a Run holds no
    gradients.

    Raises:
        InputError: not a Run.

    Limit: a cache has no place for the keys and values, noise, visible edges and logits of a Run.
    """
    _check_types(run=(run, Run))
    names: dict[str, list[str]] = {}
    for name, canonical in points(model).items():
        names.setdefault(canonical, []).append(name)
    acts: dict[str, Tensor] = {IDS: run.ids[None]}
    for site, act in run.acts.items():
        acts |= dict.fromkeys([full_name(*site), *names[hook_name(model, *site)]], act[None])
    return ActivationCache(acts, model)


def from_activation_cache(
    cache: ActivationCache,
    logits: Tensor,
    prompt: Prompt,
    model: TransformerBridge,
    *,
    row: int = 0,
    ids: Tensor | None = None,
) -> Run:
    """One row of `run_with_cache` as a Run, for executors and interventions of your own.

    Example:
        >>> import knockgrid as kg
        >>> model = kg.load("demo")
        >>> prompt = kg.Prompt("The capital of Italy is", spans={"subject": "Italy"})
        >>> logits, cache = model.run_with_cache(prompt.text)
        >>> run = kg.passes.from_activation_cache(cache, logits, prompt, model)
        >>> run.acts["resid_post", 3].shape, run.n_tokens
        (torch.Size([6, 576]), 1)

    Args:
        cache: activations of all positions, with or without a batch dimension.
        logits: `[batch, pos, d_vocab]`, or `[pos, d_vocab]` for a cache without a batch; of all
            positions, or of the measured ones, from the last token of the prompt on.
        prompt: the text of that row; what follows it is its continuation.
        model: the bridge that the cache comes from.
        row: the row of the batch.
        ids: token ids `[pos]` of that row, where the cache does not hold them (`embed.hook_in`).

    Raises:
        InputError: tokens that are not the prompt's, too few logits, no such row, a padded row, or
            arguments of the wrong type.

    Limits: where the padding token also ends a text, a single one counts as the end. A cache does
    not hold keys and values as attention takes them, so only executors without `needs_kv`
    (`reference`) run on the Run.
    """
    _check_types(cache=(cache, ActivationCache), logits=(logits, Tensor), prompt=(prompt, Prompt))
    batched = cache.has_batch_dim
    if logits.ndim != 2 + batched:
        shape = "[batch, pos, d_vocab]" if batched else "[pos, d_vocab]"
        raise InputError(f"logits have shape {tuple(logits.shape)}; for this cache give {shape}")
    found = _row(logits, row, batched, "logits")
    if ids is None and IDS in cache.cache_dict:
        ids = _row(cache.cache_dict[IDS], row, batched, IDS)
    tokens = _tokens(prompt, model, ids, len(found))
    whole = torch.tensor(tokens.ids) if ids is None else ids.detach().cpu()
    behind = whole[len(tokens) :].tolist()
    pad, end = (getattr(model.tokenizer, f"{name}_token_id", None) for name in ("pad", "eos"))
    padding = len(behind) - next((i for i in range(len(behind), 0, -1) if behind[i - 1] != pad), 0)
    if padding > (pad == end):  # more would count as the model's own words
        raise InputError(
            f"after prompt {prompt.id!r} there are {padding} tokens of padding; run it alone, or "
            "with prompts of as many tokens"
        )
    if len(found) not in (len(whole), len(behind) + 1):
        raise InputError(
            f"there are logits of {len(found)} positions for {len(whole)} tokens; give those of "
            f"all, or of the {len(behind) + 1} from the prompt's last token on"
        )
    acts = {
        site: _row(cache.cache_dict[name], row, batched, name)
        for name, site in _sites(cache, model)
    }
    valid = count_valid(model, whole[None, len(tokens) :])[0]
    output = [token for token in behind[:valid] if token != end]
    named = answer_positions(model.tokenizer, prompt, output, len(tokens))
    measured = found[-len(behind) - 1 :]
    return Run(prompt, tokens, whole.to(found.device), acts, (), measured, valid, named=named)


def _check_types(**given: tuple[object, type]) -> None:
    for name, (value, kind) in given.items():
        if not isinstance(value, kind):
            raise InputError(f"{name} is a {type(value).__name__}; give one of {kind.__name__}")


def _row(given: Tensor, row: int, batched: bool, name: str) -> Tensor:
    """One row of a tensor; some (positions, rotary angles) have one row for the whole batch."""
    given = given.detach()
    if not batched or given.ndim == 0:
        return given
    at = 0 if given.shape[0] == 1 and name not in ("logits", IDS) else row
    if not 0 <= at < given.shape[0]:
        raise InputError(f"row is {row}, and {name} has {given.shape[0]} rows; count from 0")
    return given[at]


def _tokens(prompt: Prompt, model: TransformerBridge, ids: Tensor | None, n: int) -> Tokens:
    """The prompt's tokens with or without BOS, whichever the ids, or n positions, begin with."""
    bos = getattr(model.tokenizer, "bos_token_id", None) is not None
    ways = [tokenize_prompt(prompt, model.tokenizer, way) for way in (True, False)[not bos :]]
    for tokens in ways:
        if len(tokens) == n if ids is None else tuple(ids.tolist()[: len(tokens)]) == tokens.ids:
            behind = () if ids is None else tuple(ids.tolist()[len(tokens) :])
            ran = behind[: len(tokens.given)] == tokens.given
            return tokens if ran else replace(tokens, given=(), given_offsets=())
    if ids is not None:
        raise InputError(
            f"the tokens in the cache are not those of prompt {prompt.id!r}; give the prompt that "
            "was run, and with row= its row in the batch"
        )
    raise InputError(
        f"there are logits of {n} positions, and prompt {prompt.id!r} has "
        f"{' or '.join(str(len(tokens)) for tokens in ways)} tokens; give ids= of all positions"
    )


def _sites(cache: ActivationCache, model: TransformerBridge) -> Iterator[tuple[str, Site]]:
    """Every activation of a cache once: under its short name where it has one."""
    short: dict[str, Site] = {
        full_name(name, layer): (name, layer) for layer in range(n_layers(model)) for name in SHORT
    }
    short |= {full_name(name): (name, None) for name in ("embed", "pos_embed")}
    canonical = points(model)
    named = {canonical.get(name, name) for name in cache.cache_dict if name in short}
    for name in cache.cache_dict:
        if name in short:
            yield name, short[name]
        elif name != IDS and canonical.get(name, name) not in named:
            yield name, (name, None)
