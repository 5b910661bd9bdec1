"""Prompts ready for a model: token ids, and batches of equal length."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.errors import InputError, shown
from knockgrid.passes.run import check_length, input_device
from knockgrid.prompts.positions import Tokens, tokenize_prompt
from knockgrid.prompts.positions import default_bos as default_bos
from knockgrid.prompts.prompt import Prompt, check_prompt


@dataclass(frozen=True)
class Prepared:
    """A prompt with its tokens."""

    prompt: Prompt
    tokens: Tokens


def prepare(
    model: TransformerBridge, prompts: Sequence[Prompt] | Prompt, prepend_bos: bool, n_tokens: int
) -> list[Prepared]:
    """Tokenize all prompts once, and check that they fit the model and have an id each."""
    if isinstance(prompts, str | Mapping) or not isinstance(prompts, Iterable | Prompt):
        raise InputError(
            f"prompts are {shown(prompts)}; give Prompt objects, Prompt(text, spans={{...}}), or "
            "what read_prompts(file) returns"
        )
    ready: dict[str, Prepared] = {}
    for prompt in [prompts] if isinstance(prompts, Prompt) else prompts:
        check_prompt(prompt)
        if prompt.id in ready:
            raise InputError(f"two prompts share the id {prompt.id!r}; give each its own id=")
        one = Prepared(prompt, tokenize_prompt(prompt, model.tokenizer, prepend_bos))
        check_length(model, prompt, len(one.tokens) + (len(one.tokens.given) or n_tokens - 1))
        ready[str(prompt.id)] = one
    if not ready:
        raise InputError("the prompt set is empty; give at least one Prompt")
    return list(ready.values())


def batches(
    ready: Sequence[Prepared], max_tokens: int = 2048, at_most: int = 32
) -> Iterator[list[Prepared]]:
    """Prompts of equal token length, at most `max_tokens` in a batch: no padding anywhere."""
    by_length: dict[tuple[int, int], list[Prepared]] = {}
    for one in ready:
        by_length.setdefault((len(one.tokens), len(one.tokens.given)), []).append(one)
    for length in sorted(by_length):
        group, size = by_length[length], max(1, min(at_most, max_tokens // sum(length)))
        for i in range(0, len(group), size):
            yield group[i : i + size]


def ids_of(model: TransformerBridge, batch: Sequence[Prepared]) -> Tensor:
    """Token ids `[batch, pos]` of the prompts alone, on the model's input device."""
    return torch.tensor([one.tokens.ids for one in batch]).to(input_device(model))


def whole_ids(model: TransformerBridge, batch: Sequence[Prepared]) -> Tensor:
    """Token ids `[batch, pos]` of prompts and their continuations."""
    ids = [(*one.tokens.ids, *one.tokens.given) for one in batch]
    return torch.tensor(ids).to(input_device(model))


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Each token as text."""
    return [tokenizer.decode([i]) for i in ids]
