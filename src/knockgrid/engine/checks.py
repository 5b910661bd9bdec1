"""What a sweep refuses before anything is computed or written."""

import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

from transformer_lens.model_bridge import TransformerBridge

from knockgrid.divergences.divergence import UNITS, Divergence, measures_of
from knockgrid.edits.intervention import Intervention, layers_of
from knockgrid.engine.executors.executor import Executor
from knockgrid.engine.own_text import in_own_text
from knockgrid.errors import InputError, check_counts, shown, unknown
from knockgrid.host.bridge import has_hook, hook_name, n_layers
from knockgrid.passes.answer_positions import is_answer_position, steps_in
from knockgrid.passes.prepared import Prepared
from knockgrid.prompts.positions import At, lacks, resolve
from knockgrid.spec import METRICS, Spec
from knockgrid.table.measures import MEASURES
from knockgrid.table.table import COLUMNS

TAKEN = {column.name for column in COLUMNS if column.name not in MEASURES}
MODES = ("prompt_only", "persistent", "free_run")
DIRECTIONS = ("noising", "denoising")


def check_options(mode: str, metrics: Any, unit: str, direction: str) -> list[Divergence]:
    """The measures asked for, once every word among the options has been checked."""
    for name, given, allowed in (
        ("mode", mode, MODES),
        ("unit", unit, tuple(UNITS)),
        ("direction", direction, DIRECTIONS),
    ):
        if given not in allowed:
            raise unknown(name, given, allowed)
    measures = measures_of(metrics)
    for one in measures:
        taken = one.name in TAKEN or MEASURES.get(one.name, one.facts) != one.facts
        if taken or not one.name.isidentifier():
            raise InputError(
                f"a measure is named {one.name!r}, which cannot be its column; give another name"
            )
    return measures


def check_measure(spec: Spec, measures: list[Divergence]) -> list[Divergence]:
    """The measures that every position has, where the whole text is measured."""
    given = spec.measure
    if given is None:
        return measures
    names = [] if isinstance(given, str) or not isinstance(given, Sequence) else list(given)
    if given not in ("all", "tokens") and not (names and all(isinstance(n, str) for n in names)):
        raise InputError(
            f"measure is {shown(given)}; give 'all' (every span of a prompt), a list of names of "
            "spans, or 'tokens'"
        )
    if spec.mode == "free_run":
        raise InputError(
            "mode='free_run' writes its own text, which has no spans to measure; use "
            "mode='prompt_only' with Prompt(continuation=)"
        )
    free = [one for one in measures if not one.needs]
    if list(spec.metrics) != list(METRICS) and (left := [m.name for m in measures if m.needs]):
        raise InputError(
            f"metrics {', '.join(map(repr, left))} compare answers or runs after the prompt, and "
            f"measure={given!r} takes the whole text; leave them out"
        )
    return free


def check_spans(
    ready: Sequence[Prepared], interventions: Sequence[Intervention], measure: Any
) -> None:
    """Refuse measured spans that no prompt has, and say which spans share tokens."""
    everything, named = measure == "all", [] if isinstance(measure, str | None) else measure
    there = dict.fromkeys(name for one in ready for name in one.prompt.span_names)
    bare = next((one.prompt for one in ready if not one.prompt.spans), None)
    if everything and bare is not None:
        raise InputError(
            f"prompt {bare.id!r} has no span to measure; give it some, as in "
            "prompt.with_spans(kg.sentences(prompt)), or measure='tokens'"
        )
    for name in named:
        if name not in there:
            raise unknown("measured span", name, tuple(there))
    rows = [one.span for one in interventions if one.span is not None]
    for one in ready:
        names = one.prompt.span_names if everything else named
        pairs = overlapping(one, dict.fromkeys([*names, *rows]))
        if pairs:
            more = f" (and {len(pairs) - 1} more pairs)" if len(pairs) > 1 else ""
            a, b = pairs[0]
            warnings.warn(
                f"spans {a!r} and {b!r} of prompt {one.prompt.id!r} share tokens{more}; "
                "these count in both",
                stacklevel=2,
            )
            return


def overlapping(one: Prepared, names: Iterable[str]) -> list[tuple[str, str]]:
    """Spans that share tokens, each pair once."""
    found, owners = dict[tuple[str, str], None](), dict[int, list[str]]()
    for name in names:
        if lacks(one.prompt, one.tokens, name):
            continue
        for p in resolve(one.prompt, one.tokens, name):
            here = owners.setdefault(p, [])
            found.update(dict.fromkeys((other, name) for other in here))
            here.append(name)
    return list(found)


def check_temperature(given: Any) -> None:
    """Refuse a temperature that no distribution has."""
    number = isinstance(given, int | float) and not isinstance(given, bool)
    if not number or not 0 < given < math.inf:
        raise InputError(
            f"temperature is {shown(given)}; give a number above 0, 1 for the model's own "
            "distributions"
        )


