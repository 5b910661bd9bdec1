"""Work: carry out one shard; a prompt that raises is recorded, and the others go on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from knockgrid.engine.collect import Collected, collect
from knockgrid.engine.memory import TooLittleMemory
from knockgrid.passes.prepared import Prepared, token_texts
from knockgrid.engine.setup import Setup, versions
from knockgrid.table.table import build, plain
from knockgrid.runs.manifest import hardware
from knockgrid.runs.shard import Shard, arrow_of, schema

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
        self.failed, self.where = dict(failed), where

    def __reduce__(self) -> tuple[type, tuple[dict[str, str], object]]:
        return type(self), (self.failed, self.where)


@dataclass(eq=False)
class Work:
    """A sweep that is set up, and the digests of the run it `belongs` to.

    `proven` says that some prompt of the run could be finished, by whomever; what raises from then
    on is the prompt's fault and not the run's.
    """

    setup: Setup
    belongs: Mapping[str, str]
    proven: bool = False

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
        """What computes the shards of this process."""
        return computed_by(self.setup.receipt["executor"])

    def carry_out(self, number: int, done: Callable[[int], Any] = lambda n: None) -> Shard:
        """Compute a shard.

        What every one of several prompts raises before any prompt of the run was finished is raised
        here, as then the fault is the run's.
        """
        batch, setup = self.batches[number], self.setup
        failed: dict[str, str] = {}
        found = self._found(batch, failed, done)
        sides: list[Any] = [plain(side, "sides") for side in found.sides]
        rows = found.in_order()
        frame = build(rows, {}, setup.columns) if rows else None
        said_of = {"memory": setup.memory.describe(), "threads": setup.threads.describe()}
        about = {
            **self.belongs,
            "number": number,
            "prompts": [str(one.prompt.id) for one in batch],
            "sides": sorted(sides, key=lambda side: self.place[side["id"]]),
            "dropped": found.dropped,
            "failed": failed,
            "computed": {**self.computed, **said_of},
        }
        if setup.settings.top:
            about["texts"] = self._texts(rows, sides)
        return Shard(arrow_of(frame, schema(setup.columns)), about)

    def _texts(self, rows: Sequence[Any], sides: Sequence[Any]) -> dict[str, str]:
        """The texts of all tokens that were kept, so that a report needs no tokenizer."""
        lists = [row["top_tokens"] for row in rows if "top_tokens" in row]
        lists += [ids for side in sides for ids in side["top_tokens"]]
        ids = sorted({one for some in lists for one in some})
        texts = token_texts(self.setup.model.tokenizer, ids)
        return {str(one): text for one, text in zip(ids, texts, strict=True)}

    def _found(
        self, batch: Sequence[Prepared], failed: dict[str, str], done: Callable[[int], Any]
    ) -> Collected:
        """The rows of those prompts of a batch that can be carried out."""
        told: list[int] = []

        def counted(cells: int) -> None:
            told.append(cells)
            done(cells)

        try:
            found = self._collected(batch, counted)
            self.proven = True
            return found
        except Exception as error:
            done(-sum(told))  # discarded
            if len(batch) == 1:
                failed[str(batch[0].prompt.id)] = said(error)
                return Collected()
            # Without what it holds of the batch, whose memory its prompts need one by one.
            first = error.with_traceback(None)
            first.__cause__ = first.__context__ = None
        found = Collected()
        for one in batch:
            found += self._found([one], failed, done)
        alike = len(failed) == len(batch) and len(set(failed.values())) == 1
        if alike and not self.proven and not isinstance(first, TooLittleMemory):
            raise first
        return found

    def _collected(self, batch: Sequence[Prepared], done: Callable[[int], Any]) -> Collected:
        return collect(self.setup, batch, [self.place[one.prompt.id] for one in batch], done)


def computed_by(executor: str) -> dict[str, Any]:
    """What computes shards here."""
    return {"executor": executor, "versions": versions(), "hardware": hardware()}


def said(error: Exception) -> str:
    """An error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:LONGEST]
