"""Sampled runs: the tokens that texts draw, and how many texts give the answer.

A text draws one uniform number for every token, which depends on the seed, the prompt and the
number of the run alone. So the clean run and every cell of one number draw alike: an edit that does
nothing flips nothing, and no result depends on what else is in a batch.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from knockgrid.prompts.matching import judged
from knockgrid.prompts.prompt import Prompt
from knockgrid.sources.source import seeded
from knockgrid.table.measures import SAMPLED


def uniform_draws(seed: int, prompt: Prompt, number: int, n: int) -> Float[Tensor, " token"]:
    """A number in [0, 1) for every token of one sampled text."""
    key = (seed, prompt.id, "sampled run", number)
    return torch.rand(n, generator=seeded(key), dtype=torch.float64, device="cpu")


def drawn(
    logits: Float[Tensor, "row d_vocab"], temperature: float, draw: Tensor
) -> Int[Tensor, " row"]:
    """The token of every row at which its cumulative probability passes the draw."""
    whole = (logits.double() / temperature).softmax(-1).cumsum(-1)
    at = torch.searchsorted(whole, whole[:, -1:] * draw.to(whole.device), right=True)
    return at[:, 0].clamp(max=logits.shape[-1] - 1)


def shares(prompt: Prompt, own: Sequence[str], clean: Sequence[str]) -> dict[str, Any]:
    """How many texts give an answer, and how many flip: one of text and clean text gives it.

    Both with Wilson intervals of 95 %; nothing of a prompt without answers.
    """
    if not prompt.answers:
        return {}
    gave, before = ([judged(prompt, text) for text in texts] for texts in (own, clean))
    flipped = [one != other for one, other in zip(gave, before, strict=True)]
    found = [*_share(gave), sum(before) / len(before), *_share(flipped)]
    return dict(zip(SAMPLED, found, strict=True))


def _share(some: Sequence[bool]) -> tuple[float, float, float]:
    from scipy.stats import binomtest

    ends = binomtest(sum(some), len(some)).proportion_ci(method="wilson")
    return sum(some) / len(some), float(ends.low), float(ends.high)
