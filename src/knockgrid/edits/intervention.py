"""Intervention: what is blocked, where, with what. Cell: one intervention at one layer."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Real
from typing import Any, ClassVar

from torch import Tensor

from knockgrid.display.listing import listing
from knockgrid.edits.layers import Window, checked_window, has_own_layers, in_words, layer_set
from knockgrid.errors import InputError, as_int, shown, unknown
from knockgrid.passes.answer_positions import positions_in
from knockgrid.passes.edit import Edit, taken
from knockgrid.passes.run import Run
from knockgrid.prompts.positions import At, place_of
from knockgrid.prompts.prompt import Prompt
from knockgrid.sources.source import Source, Where, aligned
from knockgrid.table.treatments import ROLES

Statistics = Mapping[tuple[str, int, str], tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Place:
    """What an intervention may ask while it is bound to one prompt, layer and sample."""

    run: Run
    layer: int
    source_run: Run | None
    statistics: Statistics
    seed: int
    sample: int
    persistent: bool

    def pos(self, at: At) -> tuple[int, ...]:
        """Prompt positions of a place."""
        return positions_in(self.run, at)

    def query_pos(self, at: At) -> tuple[int, ...]:
        """Query positions of a place; a persistent edit binds every generated query as well."""
        generated = range(self.run.n_prompt, len(self.run.ids)) if self.persistent else ()
        return (*self.pos(at), *generated)

    def value(self, source: Source, act_name: str, at: At) -> Tensor:
        """What the source puts at a place, `[pos, ...]`."""
        pos = self.pos(at)
        moments = self.statistics.get((act_name, self.layer, repr(at)), (None, None))
        key = (self.seed, self.run.prompt.id, source.label, self.sample)
        base, other = taken(self.run.acts[act_name, self.layer], pos), self.source_run
        run_pos = () if other is None else source.run_pos(self.run, other, at, pos)
        where = Where(act_name, self.layer, base, key, other, run_pos, *moments)
        value = source.value(where)
        if value.shape != base.shape:
            raise InputError(
                f"source {source.label!r} gives a value of shape {tuple(value.shape)} for "
                f"{act_name!r} at layer {self.layer}, which has {tuple(base.shape)}"
            )
        return value

    def cached(self, at: At) -> tuple[Tensor, Tensor] | None:
        """Keys and values of the source's run at a place, `[pos, head, d_head]`, if they fit.

        A cache holds keys after the rotary embedding, so they fit at the same positions only.
        """
        if self.source_run is None or not self.source_run.kv:
            return None
        pos = self.pos(at)
        if aligned(self.run, self.source_run, at, pos) != pos:
            return None
        k, v = self.source_run.kv[self.layer]
        return taken(k, pos, 1).transpose(0, 1), taken(v, pos, 1).transpose(0, 1)


def heads_of(given: Any) -> tuple[int, ...] | None:
    """Heads as a user writes them: one, several, or None for all."""
    if given is None:
        return None
    several = isinstance(given, Iterable) and not isinstance(given, str | bytes)
    heads = tuple(as_int(head) for head in (given if several else [given]))
    if any(isinstance(head, bool) or not isinstance(head, int) for head in heads):
        raise InputError(f"heads are {shown(given)}; give whole numbers, such as heads=[0, 3]")
    return heads


@dataclass(frozen=True, kw_only=True)
class Intervention(ABC):
    """A frozen description of what is blocked: a formula, not an action.

    `name` is the row in tables, `label` the text on an axis.
    `window` is a number of layers around the cell's layer, or `"only"`, `"all_but"`, `"from"`,
    `"up_to"`, or a set of layers that is the same in every cell, of which there is then one;
    `source` is None where something is only taken away. `head`, `module`, `position` and `span` are
    set on the members of `per_head`, `per_module`, `per_position` and `per_span`. `parts` are the
    edits that are made together: itself, or those of a `joint`. `role` is "treatment",
    "null" (should do nothing) or "contrast" (more than what?); `of` then names the treatment's row.
    """

    window: Window = 1
    name: str = ""
    label: str = ""
    source: Source | None = None
    heads: tuple[int, ...] | None = None
    alpha: float | None = None
    head: int | None = None
    module: str | None = None
    position: str | None = None
    span: str | None = None
    role: str = "treatment"
    of: str | None = None
    n_rows: int = field(default=1, init=False)
    """Batch rows one cell needs."""
    moves: ClassVar[str] = ""
    """The field that says which positions it writes, by which preflight moves it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "window", checked_window(self.window))
        for name in (one.name for one in fields(self) if one.name in ("pos", "dest", "src")):
            object.__setattr__(self, name, place_of(getattr(self, name)))
        alpha, has_none = self.alpha, type(self).alpha is None
        known = isinstance(alpha, Real) and not isinstance(alpha, bool) and math.isfinite(alpha)
        if not known and not (alpha is None and has_none):
            raise InputError(f"alpha is {shown(alpha)}; give a share of the way, such as 0.5")
        for text in ("name", "label"):
            if not isinstance(given := getattr(self, text), str):
                raise InputError(f"{text} is {shown(given)}, which is no text")
        if self.role not in ROLES:
            raise unknown("role", self.role, ROLES)
        if not self.name:
            object.__setattr__(self, "name", self.default_name())
        if not self.label:
            object.__setattr__(self, "label", self.name)

    @abstractmethod
    def default_name(self) -> str:
        """The row's name where the user gave none."""

    @abstractmethod
    def edits(self, place: Place) -> tuple[Edit, ...]:
        """The writes at one layer of the set."""

    @property
    @abstractmethod
    def sites(self) -> tuple[tuple[str, At], ...]:
        """The activations, with their places, for which values are needed."""

    @property
    @abstractmethod
    def kind(self) -> str:
        """What preflight checks once per model: the kind of edit, such as `patch resid_post`."""

    @property
    def parts(self) -> "tuple[Intervention, ...]":
        """The edits that one cell makes together."""
        return (self,)

    @property
    def in_family(self) -> bool:
        """Whether it is a member of a family of places, which a prompt may lack."""
        return self.position is not None or self.span is not None

    @property
    def has_own_layers(self) -> bool:
        """Whether it edits the same layers whatever the sweep's are, in one cell."""
        return all(has_own_layers(one.window) for one in self.parts)

    def cell_layers(self, layers: Sequence[int]) -> Sequence[int | None]:
        """The layers that its cells stand for; None for the one that has layers of its own."""
        return [None] if self.has_own_layers else layers

    def layers_at(self, layer: int | None, n_layers: int) -> tuple[int, ...]:
        """The exact set of layers that the cell at `layer` edits."""
        sets = (layer_set(one.window, layer or 0, n_layers) for one in self.parts)
        return tuple(sorted({at for some in sets for at in some}))

    @property
    def source_label(self) -> str | None:
        """Where its values come from, in words; None where it needs none."""
        labels = [one.source.label for one in self.parts if one.source is not None]
        return " + ".join(dict.fromkeys(labels)) or None

    @property
    def edges(self) -> tuple[At, At] | None:
        """(query, key) places for interventions on attention, else None."""
        return None

    @property
    def row(self) -> str:
        """What figures call its row: the place it edits, or `attention`."""
        return "attention" if self.edges else str(self.sites[0][1]) if self.sites else self.name

    @property
    def place(self) -> str:
        """Where it edits, in words."""
        return " <- ".join(map(str, self.edges or [at for _, at in self.sites[:1]]))

    @property
    def written(self) -> list[At]:
        """The places it writes at: its queries, or where its activations are."""
        return list(self.edges[:1]) if self.edges else [at for _, at in self.sites]

    @property
    def places(self) -> list[At]:
        """Every place it names, those it edits and those that are seen."""
        return [at for _, at in self.sites] + list(self.edges or ())

    def moved(self, at: At) -> "Intervention":
        """The same edit at different positions; itself where no field says which it writes."""
        changes: dict[str, Any] = {self.moves: at} if self.moves else {}
        return replace(self, **changes)

    def no_op(self, itself: Source) -> "Intervention":
        """The same kind of edit, changing nothing: its source is the edited run itself."""
        return replace(self, source=itself)

    def maximal(self, n_layers: int, strong: Source) -> "Intervention":
        """The same kind of edit at every layer, as strong as it gets."""
        source = None if self.source is None else strong
        return replace(self, window=2 * n_layers, source=source)

    def _repr_html_(self) -> str:
        name, *described = self.describe().items()
        return listing(f"{type(self).__name__} {name[1]}", described)

    def describe(self) -> dict[str, Any]:
        """What tables, manifests and methods paragraphs say of it."""
        return {
            "name": self.name,
            "row": self.row,
            "kind": self.kind,
            "window": in_words(self.window),
            "source": self.source_label,
            "corruption": None if self.source is None else self.source.corruption,
            "place": self.place,
            "role": self.role,
            "of": self.of,
        }


