"""Recompute: some cells of a run once more, one full pass each, from its manifest and table."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from transformer_lens.model_bridge import TransformerBridge

from knockgrid.engine.bind import bind
from knockgrid.engine.collect import finished, meter_of
from knockgrid.engine.executors.executor import Executor
from knockgrid.edits.intervention import Intervention
from knockgrid.engine.measure import Row
from knockgrid.passes.prepared import Prepared, prepare
from knockgrid.engine.settings import Settings
from knockgrid.engine.setup import with_statistics
from knockgrid.divergences.divergence import Divergence
from knockgrid.divergences.lookup import by_name
from knockgrid.runs.prompt_lines import prompt_of
from knockgrid.engine.executors import reference
from knockgrid.engine.executors.free_run import FreeRun

Wanted = tuple[str, int]  # intervention and layer


@dataclass(frozen=True, eq=False)
class Again:
    """A sweep as it was set up, ready to carry out some of its cells again.

    `metadata` is that of the run's table. All of its prompts are prepared, as the numbers that are
    taken over the whole prompt set (standard deviations, means) need them.
    """

    model: TransformerBridge
    metadata: Mapping[str, Any]
    ready: Sequence[Prepared]
    settings: Settings
    measures: Sequence[Divergence]

    @property
    def executor(self) -> Executor:
        """One full pass per cell; for free runs, whole sequences without a cache."""
        return FreeRun(cached=False) if self.metadata["mode"] == "free_run" else reference

    def rows(self, prompt: str, wanted: Sequence[Wanted]) -> Iterator[Row]:
        """The rows of some cells of one prompt."""
        number = [one.prompt.id for one in self.ready].index(prompt)
        names = {name for name, _ in wanted}
        some = replace(
            self.settings,
            interventions=[one for one in self.settings.interventions if one.name in names],
            layers=list(dict.fromkeys(layer for _, layer in wanted)),
        )
        bound = bind(self.model, [self.ready[number]], [number], some)
        bound = replace(
            bound, cells=[c for c in bound.cells if (c.intervention.name, c.layer) in wanted]
        )
        meter = meter_of(self.model, bound, self.measures, self.metadata["unit"], some)
        for _, rows in finished(self.model, bound, meter, self.executor, 8):
            yield from rows


def again(
    model: TransformerBridge,
    metadata: Mapping[str, Any],
    interventions: Sequence[Intervention],
    layers: Sequence[int],
) -> Again:
    """The sweep behind a table, with its set-level statistics computed anew over all prompts.

    `layers` are those that will be asked for; means are recorded at no others.
    """
    prompts = [prompt_of(side) for side in metadata["prompts"]]
    bos, n_tokens = metadata["prepend_bos"], metadata["n_tokens"]
    ready = prepare(model, prompts, bos, n_tokens)
    settings = Settings(
        list(interventions),
        list(layers),
        n_tokens,
        metadata["samples"],
        metadata["direction"],
        metadata["mode"] != "prompt_only",
        bos,
        metadata["seed"],
        keep_kv=False,
    )
    settings = with_statistics(model, ready, settings)
    measures = [by_name(name) for name in metadata["metrics"]]
    return Again(model, metadata, ready, settings, measures)
