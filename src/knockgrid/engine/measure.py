"""Measure: from outcomes to rows of the table."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Any

import torch
from torch import Tensor

from knockgrid.divergences import js
from knockgrid.divergences.distribution import nan_rows
from knockgrid.divergences.divergence import Divergence, in_unit
from knockgrid.divergences.evaluate import evaluate
from knockgrid.edits.intervention import Cell, not_a_distribution
from knockgrid.engine.bind import Bound
from knockgrid.engine.executors.executor import Outcome
from knockgrid.engine.sampled import shares
from knockgrid.engine.top_tokens import Top, columns_of, top_tokens
from knockgrid.errors import InputError
from knockgrid.passes.answer_positions import is_exact
from knockgrid.passes.run import Run

Row = dict[str, Any]
Values = dict[str, dict[int, float]]
"""Per measure, the value at every measured token."""


@dataclass(eq=False)
class Gathered:
    """The samples of one cell, while they arrive."""

    values: list[Values] = field(default_factory=list)
    mean: Tensor | None = None
    diverged: list[int] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    clean: list[str] = field(default_factory=list)
    valid: list[int] = field(default_factory=list)
    """Per sample, its measured tokens up to the end of the text."""


@dataclass(frozen=True, eq=False)
class Meter:
    """Measures the outcomes of one batch.

    `answers` holds the tokens of every prompt that count as its answer, the best first, `foils` the
    token of its foil (-1: none), `separators` what stands between prompt and best answer, `texts`
    the texts of its measured tokens; so many of the most probable tokens (`top`) go into every row.
    All that a row says is of logits that are divided by `temperature`. `written` gives the text of
    what an intervened model wrote itself.
    """

    bound: Bound
    measures: Sequence[Divergence]
    unit: str
    answers: Sequence[Sequence[int]]
    foils: Sequence[int]
    separators: Sequence[str | None]
    texts: Sequence[Sequence[str]]
    denoise: bool
    temperature: float = 1.0
    top: int = 0
    written: Callable[[Sequence[int]], str] = str
    texts_each: int = 1
    """Texts that a cell samples."""
    end: int | None = None
    """The token that ends a text."""
    _open: dict[int, Gathered] = field(default_factory=dict)

    def rows(self, outcomes: Iterable[Outcome], at_once: int) -> Iterator[tuple[Cell, list[Row]]]:
        """The rows of every cell, as soon as its last sample has arrived."""
        for _, group in groupby(outcomes, key=lambda o: (id(o.null), o.cell.runs[o.sample])):
            checked = False
            while some := list(islice(group, at_once)):
                logits = self.tempered(torch.stack([outcome.logits for outcome in some]))
                measured = self._values(some, logits), self._tops(some, logits)
                checked = checked or self._check_null(some[0])
                for outcome, values, tops in zip(some, *measured, strict=True):
                    rows = self._add(outcome, values, tops)
                    if rows:
                        yield outcome.cell, rows

    def tempered(self, logits: Tensor) -> Tensor:
        """Logits at the temperature that both runs are measured at."""
        return logits if self.temperature == 1 else logits / self.temperature

    def _check_null(self, outcome: Outcome) -> bool:
        """Refuse the rows of a pass whose unedited row is not the run that it edits."""
        run = self.bound.runs[outcome.cell.runs[outcome.sample]]
        null = outcome.null if outcome.clean_generated is None else outcome.null[:1]
        apart = float(evaluate([js], run.logits[: len(null)], null)["js"].max())
        if not apart <= (5e-6 if outcome.null.dtype in (torch.float32, torch.float64) else 1e-2):
            raise InputError(
                f"the unedited row of a pass over prompt {run.prompt.id!r} is {apart:.1e} in JS "
                "away from its recorded run; use executor='reference' for this model"
            )
        return True

    def ends(self, ids: Sequence[int]) -> int:
        """The measured tokens of a text up to its end."""
        return ids.index(self.end) + 1 if self.end in ids else len(ids)

    def tokens(self, cell: Cell) -> Sequence[int]:
        """The tokens that a cell is measured at."""
        run = self.bound.clean[cell.prompt]
        every = range(run.n_valid if run.tokens.given else run.n_tokens)
        return every if cell.token is None else [cell.token]

    def _values(self, some: Sequence[Outcome], logits: Tensor) -> list[Values]:
        """Per outcome, the values of every measure at every measured token."""
        clean = self._clean(some[0])
        self._refuse_nan(some, logits, clean)
        found: list[Values] = [{} for _ in some]
        for token in sorted({token for o in some for token in self.tokens(o.cell)}):
            # members of a family of positions are measured at one token each
            at = [i for i, o in enumerate(some) if token in self.tokens(o.cell)]
            rows = logits[:, token] if len(at) == len(some) else logits[at, token]
            columns = self._columns([some[i] for i in at], clean[token], rows, token)
            for name, column in columns.items():
                for i, value in zip(at, column.tolist(), strict=True):
                    found[i].setdefault(name, {})[token] = value
        return found

    def _clean(self, outcome: Outcome) -> Tensor:
        """The logits that an outcome is compared with."""
        clean = self.bound.clean[outcome.cell.prompt]
        return self.tempered(clean.logits if self.denoise else outcome.null)

    def _columns(
        self, some: Sequence[Outcome], clean: Tensor, rows: Tensor, token: int
    ) -> dict[str, Tensor]:
        """Per measure, the value of every outcome's row of logits at one token."""
        prompt, first = some[0].cell.prompt, token == 0
        answers = torch.tensor((first and self.answers[prompt]) or [-1], device=rows.device)
        foil = torch.tensor([self.foils[prompt] if first else -1], device=rows.device)
        given: dict[str, Any] = {"answers": answers, "foil": foil}
        measured = {m.name: m for m in self.measures}
        alone = [m for m in self.measures if "source" not in m.needs]
        of_source = [m for m in self.measures if "source" in m.needs]
        columns: dict[str, Tensor] = dict.fromkeys([*measured, "js_to_source"], torch.empty(0))
        for name, value in evaluate(alone, clean, rows, **given).items():
            columns[name] = in_unit(value, measured[name], self.unit)
        for name in ("js_to_source", *(m.name for m in of_source)):
            columns[name] = torch.full((len(some),), math.nan, dtype=torch.float64)
        for run, at in self._by_source(some):
            if token >= run.n_tokens:  # a donor's own text may be shorter
                continue
            theirs, rows_at = self.tempered(run.logits[token].to(rows.device)), rows[at]
            values = evaluate(of_source, clean, rows_at, corrupted=theirs, **given)
            values["js_to_source"] = evaluate([js], theirs, rows_at)["js"]
            for name, value in values.items():
                of_unit = in_unit(value, measured.get(name, js), self.unit)
                columns[name][at] = of_unit.double().cpu()
        return columns

    def _by_source(self, some: Sequence[Outcome]) -> Iterator[tuple[Run, list[int]]]:
        """The runs that the sources of outcomes took their values from, each with its outcomes."""
        at: dict[int, tuple[Run, list[int]]] = {}
        for i, one in enumerate(some):
            name = one.cell.intervention.name
            run = self.bound.sources.get((one.cell.prompt, name, one.sample))
            if run is not None:
                at.setdefault(id(run), (run, []))[1].append(i)
        yield from at.values()

    def _tops(self, some: Sequence[Outcome], logits: Tensor) -> list[list[Top]]:
        """Per outcome, its most probable tokens at every token; of samples, their mean has them."""
        if not self.top or len(some[0].cell.samples) > 1:
            return [[] for _ in some]
        n, flat = logits.shape[1], top_tokens(logits, self.top)
        return [flat[i * n : (i + 1) * n] for i in range(len(some))]

    def _refuse_nan(self, some: Sequence[Outcome], logits: Tensor, clean: Tensor) -> None:
        bad = (nan_rows(logits) | nan_rows(clean)).any(-1)
        if bool(bad.any()):
            cell = some[int(bad.nonzero()[0])].cell
            raise not_a_distribution(cell, self.bound.clean[cell.prompt].prompt)

    def _add(self, outcome: Outcome, values: Values, tops: Sequence[Top]) -> list[Row]:
        cell, n = outcome.cell, len(outcome.cell.samples) * self.texts_each
        run, found = self.bound.clean[cell.prompt], self._open.setdefault(cell.index, Gathered())
        found.values.append(values)
        unedited, n_valid = run.generated, run.n_valid
        if outcome.clean_generated is not None:
            unedited, n_valid = outcome.clean_generated, self.ends(outcome.clean_generated)
            found.clean.append(self.written(unedited))
        found.valid.append(n_valid)
        pairs = enumerate(zip(outcome.generated, unedited[:n_valid], strict=False))
        found.diverged += [i for i, (own, other) in pairs if own != other][:1]
        found.written += [self.written(outcome.generated)] if outcome.generated else []
        # sampled texts have a context each, so their mean is no distribution after any of them
        of_mean = None if found.clean else values.get("js")
        text = next(iter(found.written), None)
        if len(found.values) < n and self.texts_each > 1:
            return []
        if len(cell.samples) > 1:
            share = self.tempered(outcome.logits.double()).softmax(-1) / n
            found.mean = share if found.mean is None else found.mean + share
            if len(found.values) < n:
                return []
            mean = found.mean.log()
            apart = in_unit(evaluate([js], self._clean(outcome), mean)["js"], js, self.unit)
            of_mean = dict(enumerate(apart.tolist()))
            tops = top_tokens(mean, self.top) if self.top else []
        if n > 1 and found.written:
            text = json.dumps(found.written, ensure_ascii=False)
        del self._open[cell.index]
        rows = []
        for token in self.tokens(cell):
            row = label(cell, run, token, self.texts[cell.prompt][token])
            row |= {"samples": n, "diverged": min(found.diverged, default=None)}
            reached = [
                s for s, valid in zip(found.values, found.valid, strict=True) if token < valid
            ]
            if not reached:
                row["status"] = "NA: the text had ended before this token"
            else:
                some = len(reached)
                row |= {name: sum(s[name][token] for s in reached) / some for name in values}
                if of_mean is not None:
                    row["js_mean_dist"] = of_mean[token]
                row |= columns_of(tops[token]) if tops else {}
            rows.append(row)
        if text is not None:
            rows[0]["written"] = text
        if found.clean:
            rows[0] |= shares(run.prompt, found.written, found.clean)
        return rows

    def skipped(self) -> Iterator[tuple[Cell, list[Row]]]:
        """Rows of the cells that cannot mean anything, with the reason as their status."""
        for cell, reason in self.bound.skipped:
            run, texts = self.bound.clean[cell.prompt], self.texts[cell.prompt]
            rows = [label(cell, run, token, texts[token]) for token in self.tokens(cell)]
            nothing = {measure.name: math.nan for measure in self.measures}
            empty = {**nothing, "samples": 0, "status": f"NA: {reason}"}
            yield cell, [{**row, **empty} for row in rows]


def label(cell: Cell, run: Run, token: int | None, text: str | None) -> Row:
    """The columns that say where a row belongs."""
    one = cell.intervention
    exact = {"exact_from": run.exact.by} if is_exact(one.position) else {}
    return {
        "prompt": run.prompt.id,
        "group": run.prompt.group,
        "relation": run.prompt.relation,
        "subject": run.prompt.span_text("subject"),
        "intervention": one.name,
        "row": one.row,
        "kind": one.kind,
        "source": one.source_label,
        "source_layer": None if one.source is None else one.source.run_layer,
        "place": one.place,
        "layer": cell.layer,
        "layers": ",".join(map(str, cell.layers)),
        "head": one.head,
        "module": one.module,
        "position": one.position,
        "span": one.span,
        "alpha": one.alpha,
        "measured": None,
        "token": token,
        "token_text": text,
        **exact,
        "status": "ok",
    }
