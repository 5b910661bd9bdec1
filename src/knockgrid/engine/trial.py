"""Trial: the cells that preflight carries out on a model before it is trusted with a sweep."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from itertools import count, product
from typing import Any, final

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.edits.intervention import Cell, Intervention
from knockgrid.edits.patch import patch
from knockgrid.engine.bind import Binder, check_spec, no_place, unseen_edge
from knockgrid.engine.own_text import in_own_text, stand_in
from knockgrid.engine.settings import Settings
from knockgrid.errors import InputError
from knockgrid.host.bridge import has_hook, n_layers
from knockgrid.passes.answer_positions import after_prompt, is_answer_position
from knockgrid.passes.prepared import Prepared
from knockgrid.passes.run import Run
from knockgrid.prompts.positions import At, lacks, resolve
from knockgrid.sources.other_run import Donor
from knockgrid.sources.source import Source, Unavailable, Where, normal

Groups = Mapping[str, Sequence[Intervention]]
BEHIND = 8
"""Tokens of a trial text behind the last place that is tried."""


@final
@dataclass(frozen=True)
class Probe(Source):
    """The activation with as much noise again: a value that no working edit can hide."""

    @property
    def label(self) -> str:
        return "probe"

    def value(self, where: Where) -> Tensor:
        base = where.base
        drawn = normal(base.shape, (*where.key, where.act_name)).to(base.device, base.dtype)
        return base + drawn * (base.float().std(correction=0) + 1).to(base.dtype)


@dataclass(frozen=True, eq=False)
class Trial:
    """What is tried: per kind of edit its own cells, no-ops, and one maximal edit at all layers.

    `pair` holds two cells on different prompts of equal length that begin at the same position,
    so that they share a pass.
    """

    runs: Sequence[Run]
    cells: Mapping[str, Sequence[Cell]]
    no_ops: Mapping[str, Sequence[Cell]]
    maximal: Mapping[str, Sequence[Cell]]
    pair: Sequence[Cell]

    def edited(self, *kinds: str) -> list[Cell]:
        """The cells of some kinds that change something."""
        return [cell for kind in kinds for cell in (*self.cells[kind], *self.maximal[kind])]

    def idle(self, *kinds: str) -> list[Cell]:
        """The cells of some kinds that must change nothing."""
        return [cell for kind in kinds for cell in self.no_ops[kind]]


def grouped(prompt: Prepared, interventions: Sequence[Intervention]) -> Groups:
    """For every kind, the edits that begin first and last: their passes use the cache otherwise.

    The parts of a joint are tried by themselves as well.
    """

    def start(one: Intervention) -> int:
        places = [at for part in one.parts for at in part.written]
        return min(first_position(prompt, at) for at in places)

    groups: dict[str, list[Intervention]] = {}
    for one in (alone for given in interventions for alone in _with_parts(given)):
        if has_places(prompt, one):
            some = "" if one.heads is None else " (some heads)"
            groups.setdefault(one.kind + some, []).append(one)
    ordered = {kind: sorted(ones, key=start) for kind, ones in groups.items()}
    return {
        kind: ones[:1] if start(ones[0]) == start(ones[-1]) else [ones[0], ones[-1]]
        for kind, ones in ordered.items()
    }


def _with_parts(one: Intervention) -> list[Intervention]:
    parts = one.parts if len(one.parts) > 1 else ()
    return [one, *(replace(p, name=f"{one.name}, part {i}") for i, p in enumerate(parts, 1))]


def first_position(prompt: Prepared, at: At) -> int:
    """The first position of a place; where in the answer a place lies is not known yet."""
    if not isinstance(at, str | int):
        return min(first_position(prompt, one) for one in at)
    if is_answer_position(at):
        return len(prompt.tokens) - (at == "last_q")
    return min(resolve(prompt.prompt, prompt.tokens, at))


def has_places(prompt: Prepared, one: Intervention) -> bool:
    """Whether a member of a family of positions can have cells on a prompt."""
    places = [at for at in one.places if not after_prompt(at)]
    return not any(lacks(prompt.prompt, prompt.tokens, at) for at in places)


def trial_prompts(
    model: TransformerBridge, ready: Sequence[Prepared], settings: Settings, at_most: int = 64
) -> list[Prepared]:
    """A prompt that has all sources, beyond the attention window if one is, and another as long."""
    config = getattr(model.original_model, "config", None)
    names = ("sliding_window", "window_size", "attention_chunk_size")
    values = [getattr(config, name, None) for name in names]
    window = next((n for n in values if isinstance(n, int) and n > 0), None)
    ordered = sorted(ready, key=lambda one: window is None or len(one.tokens) <= window)
    complete = (one for one in ordered[:at_most] if _complete(model, one, settings))
    prompt = next(complete, ordered[0])
    ids = prompt.tokens.ids
    size = (len(ids), len(prompt.tokens.given))
    alike = [one for one in ready if (len(one.tokens), len(one.tokens.given)) == size]
    others = [one for one in alike if one.tokens.ids != ids]
    return [prompt, *others[:1]]


def shortened(prompts: Sequence[Prepared], settings: Settings) -> list[Prepared]:
    """The trial prompts without the end of a long continuation, which no tried edit is in.

    A trial makes whole passes. Where values come from another run, the whole text stays.
    """
    some = [one for ones in grouped(prompts[0], settings.interventions).values() for one in ones]
    if any(part.source is not None and part.source.from_run for one in some for part in one.parts):
        return list(prompts)
    places = {at for one in some for at in _flat(one.places) if at not in ("all", "rest")}
    return [_cut(one, places) for one in prompts]


def _flat(places: Iterable[At]) -> Iterator[str | int]:
    for at in places:
        yield from ([at] if isinstance(at, str | int) else _flat(at))


def _cut(one: Prepared, places: Iterable[str | int]) -> Prepared:
    """A prompt up to some tokens behind the last of its places."""
    prompt, tokens = one.prompt, one.tokens
    held = [p for at in places if not is_answer_position(at) for p in resolve(prompt, tokens, at)]
    end = max([*held, len(tokens)]) + BEHIND
    if end >= tokens.n_all:
        return one
    kept = end - len(tokens)
    cut = replace(tokens, given=tokens.given[:kept], given_offsets=tokens.given_offsets[:kept])
    last = cut.given_offsets[-1][1]
    spans = {name: span for name, span in prompt.spans.items() if int(span[1]) <= last}
    return Prepared(prompt.replace(spans=spans), cut)


def _complete(model: TransformerBridge, one: Prepared, settings: Settings) -> bool:
    kinds = {each.kind for each in settings.interventions}
    if {each.kind for each in settings.interventions if has_places(one, each)} != kinds:
        return False
    nothing = torch.empty(0)
    run = Run(one.prompt, one.tokens, nothing, {}, [], nothing, 0)
    try:
        for each in settings.parts:
            spec = None if each.source is None else each.source.run(one.prompt)
            check_spec(model, run, spec, settings)
    except Unavailable:
        return False
    return True


def _cells(
    binder: Binder, one: Intervention, layers: Sequence[int], numbers: Iterator[int], index: int = 0
) -> list[Cell]:
    """The cells of an intervention on one prompt that mean something."""
    model, run = binder.model, binder.clean[index]
    found = []
    for layer in one.cell_layers(layers) if no_place(run, one) is None else ():
        if all(_has_hooks(model, part, layer) for part in one.parts):
            cell = binder.cell(next(numbers), index, one, layer)
            if cell is not None and unseen_edge(run, cell, n_layers(model)) is None:
                found.append(cell)
    return found


def _has_hooks(model: TransformerBridge, one: Intervention, layer: int | None) -> bool:
    """Whether an edit can be made in every layer of its set; on attention, in the cell's own."""
    layers = one.layers_at(layer, n_layers(model))
    if one.edges is None:
        return all(has_hook(model, name, at) for at in layers for name, _ in one.sites)
    return any(has_hook(model, "attn_scores", at) for at in (layers if layer is None else [layer]))


