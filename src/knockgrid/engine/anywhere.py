"""Anywhere: from final states at all positions to rows of the table, a few logits at a time."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from knockgrid.divergences.distribution import nan_rows
from knockgrid.divergences.divergence import Divergence, in_unit
from knockgrid.divergences.evaluate import evaluate
from knockgrid.edits.intervention import Cell, not_a_distribution
from knockgrid.engine.executors.states import States
from knockgrid.engine.measure import Meter, Row, label
from knockgrid.passes.run import Run
from knockgrid.passes.unembed import Unembedding
from knockgrid.prompts.positions import lacks, resolve
from knockgrid.table.measures import DISTANCES, log_name, logarithm

HELD = 32 * 2**20
"""Bytes of final states that wait to be measured together, so that clean logits are made once."""
LOGITS = 32 * 2**20
"""Bytes of logits that there are at a time."""
AT_ITSELF = (*DISTANCES, "rank_clean")
"""Measures that are 0 where nothing was edited."""

Values = dict[str, np.ndarray]
"""Per measure, the value at every position."""
Part = list[tuple[int, list[int]]]
"""Positions, each with the rows that are measured there."""


@dataclass(eq=False)
class Sampled:
    """The mean over the samples of a cell, while they arrive."""

    n: int = 0
    total: Values = field(default_factory=dict)

    def add(self, values: Values, of: int) -> bool:
        """Whether these were the last of the samples."""
        self.n += 1
        for name, value in values.items():
            self.total[name] = self.total.get(name, 0.0) + value / of
        return self.n == of


@dataclass(frozen=True, eq=False)
class Anywhere:
    """Measures the final states of one batch wherever they differ from the clean ones.

    `measure` is "all" (every span of a prompt), names of spans, or "tokens".
    """

    meter: Meter
    unembed: Unembedding
    measure: str | Sequence[str]
    _open: dict[int, Sampled] = field(default_factory=dict)

    @cached_property
    def measures(self) -> Sequence[Divergence]:
        """What is taken; a distance is 0 where nothing was edited, other measures are not."""
        return self.meter.measures

    @cached_property
    def moving(self) -> Sequence[Divergence]:
        """The measures that have a value of their own where nothing was edited."""
        return [one for one in self.measures if one.name not in AT_ITSELF]

    def rows(self, found: Iterable[States], at_once: int) -> Iterator[tuple[Cell, list[Row]]]:
        """The rows of every cell, as soon as its last sample has arrived."""
        held, size = list[States](), 0
        for one in found:
            held.append(one)
            size += one.states.nbytes
            if size > HELD:
                yield from self._measured(held)
                held, size = [], 0
        yield from self._measured(held)

    def _measured(self, held: Sequence[States]) -> Iterator[tuple[Cell, list[Row]]]:
        groups: dict[tuple[int, int], list[States]] = {}
        for one in held:
            groups.setdefault((one.cell.prompt, id(one.null)), []).append(one)
        for (prompt, _), some in groups.items():
            run = self.meter.bound.clean[prompt]
            clean = run.final if self.meter.denoise else some[0].null
            assert clean is not None
            for one, values in zip(some, self._values(run, clean, some), strict=True):
                n, kept = len(one.cell.samples), self._open.setdefault(one.cell.index, Sampled())
                if kept.add(values, n):
                    del self._open[one.cell.index]
                    yield one.cell, self._rows(one.cell, kept.total, n)

    def _values(self, run: Run, clean: Tensor, some: Sequence[States]) -> list[Values]:
        """Per row, every measure at every measured position."""
        wanted, every = self._positions(run), [one.name for one in self.measures]
        found = [{name: np.zeros(len(clean)) for name in every} for _ in some]
        starts = [0 if self.meter.denoise else one.start for one in some]
        reached = [(p, [i for i, at in enumerate(starts) if at <= p]) for p in wanted]
        needed = [(p, rows) for p, rows in reached if rows or self.moving]
        for part in _in_parts(needed, self._most(clean)):
            # the clean state of a position, then those of the rows that it has
            states = [s for p, rows in part for s in (clean[p], *(at(some[i], p) for i in rows))]
            logits = self.meter.tempered(self.unembed(torch.stack(states)))
            self._refuse_nan(run, some, part, logits)
            first = 0
            for p, rows in part:
                here = logits[first : first + 1 + len(rows)]
                self._at(found, p, rows, here)
                first += len(here)
        return found

    def _at(self, found: list[Values], p: int, rows: Sequence[int], logits: Tensor) -> None:
        """The values of all rows at one position; a row that is not edited yet is the clean one."""
        clean, own = logits[0], logits[1:]
        others = [i for i in range(len(found)) if i not in set(rows)] if self.moving else []
        for measures, at, of in ((self.measures, rows, own), (self.moving, others, logits[:1])):
            if at and measures:
                for name, value in self._evaluated(measures, clean, of).items():
                    for i, number in zip(at, np.broadcast_to(value, len(at)), strict=True):
                        found[i][name][p] = number

    def _evaluated(self, measures: Sequence[Divergence], clean: Tensor, own: Tensor) -> Values:
        values = evaluate(measures, clean, own)
        return {
            one.name: in_unit(values[one.name], one, self.meter.unit).double().cpu().numpy()
            for one in measures
        }

    def _most(self, clean: Tensor) -> int:
        """The rows of logits that there are at a time."""
        d_vocab = self.meter.bound.clean[0].logits.shape[-1]
        return max(8, LOGITS // (d_vocab * clean.element_size()))

    def _refuse_nan(self, run: Run, some: Sequence[States], part: Part, logits: Tensor) -> None:
        bad = nan_rows(logits)
        if bool(bad.any()):
            of = [i for _, rows in part for i in (0, *rows)]
            raise not_a_distribution(some[of[int(bad.nonzero()[0])]].cell, run.prompt)

    def _positions(self, run: Run) -> list[int]:
        """All measured positions of a prompt."""
        if self.measure == "tokens":
            return list(range(len(run.ids)))
        return sorted({p for _, at in self._spans(run) for p in at})

    def _spans(self, run: Run) -> list[tuple[str, tuple[int, ...]]]:
        """The measured spans with their positions; one that the prompt lacks has none."""
        names = run.prompt.span_names if self.measure == "all" else self.measure
        return [
            (
                name,
                ()
                if lacks(run.prompt, run.tokens, name)
                else resolve(run.prompt, run.tokens, name),
            )
            for name in names
        ]

    def _rows(self, cell: Cell, values: Values, samples: int) -> list[Row]:
        run = self.meter.bound.clean[cell.prompt]
        if self.measure == "tokens":
            every = range(len(run.ids))
            return [
                self._row(cell, p, samples) | {name: of[p] for name, of in values.items()}
                for p in every
            ]
        found = []
        for name, at in self._spans(run):
            row = self._of_span(cell, name, at, samples)
            for measure, of in values.items() if at else ():
                row[measure] = float(of[list(at)].mean())
                if measure in DISTANCES:
                    row[log_name(measure)] = float(logarithm(of[list(at)]).mean())
            found.append(row)
        return found

    def _row(self, cell: Cell, p: int, samples: int) -> Row:
        """The labels of one position, whose distribution is that of the token after it."""
        run, texts = self.meter.bound.clean[cell.prompt], self.texts[cell.prompt]
        text = texts[p + 1] if p + 1 < len(texts) else None
        return {
            **label(cell, run, p - run.n_prompt + 1, text),
            "samples": samples,
            "diverged": None,
        }

    def _of_span(self, cell: Cell, name: str, at: Sequence[int], samples: int) -> Row:
        run = self.meter.bound.clean[cell.prompt]
        row = {**label(cell, run, None, None), "measured": name, "samples": samples}
        return row if at else {**row, "status": f"NA: the prompt has no {name!r}"}

    @cached_property
    def texts(self) -> list[list[str]]:
        """The texts of all tokens of every prompt."""
        decode = self.unembed.model.tokenizer.decode
        return [[decode([i]) for i in run.ids.tolist()] for run in self.meter.bound.clean]

    def skipped(self) -> Iterator[tuple[Cell, list[Row]]]:
        """Rows of the cells that cannot mean anything, with the reason as their status."""
        for cell, reason in self.meter.bound.skipped:
            run = self.meter.bound.clean[cell.prompt]
            if self.measure == "tokens":
                rows = [self._row(cell, p, 0) for p in range(len(run.ids))]
            else:
                rows = [self._of_span(cell, name, at, 0) for name, at in self._spans(run)]
            yield cell, [{**row, "status": f"NA: {reason}"} for row in rows]


def at(one: States, p: int) -> Tensor:
    """The state of a row at a position of the text."""
    return one.states[p - one.start] if p >= one.start else one.null[p]


def _in_parts(needed: Part, most: int) -> Iterator[Part]:
    """Positions with their rows, in parts of at most so many rows of logits, clean ones included.

    Where a single position has more rows than that, it is cut.
    """
    part, size = list[tuple[int, list[int]]](), 0
    for p, rows in needed:
        for first in range(0, max(1, len(rows)), most - 1):
            some = rows[first : first + most - 1]
            if part and size + 1 + len(some) > most:
                yield part
                part, size = [], 0
            part.append((p, some))
            size += 1 + len(some)
    if part:
        yield part
