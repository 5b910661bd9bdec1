"""Collect: carry out the cells of one batch of prompts, and what is said of each prompt."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

from transformer_lens.model_bridge import TransformerBridge

from knockgrid.divergences import js
from knockgrid.divergences.divergence import UNITS, in_unit
from knockgrid.divergences.evaluate import evaluate
from knockgrid.edits.intervention import Cell
from knockgrid.engine.answers import decode_output, first_answers
from knockgrid.engine.anywhere import Anywhere
from knockgrid.engine.bind import Bound, bind
from knockgrid.engine.bounds import AT_ONCE, Need, bounded, need
from knockgrid.engine.executors.executor import Executor
from knockgrid.engine.executors.rows import widest
from knockgrid.engine.foils import first_foils
from knockgrid.engine.measure import Meter, Row
from knockgrid.engine.memory import until_it_fits
from knockgrid.engine.settings import Settings
from knockgrid.engine.setup import Checked, Setup
from knockgrid.engine.top_tokens import top_tokens
from knockgrid.passes.prepared import Prepared, token_texts
from knockgrid.passes.run import Run, input_device
from knockgrid.passes.unembed import Unembedding
from knockgrid.prompts.data import spans_as_data
from knockgrid.prompts.positions import resolve


@dataclass(eq=False)
class Collected:
    """Rows with the place of their cell in the sweep, side entries, and dropped prompts by row."""

    rows: list[tuple[int, list[Row]]] = field(default_factory=list)
    sides: list[dict[str, Any]] = field(default_factory=list)
    dropped: dict[str, dict[str, str]] = field(default_factory=dict)

    def __iadd__(self, other: "Collected") -> "Collected":
        self.rows += other.rows
        self.sides += other.sides
        for name, reasons in other.dropped.items():
            self.dropped.setdefault(name, {}).update(reasons)
        return self

    def in_order(self) -> list[Row]:
        """All rows in the order of the sweep's cells."""
        return [row for _, rows in sorted(self.rows, key=lambda pair: pair[0]) for row in rows]


def collect(
    setup: Setup, batch: Sequence[Prepared], places: Sequence[int], done: Callable[[int], Any]
) -> Collected:
    """Carry out all cells of prompts of one length; `done` is told of finished cells.

    `places` are those of the prompts in the whole set: draws depend on no other prompt, but the
    order of rows does. Where memory runs out, the rows of a part of the batch are discarded (`done`
    is told a negative number), and it is tried again in smaller passes, then with fewer prompts.
    """
    rest, found, length = Rest(setup, batch, places, done), Collected(), len(batch[0].tokens)
    with setup.threads.at_work(len(batch) * setup.n_cells * length):
        while rest.at < len(batch):
            found += until_it_fits(rest.carried_out, rest.less, f"prompts of {length} tokens")
    return found


@dataclass(eq=False)
class Rest:
    """The prompts of a batch from `at` on, to be carried out as many at once as memory allows."""

    setup: Setup
    batch: Sequence[Prepared]
    places: Sequence[int]
    done: Callable[[int], Any]
    at: int = 0
    bound: Bound | None = None
    told: int = 0

    @cached_property
    def need(self) -> Need:
        """The memory that these prompts need."""
        return need(self.setup.model, self.setup.settings, self.batch)

    @property
    def n(self) -> int:
        """The prompts that are carried out next."""
        return self.need.prompts(self.setup.memory, len(self.batch) - self.at)

    def carried_out(self) -> Collected:
        """The rows of the next prompts."""
        setup, n, found = self.setup, self.n, Collected()
        model, unit, chosen = setup.model, setup.spec.unit, slice(self.at, self.at + n)
        settings = replace(setup.settings, rows_recorded=self.need.rows(setup.memory, n))
        self.bound = bound = bind(model, self.batch[chosen], self.places[chosen], settings)
        meter = meter_of(model, bound, setup, settings)
        taken = anywhere_of(meter, model, setup)
        at_once = AT_ONCE.get(input_device(model).type, 256)
        for cell, rows in finished(model, bound, taken, self.executor(bound), at_once):
            found.rows.append((cell.index, rows))
            self.tell(1)
        for (index, name), reason in bound.dropped.items():
            found.dropped.setdefault(name, {})[str(bound.clean[index].prompt.id)] = reason
        dropped = {name for _, name in bound.dropped}
        n_cells = {
            one.name: len(one.cell_layers(settings.layers))
            for one in settings.interventions
            if one.name in dropped
        }
        self.tell(sum(n_cells[name] for _, name in bound.dropped))
        found.sides = [side(model, bound, i, meter, unit) for i in range(n)]
        self.at, self.bound, self.told = self.at + n, None, 0
        return found

    def executor(self, bound: Bound) -> Executor:
        """The executor, within what the runs of these prompts leave of the memory."""
        memory, runs = self.setup.memory, (*bound.runs, *bound.sources.values())
        return bounded(self.setup.executor, memory, self.need.left(memory, runs, len(bound.clean)))

    def tell(self, cells: int) -> None:
        """Count cells that are done."""
        self.told += cells
        self.done(cells)

    def less(self) -> bool:
        """Discard what was done of the next prompts, and do less at once; False if that is least.

        Passes come first: their rows cost nothing but speed, prompts are read again. While runs
        are recorded there are no passes yet, but every prompt is a row, and so is every source.
        """
        memory, n, bound = self.setup.memory, self.n, self.bound
        self.done(-self.told)
        self.bound, self.told = None, 0
        if bound is None:
            return memory.fewer_prompts(n) or memory.fewer_rows(self.need.runs)
        passes = getattr(self.executor(bound), "plans", None)
        rows = 0 if passes is None else widest(passes(self.setup.model, bound.runs, bound.cells))
        return memory.fewer_rows(rows) or memory.fewer_prompts(n)


