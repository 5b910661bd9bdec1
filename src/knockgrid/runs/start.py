"""Start: what is decided before a run's first shard, as data that can travel without the model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from knockgrid.prompts.prompt import Prompt
from knockgrid.engine.setup import Setup
from knockgrid.prompts.data import prompt_as_data
from knockgrid.runs.set_level import write_set_level


@dataclass(frozen=True, eq=False)
class Start:
    """Prompts with the shard of each, the columns, the set's statistics, and what is said of them.

    Whoever holds the model makes it, and whoever writes the folder needs nothing else: so the
    process that writes a run need not be one that could compute it. `statistics` are the bytes of
    the file, since tensors would come from a device that the writer may not have.
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
    batches = setup.batches()
    shard = {one.prompt.id: i for i, batch in enumerate(batches) for one in batch}
    prompts = [one.prompt for one in setup.ready]
    return Start(
        prompts,
        [shard[prompt.id] for prompt in prompts],
        setup.columns,
        write_set_level(setup.set_level),
        setup.metadata(),
        more or {},
        labels,
    )