def _shared(prompts: Sequence[Prepared]) -> list[Intervention]:
    """An edit that can be made in two prompts at once: where their tokens differ last."""
    if len(prompts) < 2:
        return []
    one, other = (prepared.tokens.ids for prepared in prompts)
    pos = max(i for i in range(len(one)) if one[i] != other[i])
    return [patch("resid_pre", pos, Probe(), name="in two prompts")]


def _strong(one: Intervention, layers: int) -> Intervention:
    """The same kind of edit, as strong as it gets, at one layer, and at the last token too."""
    changes: dict[str, Any] = {"window": 1, "name": f"maximal {one.name}"}
    if one.alpha is not None:
        changes["alpha"] = 1.0
    if one.moves:
        at = getattr(one, one.moves)
        one = one.moved([*([at] if isinstance(at, str | int) else at), "last"])
    return replace(one.maximal(layers, Probe()), **changes)


def _forms(
    one: Intervention, itself: Source, total: int
) -> tuple[list[Intervention], Intervention, Intervention | None]:
    """What is tried of an intervention, the same as a no-op, and as strong as it gets.

    A joint gets as strong as its parts, which are tried by themselves. Whether the trial prompt has
    a place in its answer is not known, and an edit there is an edit as any other: the last prompt
    token stands in for it, and alone in a free run, of which a trial writes no text.
    """
    tried = [one]
    if any(map(is_answer_position, one.places)) or in_own_text(one):
        tried = [*([] if in_own_text(one) else tried), stand_in(one)]
    idle = replace(tried[-1].no_op(itself), name=f"no-op {one.name}")
    return tried, idle, _strong(tried[-1], total) if len(one.parts) == 1 else None