def finished(
    model: TransformerBridge,
    bound: Bound,
    meter: Meter | Anywhere,
    executor: Executor,
    at_once: int,
) -> Iterator[tuple[Cell, list[Row]]]:
    """The rows of all cells of a batch, those that cannot mean anything included."""
    carry_out: Any = executor.states if isinstance(meter, Anywhere) else executor  # type: ignore[attr-defined]
    yield from meter.rows(carry_out(model, bound.runs, bound.cells), at_once)
    yield from meter.skipped()


def anywhere_of(meter: Meter, model: TransformerBridge, sweep: Checked) -> "Meter | Anywhere":
    """What measures the whole text, where that is asked for, else the meter itself."""
    measure = sweep.spec.measure
    return meter if measure is None else Anywhere(meter, Unembedding(model), measure)


def meter_of(
    model: TransformerBridge,
    bound: Bound,
    sweep: Checked,
    settings: Settings,
) -> Meter:
    """A meter with the answer tokens and token texts of a batch."""
    tokenizer, spec, measures = model.tokenizer, sweep.spec, sweep.measures
    found = [first_answers(tokenizer, run, run.logits[0]) for run in bound.clean]
    answers = [tuple(dict.fromkeys(one.ids[0] for one in some)) for some in found]
    separators = [some[0].separator if some else None for some in found]
    foils = first_foils(
        tokenizer, bound.clean, [next(iter(some), None) for some in found], measures
    )
    texts = [token_texts(tokenizer, run.generated) for run in bound.clean]
    denoise, written = settings.direction == "denoising", partial(decode_output, tokenizer)
    known = answers, foils, separators, texts
    known += (denoise, float(spec.temperature), settings.top, written, spec.sampled_runs or 1)
    known += (getattr(tokenizer, "eos_token_id", None),)
    return Meter(bound, measures, spec.unit, *known)


def side(
    model: TransformerBridge, bound: Bound, index: int, meter: Meter, unit: str
) -> dict[str, Any]:
    """What the side table says of a prompt: text, clean run, how far its corruption moves it."""
    run = bound.clean[index]
    logits = meter.tempered(run.logits)
    clean, answer = logits[0].double().log_softmax(-1), next(iter(meter.answers[index]), -1)

    def apart(source: Run) -> float:
        found = evaluate([js], logits[0], meter.tempered(source.logits[:1]))["js"]
        return float(in_unit(found, js, unit))

    moved = {
        name: apart(source)
        for (at, name, sample), source in bound.sources.items()
        if at == index and sample == 0
    }
    has_subject = "subject" in run.prompt.spans
    subject = list(resolve(run.prompt, run.tokens, "subject")) if has_subject else []
    partner, swap = run.prompt.swap, None
    if partner is not None:
        swap = {"id": partner.id, "text": partner.text, "spans": spans_as_data(partner)}
        swap |= {"answers": list(partner.answers), "foil": partner.foil}
        swap["continuation"] = partner.continuation
    top = top_tokens(logits[: run.n_valid], meter.top) if meter.top else []
    kept = {"top_tokens": [ids for ids, _ in top], "top_logp": [logp for _, logp in top]}
    return {
        "id": run.prompt.id,
        "text": run.prompt.text,
        "spans": spans_as_data(run.prompt),
        "subject": run.prompt.span_text("subject"),
        "relation": run.prompt.relation,
        "group": run.prompt.group,
        "answers": list(run.prompt.answers),
        "foil": run.prompt.foil,
        "continuation": run.prompt.continuation,
        "separator": meter.separators[index],
        "n_prompt": run.n_prompt,
        "subject_tokens": subject,
        "tokens": token_texts(model.tokenizer, run.tokens.ids),
        "generated": list(meter.texts[index]),
        "exact_answer": run.exact.text,
        "exact_from": run.exact.by,
        "logp_clean": float(clean.max()) * UNITS[unit],
        "logp_answer_clean": float(clean[answer]) * UNITS[unit] if answer >= 0 else None,
        "rank_answer_clean": int((clean > clean[answer]).sum()) if answer >= 0 else None,
        "js_corrupted": moved,
        "swap": swap,
        **(kept if meter.top else {}),
    }
