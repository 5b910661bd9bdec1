"""Settings: what all batches of a sweep share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from knockgrid.edits.intervention import Intervention, Statistics


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
    sigma: Mapping[str, float] = field(default_factory=dict)
    statistics: Statistics = field(default_factory=dict)
    rows_recorded: int | None = None
    """Rows of one pass that records source runs, at most."""
