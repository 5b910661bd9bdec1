"""Settings: what all batches of a sweep share."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from knockgrid.edits.intervention import Intervention, Statistics, layers_of
from knockgrid.engine.exact_answers import ExactAnswers
from knockgrid.passes.answer_positions import is_exact
from knockgrid.passes.prepared import Prepared


@dataclass(frozen=True, eq=False)
class Settings:
    """What all batches of a sweep share."""

    interventions: Sequence[Intervention]
    layers: Sequence[int]
    n_tokens: int
    samples: int
    direction: str
    persistent: bool
    prepend_bos: bool
    seed: int
    keep_kv: bool
    top: int = 0
    anywhere: bool = False
    """Whether the whole text is measured, so that runs hold final states."""
    all_logits: bool = True
    """Whether such runs hold the logits of all measured tokens, too: only a trial has room."""
    sigma: Mapping[str, float] = field(default_factory=dict)
    statistics: Statistics = field(default_factory=dict)
    exact: ExactAnswers = ExactAnswers()
    writes: bool = False
    """Whether the edited model writes a text of its own."""
    rows_recorded: int | None = None
    """Rows of one pass that records source runs, at most."""

    @property
    def parts(self) -> list[Intervention]:
        """Every edit by itself, those of joints too."""
        return [part for one in self.interventions for part in one.parts]

    @property
    def at_exact(self) -> bool:
        """Whether any intervention is at the exact answer of an output."""
        return any(is_exact(one.position) for one in self.interventions)

    def of_batch(self, batch: Sequence[Prepared]) -> "Settings":
        """The same for one batch, which measures its continuations where it has any.

        Behind a continuation of n tokens the last measured token, which no row has, is the next.
        """
        given = len(batch[0].tokens.given)
        return replace(self, n_tokens=given + 1) if given else self

    def layers_of(self, n_layers: int) -> Iterator[tuple[Intervention, set[int]]]:
        """Every edit by itself, with all the layers that cells of the sweep make it at."""
        return layers_of(self.interventions, self.layers, n_layers)

    @property
    def cells(self) -> list[tuple[Intervention, int | None]]:
        """The cells of a prompt in the table's order: an intervention and its layer each."""
        return [(one, at) for one in self.interventions for at in one.cell_layers(self.layers)]
