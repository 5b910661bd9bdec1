"""What a measure is: a formula over a pair of rows, with its bound and its unit."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from knockgrid import divergences
from knockgrid.divergences.pair import Pair
from knockgrid.divergences.refuse import Given, refuse_shapes, refuse_values
from knockgrid.errors import InputError, shown, unknown
from knockgrid.table.measures import MEASURES, NEEDS, PER_NAT, Measure

UNITS = PER_NAT

Value = TypeVar("Value", float, Tensor)


@dataclass(frozen=True)
class Divergence:
    """A measure of how far an intervened next-token distribution q is from a clean one p.

    Call it on logits; the sweep calls `formula` on a `Pair`, whose terms all measures share.

    Args:
        name: its column in the table.
        label: its name on an axis, without the unit.
        formula: `Pair` → one value per row, in nats where it is logarithmic.
        upper, lower: its bounds, in nats where it is logarithmic; None where there is none.
        logarithmic: whether nats and bits differ; they do not for a distance or a rank.
        needs: what it reads beside the two runs, so that rows without have no value, which is no
            fault: "answer" (`pair.answer`, `pair.answers`), "foil" (`pair.foil`), "source"
            (`pair.corrupted`, the run that the edit's values come from).

    Example:
        >>> from knockgrid.divergences import js
        >>> clean, intervened = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, float("-inf")]])
        >>> js(clean, intervened)
        tensor([0.2158])
        >>> js(clean, intervened, unit="bits")
        tensor([0.3113])
    """

    name: str
    label: str
    formula: Callable[[Pair], Tensor]
    upper: float | None = None
    logarithmic: bool = True
    needs: Sequence[str] = ()
    lower: float | None = 0.0

    @classmethod
    def known(cls, name: str, formula: Callable[[Pair], Tensor]) -> "Divergence":
        """One of knockgrid's own, whose facts stand in `MEASURES`."""
        facts = MEASURES[name]
        logarithmic = facts.unit == "information"
        return cls(name, facts.label, formula, facts.upper, logarithmic, facts.needs, facts.lower)

    @property
    def facts(self) -> Measure:
        """What is true of its column, as it travels with a table."""
        ours = MEASURES.get(self.name)
        if ours is not None and ours.label == self.label:
            return ours
        unit = "information" if self.logarithmic else ""
        return Measure(self.name, self.label, unit, self.lower, self.upper, tuple(self.needs))

    def __post_init__(self) -> None:
        """Check its needs, and let `help` and `?` on it show its formula's docstring."""
        if isinstance(self.needs, str) or not isinstance(self.needs, Iterable):
            raise InputError(
                f"needs is {shown(self.needs)}; give a tuple of {', '.join(map(repr, NEEDS))}"
            )
        for one in self.needs:
            if one not in NEEDS:
                raise unknown("need", one, NEEDS)
        object.__setattr__(self, "needs", tuple(self.needs))
        object.__setattr__(self, "__doc__", self.formula.__doc__)

    def __call__(
        self,
        logits_p: Float[Tensor, "..."],
        logits_q: Float[Tensor, "..."],
        *,
        unit: str = "nats",
        dtype: torch.dtype | None = None,
        answer: Int[Tensor, "..."] | None = None,
        answers: Int[Tensor, "..."] | None = None,
        foil: Int[Tensor, "..."] | None = None,
        corrupted: Float[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "..."]:
        """The measure of every row: clean and intervened logits `[*row, d_vocab]` → `[*row]`.

        One clean row serves all; -inf is a token that cannot occur. `unit` is nats or bits, `dtype`
        float32 or float64 (default: float64 where an input is). `answer` holds token ids `[*row]`,
        `answers` sets of them `[*row, alias]`, the best first, `foil` those of a wrong answer
        `[*row]`; -1 stands for none. `corrupted` holds the logits of the run that the edit's
        values come from, shaped as the clean ones.

        Raises:
            InputError: for a NaN or +inf logit, shapes that do not fit, an unknown unit, or an
                answer, foil or corrupted run that the measure needs and nobody gave.
        """
        given = Given(answer, answers, foil, corrupted)
        refuse_shapes(logits_p, logits_q, given)
        refuse_values(logits_p, logits_q, given)
        if dtype not in (None, torch.float32, torch.float64):
            raise unknown("dtype", dtype, ("torch.float32", "torch.float64"))
        pair = Pair.from_logits(logits_p, logits_q, dtype=dtype, **given._asdict())
        return in_unit(self.formula(pair), self, unit)


def in_unit(value: Value, measure: Divergence, unit: str) -> Value:
    """A value in nats, in another unit if the measure has one.

    Measured values, which are tensors, lose what rounding adds beyond the measure's bound.
    """
    if unit not in UNITS:
        raise unknown("unit", unit, UNITS)
    scale = UNITS[unit] if measure.logarithmic else 1.0
    value = value * scale
    if measure.upper is None or not isinstance(value, Tensor):
        return value
    bound = measure.upper * scale
    most = torch.tensor(bound, dtype=value.dtype)
    if float(most) > bound:  # as float32's nearest number to ln 2 is
        most = most.nextafter(torch.zeros_like(most))
    return value.clamp(max=float(most))


def measures_of(given: Any) -> list[Divergence]:
    """Measures by name or as objects, each once."""
    several = isinstance(given, Iterable) and not isinstance(given, str)
    wanted: list[Any] = list(given) if several else [given] if given else []
    if not wanted:
        raise InputError("no metrics given; name at least one, such as 'js'")
    found: dict[str, Divergence] = {}
    for one in wanted:
        if not isinstance(one, str | Divergence):
            raise InputError(
                f"metric {shown(one)} is no measure; give a name such as 'js', or a Divergence"
            )
        if isinstance(one, str) and one not in divergences.__all__:
            raise unknown("metric", one, divergences.__all__)
        measure = getattr(divergences, one) if isinstance(one, str) else one
        if found.setdefault(measure.name, measure) != measure:
            raise InputError(f"two measures have the column {measure.name!r}; rename one")
    return list(found.values())