def check_sampled(spec: Spec) -> None:
    """Refuse sampled runs where no text is written, or where values are drawn as well."""
    given = spec.sampled_runs
    if given is None:
        return
    check_counts(sampled_runs=given)
    if spec.mode != "free_run":
        raise InputError(
            f"sampled_runs is {given}, and mode={spec.mode!r} writes no text; give mode='free_run'"
        )
    if spec.samples != 1:
        raise InputError("sampled_runs and samples are both given; draw texts or values, not both")
    if spec.direction != "noising":
        raise InputError(
            f"direction={spec.direction!r} edits a corrupted run, whose texts are no clean ones to "
            "compare sampled runs with; use direction='noising'"
        )


def check_free_run(
    ready: Sequence[Prepared], interventions: Sequence[Intervention], executor: "str | Executor"
) -> None:
    """Refuse what cannot be free: places in the clean answer, and executors that follow it."""
    if executor not in ("auto", "reference"):
        raise InputError(
            "mode='free_run' generates step by step: leave executor='auto', or give 'reference' "
            "for steps without a cache"
        )
    for given in (prepared.prompt for prepared in ready if prepared.tokens.given):
        raise InputError(
            f"prompt {given.id!r} has a continuation, and in mode='free_run' the model writes its "
            "own; use mode='prompt_only', or leave the continuation out"
        )
    for one in interventions:
        if any(is_answer_position(at) and not steps_in(at) for at in one.places):
            raise InputError(
                f"intervention {one.name!r} is placed in the clean answer, and in mode='free_run' "
                "the answer is another one; use mode='prompt_only', or a place of the text that "
                "is written: 'last+1', ..."
            )


def check_edits(
    model: TransformerBridge, interventions: Sequence[Intervention], layers: Sequence[int]
) -> None:
    """Refuse heads and activations that the model does not have."""
    n_heads, total = int(model.cfg.n_heads), n_layers(model)
    for one, inside in layers_of(interventions, layers, total):
        names = [act_name for act_name, _ in one.sites]
        for head in one.heads or ():
            if not 0 <= head < n_heads:
                raise InputError(
                    f"intervention {one.name!r} names head {head}, and the model has heads 0 to "
                    f"{n_heads - 1}"
                )
        if one.source is not None:
            for act_name in names:
                one.source.check(act_name, total)
        for layer in sorted(inside):
            if one.edges is not None and not has_hook(model, "attn_scores", layer):
                continue
            for act_name in names:
                parts = (act_name, "attn_out") if act_name == "resid_mid" else ()
                if not all(has_hook(model, part, layer) for part in parts):
                    raise InputError(
                        f"{model.cfg.architecture} has no 'resid_mid' at layer {layer}: no stream "
                        "lies between attention and MLP there; patch 'resid_pre', 'attn_out' or "
                        "'mlp_out'"
                    )
                hook_name(model, act_name, layer)


def check_places(
    ready: Sequence[Prepared],
    interventions: Sequence[Intervention],
    n_tokens: int,
    writes: bool = False,
) -> None:
    """Resolve every place in every prompt once, before anything is computed.

    `writes` says that a text is written, which has places of its own.
    """
    for one in interventions:
        if in_own_text(one) and not writes:
            raise InputError(
                f"intervention {one.name!r} names a place of the text that a free run writes "
                "('last+k'), and none is written here; give mode='free_run', or a place of the "
                "clean answer, such as 'first_answer'"
            )
        for at in (at for at in one.places if not steps_in(at)):
            if one.in_family:  # absent places are NA, prompt by prompt
                _check_family(ready, one, at, n_tokens)
                continue
            for prepared in ready:
                found = resolve(prepared.prompt, prepared.tokens, at)
                if not found and one.role == "treatment":  # others lose the prompt, and count it
                    raise InputError(
                        f"place {at!r} is empty in prompt {prepared.prompt.id!r} "
                        f"({shown(prepared.prompt.text)}); leave the prompt out or name another "
                        "place"
                    )


def _check_family(ready: Sequence[Prepared], one: Intervention, at: At, n_tokens: int) -> None:
    """Refuse a position that no prompt can have: a misspelt name, or one that is not measured."""
    if not is_answer_position(at):
        reasons = list[InputError]()
        for prepared in ready:
            try:
                resolve(prepared.prompt, prepared.tokens, at)
                return
            except InputError as reason:
                reasons.append(reason)
        raise reasons[0]
    if at != "last_q" and n_tokens < 2:
        raise InputError(
            f"position {at!r} may lie after the prompt; give n_tokens=2 or more, so that there is "
            "an answer"
        )
    if one.source is not None and one.source.needs_statistics:
        raise InputError(
            f"source {one.source.label!r} is taken over the prompts, which have no {at!r}; use "
            "corrupted_run(), zero() or fixed()"
        )
