"""Bind: from prompts and interventions to runs and cells, one equal-length batch at a time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from transformer_lens.model_bridge import TransformerBridge

from knockgrid.edits.intervention import Cell, Intervention, Place, is_random
from knockgrid.edits.joint import together
from knockgrid.engine.attended import unseen_edge
from knockgrid.engine.record import SourceRun, outlines, record_runs, source_run
from knockgrid.engine.settings import Settings
from knockgrid.errors import InputError
from knockgrid.host.bridge import has_hook, n_layers
from knockgrid.passes.answer_positions import absent, positions_in
from knockgrid.passes.edit import Edit
from knockgrid.passes.prepared import Prepared
from knockgrid.passes.run import Run
from knockgrid.prompts.positions import resolve, tokenize_prompt
from knockgrid.sources.source import RunSpec, Unavailable


@dataclass(frozen=True, eq=False)
class Bound:
    """A batch that is ready to be carried out.

    `clean` is one Run per prompt; `runs` are the base runs that cells refer to; `sources` maps
    (prompt, intervention name, sample) to the source's run, where there is one; `dropped` says why
    a prompt has no cells of an intervention, `skipped` why a cell cannot mean anything.
    """

    clean: Sequence[Run]
    runs: Sequence[Run]
    cells: Sequence[Cell]
    sources: Mapping[tuple[int, str, int], Run]
    dropped: Mapping[tuple[int, str], str]
    skipped: Sequence[tuple[Cell, str]]


def check_spec(
    model: TransformerBridge, run: Run, spec: RunSpec | None, settings: Settings
) -> None:
    """Drop a prompt without the tokens to corrupt, or with a swap partner of another form."""
    if spec is None:
        return
    if spec.scale and not resolve(run.prompt, run.tokens, spec.pos):
        raise Unavailable(f"{spec.pos!r} is empty in prompt {run.prompt.id!r}: no token for noise")
    if not spec.is_swap:
        return
    other = tokenize_prompt(spec.prompt, model.tokenizer, settings.prepend_bos)
    mine = resolve(run.prompt, run.tokens, "subject")
    if len(other) != run.n_prompt or resolve(spec.prompt, other, "subject") != mine:
        raise Unavailable(
            f"the swap partner of {run.prompt.id!r} differs in token length or subject position"
        )


class Binder:
    """Binds the cells of one batch."""

    def __init__(self, model: TransformerBridge, clean: Sequence[Run], settings: Settings) -> None:
        self.model, self.clean, self.settings = model, clean, settings
        self.runs: list[Run] = list(clean)
        self.sources: dict[tuple[int, str, int], Run] = {}
        self.dropped: dict[tuple[int, str], str] = {}
        self.specs: dict[tuple[int, str], list[RunSpec | None]] = {}
        self._recorded: dict[tuple[int, RunSpec, int], Run] = {}
        self._places: dict[tuple[int, ...], tuple[int, ...]] = {}

    @classmethod
    def of(
        cls, model: TransformerBridge, batch: Sequence[Prepared], settings: Settings
    ) -> "Binder":
        """A binder with the clean runs of a batch, and every run that some source needs, once."""
        settings = settings.of_batch(batch)
        binder = cls(model, outlines(model, batch, settings), settings)
        wanted: dict[tuple[int, RunSpec, int], SourceRun] = {}
        for (index, run), one in product(enumerate(binder.clean), settings.interventions):
            for spec, sample in product(
                binder._specs(run, one, index), range(binder._samples(one))
            ):
                if spec is None or spec == RunSpec(run.prompt):
                    continue
                if (index, spec, sample) not in wanted:
                    found = source_run(model, run, spec, sample, settings)
                    wanted[index, spec, sample] = found
        binder.clean, made = record_runs(model, binder.clean, list(wanted.values()), settings)
        binder.runs = list(binder.clean)
        binder._recorded = dict(zip(wanted, made, strict=True))
        return binder

    def _specs(self, run: Run, one: Intervention, index: int) -> list[RunSpec | None]:
        """Which run each part's source needs; a prompt that offers none is noted as dropped."""
        found: list[RunSpec | None] = []
        try:
            # Treatments without a place are refused before; of nulls the prompt is dropped.
            if one.role != "treatment" and not one.in_family and (why := lacking(run, one)):
                raise Unavailable(why)
            for part in one.parts:
                spec = None if part.source is None else part.source.run(run.prompt)
                check_spec(self.model, run, spec, self.settings)
                found.append(spec)
        except Unavailable as reason:
            self.dropped[index, one.name] = str(reason)
            return []
        self.specs[index, one.name] = found
        return found

    def _samples(self, one: Intervention) -> int:
        return self.settings.samples if is_random(one) else 1

    def source_runs(self, index: int, one: Intervention, sample: int) -> list[Run | None]:
        """The run of each part's source, for one sample on one prompt."""
        clean = self.clean[index]  # which is the source's run where it asks for the prompt itself
        runs = [
            None if spec is None else self._recorded.get((index, spec, sample), clean)
            for spec in self.specs[index, one.name]
        ]
        made = {id(run): run for run in runs if run is not None}
        if len(made) == 1:  # parts that share a run are compared with it, as one patch is
            (self.sources[index, one.name, sample],) = made.values()
        return runs

    def _base(self, index: int, source_run: Run | None) -> tuple[int, Run | None]:
        """Index of the run that is edited, and the run that values come from."""
        if self.settings.direction == "noising":
            return index, source_run
        if source_run is None:
            raise InputError(
                "direction='denoising' restores clean values in a corrupted run; it needs patches "
                "or edge patches whose source is a corrupted_run()"
            )
        if source_run not in self.runs:
            self.runs.append(source_run)
        return self.runs.index(source_run), self.clean[index]

    def _lifted(
        self, index: int, one: Intervention, edits: tuple[Edit, ...], values: Run | None
    ) -> tuple[Edit, ...]:
        """Edits that leave nothing to compute at their positions, marked with the run that has it.

        Given the residuals of another run at all positions from the first noisy one on, a block
        computes what it computes in that run there.
        """
        run, (spec, *more) = self.clean[index], self.specs[index, one.name]
        if more or (one.source is not None and one.source.run_layer is not None):
            return edits
        if spec is None or values is None or one.source is None or not edits or not run.kv:
            return edits
        pos, noisy = edits[0].pos, resolve(run.prompt, run.tokens, spec.pos) if spec.scale else ()
        if not (noisy and pos and one.source.from_run and spec.prompt is run.prompt and values.kv):
            return edits
        whole = pos[0] <= min(noisy) and pos == tuple(range(pos[0], pos[-1] + 1))
        plain = all(
            (edit.pos, edit.alpha, edit.add, edit.heads) == (pos, 1.0, False, None)
            and edit.act_name in ("resid_pre", "resid_post")
            for edit in edits
        )
        if not (whole and plain) or pos[-1] >= run.n_prompt - 1:
            return edits
        return tuple(replace(edit, prefix=values) for edit in edits)

    def cell(self, number: int, index: int, one: Intervention, layer: int | None) -> Cell | None:
        """One cell, or None where the prompt is dropped from this intervention."""
        if (index, one.name) in self.dropped:
            return None
        runs, samples = [], []
        for sample in range(self._samples(one)):
            sources = self.source_runs(index, one, sample)
            bases = [self._base(index, source) for source in sources]
            base = bases[0][0]
            if any(other != base for other, _ in bases):
                raise InputError(
                    f"direction='denoising' edits one corrupted run, and the parts of {one.name!r} "
                    "take their values from several; give them one source"
                )
            parts = [
                self._edits(part, layer, self.runs[base], values, sample)
                for part, (_, values) in zip(one.parts, bases, strict=True)
            ]
            runs.append(base)
            samples.append(self._lifted(index, one, together(one.name, parts), bases[0][1]))
        token = measured_token(self.clean[index], one)
        return Cell(number, index, tuple(runs), one, layer, self.layers(one, layer), samples, token)

    def _edits(
        self, part: Intervention, layer: int | None, base: Run, values: Run | None, sample: int
    ) -> list[Edit]:
        """The edits of one part at every layer of its set."""
        settings, model, found = self.settings, self.model, list[Edit]()
        for at in part.layers_at(layer, n_layers(model)):
            if part.edges is not None and not has_hook(model, "attn_scores", at):
                continue
            made = part.edits(
                Place(
                    run=base,
                    layer=at,
                    source_run=values,
                    statistics=settings.statistics,
                    seed=settings.seed,
                    sample=sample,
                    persistent=settings.persistent,
                )
            )
            found += [self._sharing(edit) for edit in made]
        return found

    def _sharing(self, edit: Edit) -> Edit:
        """An edit that shares its positions with those of other layers and cells."""
        pos, src = (at and self._places.setdefault(at, at) for at in (edit.pos, edit.src_pos))
        same = pos is edit.pos and src is edit.src_pos
        return edit if same else replace(edit, pos=pos, src_pos=src)

    def layers(self, one: Intervention, layer: int | None) -> tuple[int, ...]:
        """The exact set of layers of the cell at `layer`."""
        return one.layers_at(layer, n_layers(self.model))


