"""Work: carry out one shard; a prompt that raises is recorded, and the others go on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from knockgrid._collect import Collected, collect
from knockgrid._prepared import Prepared, token_texts
from knockgrid._setup import Setup, versions
from knockgrid._table import build, plain
from knockgrid.edge.manifest import hardware
from knockgrid.edge.shard import Shard, arrow_of, schema

LONGEST = 500
"""Characters of an error that are kept."""


class PromptsFailed(RuntimeError):
    """Some prompts of a run raised; all others are kept, and `failed` holds the errors by id.

    Example:
        >>> str(PromptsFailed({"rome": "ValueError: no"}, "runs/a"))
        "1 prompt of runs/a failed, first 'rome' (ValueError: no); the rest is kept, and the same \
command tries them again"
    """

    def __init__(self, failed: Mapping[str, str], where: object) -> None:
        first, reason = next(iter(failed.items()))
        s = "s" * (len(failed) != 1)
        super().__init__(
            f"{len(failed)} prompt{s} of {where} failed, first {first!r} ({reason}); the rest is "
            "kept, and the same command tries them again"
        )
        self.failed = dict(failed)


@dataclass(frozen=True, eq=False)
class Work:
    """A sweep that is set up, and the digests of its settings and of the run it belongs to."""

    setup: Setup
    config: str
    run: str

    @cached_property
    def batches(self) -> list[list[Prepared]]:
        """The prompts of every shard."""
        return self.setup.batches()

    @cached_property
    def place(self) -> dict[str | None, int]:
        """The place of every prompt in the set."""
        return {one.prompt.id: i for i, one in enumerate(self.setup.ready)}

    @cached_property
    def computed(self) -> dict[str, Any]:
        """What computed the shards of this process."""
        return {
            "executor": self.setup.receipt["executor"],
            "versions": versions(),
            "hardware": hardware(),
        }

    def cells(self, number: int) -> int:
        """The cells of a shard."""
        return len(self.batches[number]) * self.setup.n_cells

    def carry_out(self, number: int, done: Callable[[int], Any] = lambda n: None) -> Shard:
        """Compute a shard.

        Raises:
            Exception: what every one of several prompts raised, as then the fault is the run's.
        """
        batch = self.batches[number]
        failed: dict[str, str] = {}
        found = self._found(batch, failed, done)
        sides: list[Any] = [plain(side, "sides") for side in found.sides]
        rows = found.in_order()
        frame = build(rows, {}, self.setup.columns) if rows else None
        about = {
            "config": self.config,
            "run": self.run,
            "number": number,
            "prompts": [str(one.prompt.id) for one in batch],
            "sides": sorted(sides, key=lambda side: self.place[side["id"]]),
            "dropped": found.dropped,
            "failed": failed,
            "computed": self.computed,
            **(self._texts(rows, sides) if self.setup.settings.top else {}),
        }
        return Shard(arrow_of(frame, schema(self.setup.columns)), about)

    def _texts(self, rows: Sequence[Any], sides: Sequence[Any]) -> dict[str, Any]:
        """The texts of all tokens that were kept, so that a report needs no tokenizer."""
        lists = [row["top_tokens"] for row in rows if "top_tokens" in row]
        lists += [ids for side in sides for ids in side["top_tokens"]]
        ids = sorted({one for some in lists for one in some})
        texts = token_texts(self.setup.model.tokenizer, ids)
        return {"texts": {str(one): text for one, text in zip(ids, texts, strict=True)}}

    def _found(
        self, batch: Sequence[Prepared], failed: dict[str, str], done: Callable[[int], Any]
    ) -> Collected:
        """The rows of those prompts of a batch that can be carried out."""
        try:
            return self._collected(batch, done)
        except Exception as error:
            if len(batch) == 1:
                failed[str(batch[0].prompt.id)] = said(error)
                return Collected()
            first = error
        found = Collected()
        for one in batch:
            found += self._found([one], failed, done)
        if len(failed) == len(batch) and len(set(failed.values())) == 1:
            raise first
        return found

    def _collected(self, batch: Sequence[Prepared], done: Callable[[int], Any]) -> Collected:
        return collect(self.setup, batch, [self.place[one.prompt.id] for one in batch], done)


def said(error: Exception) -> str:
    """An error in one line.

    Example:
        >>> said(ValueError("no  way"))
        'ValueError: no way'
    """
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:LONGEST]
