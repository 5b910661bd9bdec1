"""Start: what is decided before a run's first shard, as data that can travel without the model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from safetensors.torch import load, save

from knockgrid.engine.setup import SetLevel, Setup
from knockgrid.prompts.data import prompt_as_data
from knockgrid.prompts.prompt import Prompt


@dataclass(frozen=True, eq=False)
class Start:
    """Prompts with the shard of each, the columns, the set's statistics, and what is said of them.

    Whoever writes the folder needs nothing else, not even the model's device: `statistics` are the
    bytes of the file.
    """

    prompts: Sequence[Prompt]
    shards: Sequence[int]
    columns: Sequence[str]
    statistics: bytes
    metadata: Mapping[str, Any]
    more: Mapping[str, Any] = field(default_factory=dict)
    labels: pd.DataFrame | None = None

    def lines(self) -> list[dict[str, Any]]:
        """The lines of the plan."""
        pairs = zip(self.prompts, self.shards, strict=True)
        return [prompt_as_data(prompt, shard=shard) for prompt, shard in pairs]


def start_of(
    setup: Setup, more: Mapping[str, Any] | None = None, labels: pd.DataFrame | None = None
) -> Start:
    """What a sweep that is set up would begin with."""
    shard = {one.prompt.id: i for i, batch in enumerate(setup.batches()) for one in batch}
    prompts = [one.prompt for one in setup.ready]
    numbers = [shard[prompt.id] for prompt in prompts]
    statistics = write_set_level(setup.set_level)
    return Start(prompts, numbers, setup.columns, statistics, setup.metadata(), more or {}, labels)


def write_set_level(level: SetLevel) -> bytes:
    """The set's mean vectors and standard deviations as safetensors; σ stands in the manifest."""
    tensors = {}
    for place, (mean, std) in level.statistics.items():
        key = json.dumps(place)
        tensors[f"mean {key}"] = mean.detach().cpu().contiguous()
        tensors[f"std {key}"] = std.detach().cpu().reshape(1)
    return save(tensors)


def read_set_level(content: bytes, sigma: Mapping[str, float]) -> SetLevel:
    """What `write_set_level` kept."""
    tensors, statistics = load(content), {}
    for key in (name.removeprefix("mean ") for name in tensors if name.startswith("mean ")):
        act_name, layer, at = json.loads(key)
        pair = (tensors[f"mean {key}"], tensors[f"std {key}"].reshape(()))
        statistics[act_name, layer, at] = pair
    return SetLevel(dict(sigma), statistics)