def make_trial(
    model: TransformerBridge,
    prompts: Sequence[Prepared],
    settings: Settings,
    groups: Groups,
    layers: Sequence[int],
) -> Trial:
    """Record one or two prompts and bind the cells to be tried, at some layers of a sweep."""
    total = n_layers(model)
    itself, shared = Donor(prompts[0].prompt), _shared(prompts)
    forms = {kind: [_forms(one, itself, total) for one in ones] for kind, ones in groups.items()}
    every = [
        one
        for threes in forms.values()
        for ones, *others in threes
        for one in (*ones, *others)
        if one is not None
    ]
    everywhere = replace(settings, layers=tuple(range(total)))
    recorded = replace(everywhere, interventions=every + shared, direction="noising")
    binders = [Binder.of(model, prompts, recorded)]
    if settings.direction == "denoising":
        binders.append(_restoring(binders[0]))
    numbers = count()
    cells: dict[str, list[Cell]] = {kind: [] for kind in groups}
    no_ops: dict[str, list[Cell]] = {kind: [] for kind in groups}
    maximal: dict[str, list[Cell]] = {kind: [] for kind in groups}
    for kind, threes in forms.items():
        for ones, idle, strong in threes:
            for one, binder in product(ones, binders):
                cells[kind] += _cells(binder, one, layers, numbers)
            no_ops[kind] += _cells(binders[0], idle, layers, numbers)
            maximal[kind] += [] if strong is None else _merged(binders[0], strong, numbers)
    pair = [
        cell
        for one, index in product(shared, range(len(prompts)))
        for cell in _cells(binders[0], one, [total // 2], numbers, index)
    ]
    return Trial(binders[0].runs, cells, no_ops, maximal, pair)


def _restoring(binder: Binder) -> Binder:
    """Binds the same edits in the other direction, into the corrupted runs of the same trial."""
    other = copy(binder)
    other.settings = replace(binder.settings, interventions=[], direction="denoising")
    return other


def _merged(binder: Binder, strong: Intervention, numbers: Iterator[int]) -> list[Cell]:
    """One cell with the edits of all layers; none for an edit that names no heads at all."""
    parts: list[Cell] = []
    for layer in range(n_layers(binder.model)) if strong.heads != () else ():
        # Where a layer would leave a position nothing to attend to, it has no part in it.
        with suppress(InputError):
            parts += _cells(binder, strong, [layer], numbers)
    if not parts:
        return []
    layers = tuple(layer for cell in parts for layer in cell.layers)
    edits = tuple(edit for cell in parts for edit in cell.samples[0])
    return [replace(parts[0], layers=layers, samples=[edits])]