def bind(
    model: TransformerBridge, batch: Sequence[Prepared], numbers: Sequence[int], settings: Settings
) -> Bound:
    """Record the runs of a batch and bind every cell; `numbers` orders the prompts in the table."""
    binder = Binder.of(model, batch, settings)
    clean, cells, skipped = binder.clean, list[Cell](), list[tuple[Cell, str]]()
    rows = settings.cells
    for index, run in enumerate(clean):
        for number, (one, layer) in enumerate(rows, numbers[index] * len(rows)):
            reason = no_place(run, one)
            if reason is not None:
                layers = binder.layers(one, layer)
                skipped.append((Cell(number, index, (), one, layer, layers, [], 0), reason))
            elif (cell := binder.cell(number, index, one, layer)) is not None:
                reason = unseen_edge(run, cell, n_layers(model))
                cells.append(cell) if reason is None else skipped.append((cell, reason))
    return Bound(clean, binder.runs, cells, binder.sources, binder.dropped, skipped)


def lacking(run: Run, one: Intervention) -> str | None:
    """Which place of an intervention a run does not have, and why; None where it has them all."""
    return next((reason for at in one.places if (reason := absent(run, at))), None)


def no_place(run: Run, one: Intervention) -> str | None:
    """Why a member of a family of places has no cells on a prompt, or None where it has."""
    return lacking(run, one) if one.in_family else None


def measured_token(run: Run, one: Intervention) -> int | None:
    """The token after the last edited position, the first it can reach; None for all tokens."""
    if one.position is None:
        return None
    last = max(p for _, at in one.sites for p in positions_in(run, at)) if one.sites else 0
    return max(0, last - (run.n_prompt - 1))
