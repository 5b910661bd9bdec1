"""What every contender is given: the model, one prompt at a time, and the vectors to patch in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """One prompt: token ids `[1, pos]` and the positions of its subject."""

    ids: Tensor
    subject: list[int]


@dataclass(frozen=True)
class Task:
    """Prompts, a vector per layer `[layer, d_model]`, and the models that carry them out."""

    bridge: Any
    hf: Callable[[], Any]
    cases: Sequence[Case]
    vectors: Tensor


def js(clean: Tensor, other: Tensor) -> float:
    """JS of two rows of logits in nats, the textbook form in float64."""
    p, q = clean.double().log_softmax(-1), other.double().log_softmax(-1)
    m = torch.logaddexp(p, q) - torch.log(torch.tensor(2.0, dtype=torch.float64))
    return float(((p.exp() * (p - m)).sum() + (q.exp() * (q - m)).sum()) / 2)
