"""The families: one intervention at several doses, heads, modules, positions or sets of layers."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from transformer_lens.model_bridge import TransformerBridge

from knockgrid.edits.edges import EdgePatch, Knockout
from knockgrid.edits.intervention import Intervention
from knockgrid.edits.layers import RULES, Window
from knockgrid.edits.patch import Patch, patch
from knockgrid.errors import InputError
from knockgrid.host.bridge import load
from knockgrid.host.modules import module_acts
from knockgrid.prompts.positions import At, Position
from knockgrid.sources.other_run import Donor
from knockgrid.sources.source import Source

Dosed = TypeVar("Dosed", Patch, EdgePatch)
Headed = TypeVar("Headed", Knockout, EdgePatch, Patch)
Kind = TypeVar("Kind", bound=Intervention)


def _each_once(what: str, given: Any, advice: str) -> list[Any]:
    several = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else []
    if not several or len(set(several)) < len(several):
        raise InputError(f"{what} are {given!r}; give {advice}, each once")
    return several


def per_alpha(intervention: Dosed, alphas: Sequence[float]) -> list[Dosed]:
    """The same patch at several shares of the way to the source: dose and response.

    Example:
        >>> import knockgrid as kg
        >>> [one.alpha for one in kg.edits.per_alpha(kg.patch("resid_post", "subject"), [0.5, 1.0])]
        [0.5, 1.0]

    `alpha` is 0 at the clean value and 1 at the source's; it is a column of the table. No doses, or
    one given twice, are an `InputError`.
    """
    if not isinstance(intervention, Patch | EdgePatch):
        raise InputError(f"{intervention!r} has no alpha; use patch() or edge_patch()")
    return [
        replace(intervention, alpha=float(a), name=f"{intervention.name} x {a:g}")
        for a in _each_once("alphas", alphas, "a list of shares of the way")
    ]


def per_head(intervention: Headed, heads: int | Sequence[int]) -> list[Headed]:
    """The same intervention limited to each head in turn: the rows of a layer × head grid.

    Example:
        >>> import knockgrid as kg
        >>> [one.name for one in kg.per_head(kg.knockout(window=1), 2)]
        ['subject->last head 0', 'subject->last head 1']

    `heads` is a number of heads or a list of head indices (query heads; for `k` and `v` those of
    the activation). `patch("z", "last")` patches what each head adds before the output projection.
    `head` is a column of the table. No heads, one given twice, or an intervention that is limited
    to heads already are an `InputError`.
    """
    if not isinstance(intervention, Intervention):
        raise InputError(f"{intervention!r} has no heads; use knockout(), edge_patch() or patch()")
    if intervention.heads is not None:
        raise InputError(f"{intervention.name!r} is limited to heads already; leave heads= out")
    several = range(heads) if isinstance(heads, int) else heads
    return [
        replace(
            intervention,
            head=head,
            heads=(head,),
            name=f"{intervention.name} head {head}",
            label=f"head {head}",
        )
        for head in _each_once("heads", several, "a number of heads or a list of them")
    ]


def per_module(
    model: str | TransformerBridge,
    pos: At = "all",
    source: Source | None = None,
    modules: Sequence[str] | None = None,
) -> list[Patch]:
    """Patch the output of each module in turn: the columns of a layer × module grid.

    Example:
        >>> import knockgrid as kg
        >>> [one.module for one in kg.per_module("demo", "last")][:4]
        ['attn. q', 'attn. k', 'attn. v', 'attn. o']

    Modules are `attn. q`, `attn. k`, `attn. v`, `attn. o`, `mlp. up`, `mlp. down`, `mlp. gate`,
    as far as the architecture has them; joint projections are split, experts are summed in
    `mlp. down`. q, k and v are taken before the rotary embedding, up and gate before the
    nonlinearity. `source` is by default the corrupted run. `module` is a column of the table.

    Raises:
        InputError: a module that the model lacks, with those it has.
    """
    acts = module_acts(load(model), None if modules is None else list(modules))
    return [
        replace(patch(act_name, pos, source, name=f"{label}@{pos}", label=label), module=label)
        for label, act_name in acts.items()
    ]


def per_position(intervention: Patch, positions: int | Sequence[Position]) -> list[Patch]:
    """The same patch at each position in turn: the columns of a layer × position grid.

    Example:
        >>> import knockgrid as kg
        >>> one = kg.patch("resid_post", "last")
        >>> [each.position for each in kg.per_position(one, ["subject_last", "last"])]
        ['subject_last', 'last']

    `positions` are position names, indices, or a number of tokens (0 to n - 1). Besides the names
    of `token_positions` there are those of the answer (Orgad et al., arXiv 2410.02707): `last_q`,
    `first_answer`, `exact_answer_last`, ... and `"-1"`, `"-2"`, ... from the end of prompt and
    output; they need `n_tokens` > 1. In a free run there is `last+k`, whose state writes token k of
    the text. A prompt that lacks a position has NA there. Each cell is measured at the token right
    after its position (token 0 for the prompt). `position` is a column of the table. No positions,
    or one given twice, are an `InputError`.
    """
    if not isinstance(intervention, Patch):
        raise InputError(f"{intervention!r} is not a patch; per_position() moves a patch()")
    chosen = list(range(positions)) if isinstance(positions, int) else list(positions)
    negative = [at for at in chosen if isinstance(at, int) and at < 0]
    if negative:
        raise InputError(
            f"position {negative[0]} counts from the end, of the prompt or of its answer? Write "
            f"'last' or an index from 0 for the prompt, the text '{negative[0]}' for the output"
        )
    names = _each_once("positions", list(map(str, chosen)), "names or indices")
    act_name = intervention.act_name
    return [
        replace(intervention, pos=at, position=name, name=f"{act_name}@{name}", label=name)
        for at, name in zip(chosen, names, strict=True)
    ]


def per_span(intervention: Kind, spans: Sequence[str]) -> list[Kind]:
    """The same intervention at each named span in turn: the rows of a span × span grid.

    Example:
        >>> import knockgrid as kg
        >>> cut = kg.knockout("last", "span", layers="all")
        >>> [one.name for one in kg.per_span(cut, ["s0", "s1"])]
        ['s0->last at all layers', 's1->last at all layers']

    The word "span" stands for the span in the places of the intervention: `src="span"`,
    `dest="span"`, `pos="span"`, or in a list of places. A prompt that lacks a span has NA there.
    `span` is a column of the table. Spans may overlap; then so do the rows.

    Raises:
        InputError: no spans, or one given twice, or an intervention without "span" among its
            places.
    """
    found = []
    for name in _each_once("spans", spans, "a list of names of spans"):
        made = _at_span(intervention, name)
        if made is intervention:
            raise InputError(
                f"{intervention.name!r} has no place 'span' to put a span in; write it as src, "
                "dest or pos, as in knockout('last', 'span')"
            )
        own = intervention.name != intervention.default_name()
        called = f"{intervention.name} {name}" if own else made.default_name()
        found.append(replace(made, span=name, name=called, label=name))
    return found


def _at_span(one: Any, name: str) -> Any:
    """An intervention with a span in place of the word; of a joint, its parts."""
    if len(one.parts) > 1:
        parts = tuple(_at_span(part, name) for part in one.parts)
        named = tuple(replace(part, name=part.default_name()) for part in parts)
        return one if parts == one.parts else replace(one, members=named)
    places = {field: getattr(one, field) for field in ("pos", "dest", "src") if hasattr(one, field)}
    changes = {field: _put(at, name) for field, at in places.items() if _put(at, name) != at}
    return replace(one, **changes) if changes else one


def _put(at: At, name: str) -> At:
    if isinstance(at, str | int):
        return name if at == "span" else at
    return [name if one == "span" else one for one in at]


def per_source_layer(intervention: Patch, layers: int | Sequence[int]) -> list[Patch]:
    """The same patch with values from each layer of its donor in turn: a layer × layer grid.

    Example:
        >>> import knockgrid as kg
        >>> prompt = kg.Prompt("Lima is in", spans={"subject": "Lima"})
        >>> row = kg.patch("resid_post", "subject_last", kg.donor(prompt))
        >>> [one.source.layer for one in kg.edits.per_source_layer(row, [4, 20])]
        [4, 20]

    `layers` is a number of layers or a list of them; the cell's layer is where the value goes.
    `source_layer` is a column of the table; `layer_pair_heatmap` draws it.

    Raises:
        InputError: no layers, or one given twice, or a patch whose source is no `donor()`.

    Source: Patchscopes (arXiv 2401.06102); back-patching (Biran et al. 2024, arXiv 2406.12775).
    """
    source = intervention.source if isinstance(intervention, Patch) else None
    if not isinstance(source, Donor):
        raise InputError(f"{intervention!r} has no donor(); give patch(act_name, pos, donor(...))")
    several = range(layers) if isinstance(layers, int) else layers
    return [
        replace(
            intervention,
            source=replace(source, layer=layer),
            name=f"{intervention.name} from layer {layer}",
            label=f"from {layer}",
        )
        for layer in _each_once("layers", several, "a number of layers or a list of them")
    ]


def per_window(intervention: Kind, windows: Sequence[Window] = RULES) -> list[Kind]:
    """The same intervention over each set of layers in turn, by default every rule.

    Example:
        >>> import knockgrid as kg
        >>> [one.name for one in kg.edits.per_window(kg.knockout(), ["only", "from"])]
        ['subject->last only', 'subject->last from']

    `only` edits the cell's layer, `all_but` every other one, `from` that layer and all above,
    `up_to` that layer and all below; a number is a window around it. `redundancy` compares them. No
    windows, or one given twice, are an `InputError`.
    """
    name, label = intervention.name, intervention.label
    return [
        replace(intervention, window=window, name=f"{name} {window}", label=f"{label} {window}")
        for window in _each_once("windows", windows, "a list of sets of layers")
    ]