@dataclass(frozen=True, eq=False)
class Cell:
    """One intervention at one layer (and head, module or position, where it has one) on one prompt.

    `prompt` counts in the batch. For each sample, `runs` is the index of the base run in the batch
    and `samples` the edits; `layers` is the exact layer set. `token` is the only measured token, or
    None for all of them. `layer` is None where the intervention has layers of its own.
    """

    index: int
    prompt: int
    runs: tuple[int, ...]
    intervention: Intervention
    layer: int | None
    layers: tuple[int, ...]
    samples: Sequence[tuple[Edit, ...]]
    token: int | None = None

    @property
    def n_rows(self) -> int:
        """Batch rows that one sample of this cell needs."""
        return self.intervention.n_rows

    def __repr__(self) -> str:
        name = self.intervention.name
        return f"Cell({name!r}, layer={self.layer}, prompt={self.prompt})"


def not_a_distribution(cell: Cell, prompt: Prompt) -> InputError:
    """The error for logits that cannot be compared."""
    at = "layers of its own" if cell.layer is None else f"layer {cell.layer}"
    return InputError(
        f"the logits are NaN or +inf at prompt {prompt.id!r}, intervention "
        f"{cell.intervention.name!r}, {at}; try another dtype or source"
    )


def layers_of(
    interventions: Sequence[Intervention], layers: Sequence[int], n_layers: int
) -> Iterator[tuple[Intervention, set[int]]]:
    """Every edit by itself, with all the layers at which cells over `layers` make it."""
    for one in interventions:
        for part in one.parts:
            sets = (part.layers_at(at, n_layers) for at in one.cell_layers(layers))
            yield part, set().union(*sets)


def is_random(one: Intervention) -> bool:
    """Whether further samples of an intervention differ."""
    return any(part.source is not None and part.source.random for part in one.parts)


def listed(interventions: Iterable[Intervention] | Intervention) -> list[Intervention]:
    """One intervention, or several, as a list."""
    several = isinstance(interventions, Iterable) and not isinstance(interventions, str | Mapping)
    return list(interventions) if several else [interventions]  # type: ignore[list-item]


def check_names(interventions: Sequence[Intervention]) -> None:
    """Refuse an empty list, or two interventions that would share a row of the table."""
    if not interventions:
        raise InputError("no interventions given; pass information_flow() or a list of them")
    for one in interventions:
        if not isinstance(one, Intervention):
            raise InputError(
                f"{shown(one)} is not an intervention; use patch(), knockout(), edge_patch() or "
                "information_flow()"
            )
    names = [one.name for one in interventions]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two interventions are named {name!r}; give each its own name=")
