"""Pair rules: which edges between two sets of positions a knockout cuts; by default all of them.

`knockout(..., pairs=rule)` takes one; an edge goes from a query to a key at the same position or
before it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from knockgrid.errors import InputError, as_int, shown
from knockgrid.passes.answer_positions import positions_in
from knockgrid.passes.run import Run
from knockgrid.sources.source import seeded

Query = Int[Tensor, " query"]
Key = Int[Tensor, " key"]
Cut = Bool[Tensor, "query key"]


@dataclass(frozen=True)
class PairRule(ABC):
    """Which (query, key) pairs are cut; a subclass has `cut` and says, with its fields, what it is.

    `named` is its name in tables, `said` what a methods paragraph says behind "attention was
    blocked".
    """

    named: ClassVar[str]
    said: ClassVar[str]

    @property
    def label(self) -> str:
        """The name in tables, parameters included."""
        return self.named.format(**vars(self))

    @property
    def words(self) -> str:
        """What a methods paragraph says of it."""
        return self.said.format(**vars(self))

    @abstractmethod
    def cut(self, query: Query, key: Key, run: Run, layer: int) -> Cut:
        """Whether a pair is cut, for all queries and keys of a run at a layer."""


@final
@dataclass(frozen=True)
class NotSelf(PairRule):
    """The frozen value behind `not_self()`."""

    named: ClassVar[str] = "but itself"
    said: ClassVar[str] = "except from a token to itself"

    def cut(self, query: Query, key: Key, run: Run, layer: int) -> Cut:
        return query[:, None] != key


@final
@dataclass(frozen=True)
class ToEarlierSpans(PairRule):
    """The frozen value behind `to_earlier_spans()`."""

    named: ClassVar[str] = "to earlier spans"
    said: ClassVar[str] = "from later spans to earlier ones only"

    def cut(self, query: Query, key: Key, run: Run, layer: int) -> Cut:
        spans = sorted((positions_in(run, name) for name in run.prompt.spans), key=lambda at: at[0])
        found = torch.zeros(len(query), len(key), dtype=torch.bool)
        for i, span in enumerate(spans):
            before = [at for other in spans[:i] for at in other if at < span[0]]
            own, earlier = (torch.tensor(at, dtype=torch.long) for at in (span, before))
            found |= torch.isin(query, own)[:, None] & torch.isin(key, earlier)
        return found


@final
@dataclass(frozen=True)
class FartherThan(PairRule):
    """The frozen value behind `farther_than()`."""

    tokens: int
    named: ClassVar[str] = "farther than {tokens}"
    said: ClassVar[str] = "to keys more than {tokens} tokens back only"

    def cut(self, query: Query, key: Key, run: Run, layer: int) -> Cut:
        return query[:, None] - key > self.tokens


@final
@dataclass(frozen=True)
class Within(PairRule):
    """The frozen value behind `within()`."""

    tokens: int
    named: ClassVar[str] = "within {tokens}"
    said: ClassVar[str] = "to keys at most {tokens} tokens back only"

    def cut(self, query: Query, key: Key, run: Run, layer: int) -> Cut:
        return query[:, None] - key <= self.tokens


@final
@dataclass(frozen=True)
class RandomShare(PairRule):
    """The frozen value behind `random_share()`."""

    share: float
    seed: int = 0
    named: ClassVar[str] = "random {share:g} seed {seed}"

    @property
    def words(self) -> str:
        return f"for a random {100 * self.share:g} % of the edges of each layer (seed {self.seed})"

    def cut(self, query: Query, key: Key, run: Run, layer: int) -> Cut:
        n, lot = len(run.ids), seeded(("pairs", self.seed, run.prompt.id, layer))
        drawn = torch.rand(n, n, generator=lot, dtype=torch.float32, device="cpu")
        return drawn[query][:, key] < self.share


def _distance(name: str, tokens: object) -> int:
    found = as_int(tokens)
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        raise InputError(f"{name}({shown(tokens)}): give a number of tokens of at least 0")
    return found


def not_self() -> NotSelf:
    """Every edge but that from a token to itself.

    Example:
        >>> import knockgrid as kg
        >>> kg.knockout("subject", "subject", pairs=kg.pairs.not_self()).name
        'subject->subject but itself'
    """
    return NotSelf()


def to_earlier_spans() -> ToEarlierSpans:
    """Only edges from a later span to an earlier one, of all the spans that a prompt names.

    Example:
        >>> import knockgrid as kg
        >>> kg.knockout("all", "all", pairs=kg.pairs.to_earlier_spans()).name
        'all->all to earlier spans'

    Spans are ordered by their first token; edges within a span, and from or to tokens outside all
    spans, stay.
    """
    return ToEarlierSpans()


def farther_than(tokens: int) -> FartherThan:
    """Only edges to keys more than so many tokens back.

    Example:
        >>> import knockgrid as kg
        >>> kg.knockout("last", "subject", pairs=kg.pairs.farther_than(8)).name
        'subject->last farther than 8'

    A number that is negative or not whole is an `InputError`. Where it cuts nothing in a prompt,
    the cell is NA.
    """
    return FartherThan(_distance("farther_than", tokens))


def within(tokens: int) -> Within:
    """Only edges to keys at most so many tokens back, a token's own included.

    Example:
        >>> import knockgrid as kg
        >>> kg.knockout("last", "subject", pairs=kg.pairs.within(8)).name
        'subject->last within 8'

    A number that is negative or not whole is an `InputError`. Where it cuts nothing in a prompt,
    the cell is NA.
    """
    return Within(_distance("within", tokens))


def random_share(share: float, seed: int = 0) -> RandomShare:
    """A random share of the edges: each is cut with this probability, in every layer anew.

    Example:
        >>> import knockgrid as kg
        >>> kg.knockout("all", "subject", pairs=kg.pairs.random_share(0.58)).name
        'subject->all random 0.58 seed 0'

    Draws depend on the seed, the prompt's id, the layer and the edge. A share that is not above 0
    and below 1, or a seed that is no whole number, is an `InputError`.

    Source: the random-edge control of effective pathways in Map the Flow (ICLR 2026).
    """
    if not isinstance(share, int | float) or isinstance(share, bool) or not 0 < share < 1:
        raise InputError(f"random_share({shown(share)}): give a share between 0 and 1, such as 0.5")
    number = as_int(seed)
    if isinstance(number, bool) or not isinstance(number, int):
        raise InputError(f"seed is {shown(seed)}; give a whole number")
    return RandomShare(float(share), number)
