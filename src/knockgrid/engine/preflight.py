"""Preflight: may this model, this kind of edit and this executor be trusted? And its receipt.

Some bridges discard an edit with no more than a warning, some lay an activation out in another way
than its name promises, and a fast path could be wrong on an architecture that nobody tried. So
before a sweep every kind of edit in it is made on this very model: its activations must be
`[pos, ...]`, a maximal edit must change the logits, a no-op must change nothing, and a few cells
must equal the reference executor, all in the one pass in which a sweep would carry them out.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass, replace
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.divergences.distribution import nan_rows
from knockgrid.edits.intervention import Cell, not_a_distribution
from knockgrid.engine import executors
from knockgrid.engine.bounds import bounded, bytes_held
from knockgrid.engine.executors import rectangle, reference, staircase
from knockgrid.engine.executors.executor import Executor
from knockgrid.engine.memory import TRIAL, Memory, is_out_of_memory
from knockgrid.engine.oracle import SINGLE, Seen, expected_of, largest, measure, tolerance_of
from knockgrid.engine.receipts import ANEW, Asked, Receipt, keep, kept, state_of
from knockgrid.engine.record import check_heads, record_full
from knockgrid.engine.settings import Settings
from knockgrid.engine.slower import NO_CACHE, warn_slow
from knockgrid.engine.trial import Trial, grouped, make_trial, shortened, trial_prompts
from knockgrid.errors import InputError, unknown
from knockgrid.host.hooks import user_hooks
from knockgrid.passes.answer_positions import is_answer_position
from knockgrid.passes.prepared import Prepared, ids_of
from knockgrid.spec import allowed


class Refused(Exception):
    """Why an executor cannot be used; it ends up in the receipt."""


ROUNDED = 1e-5
"""Relative difference of logits that is no more than the rounding of float32 parts in float64:
routers of experts and some attention modules compute in float32 whatever the model's dtype is."""
Kept = dict[tuple[Any, ...], list[tuple[Asked, tuple[Executor, Receipt]]]]
_RECEIPTS: "WeakKeyDictionary[TransformerBridge, Kept]" = WeakKeyDictionary()


def choose(
    model: TransformerBridge,
    ready: Sequence[Prepared],
    settings: Settings,
    executor: "str | Executor",
    memory: Memory,
) -> tuple[Executor, Receipt]:
    """The executor a sweep runs on, and what was seen when it was tried in passes that fit."""
    asked, hooks, reasons = _candidates(executor), user_hooks(model), list[str]()
    if hooks and asked != [reference]:
        reasons.append(
            f"the model carries hooks of your own (at {hooks[0]}), which were written for whole "
            "prompts"
        )
        asked = [reference]
    prompts = trial_prompts(model, ready, settings)
    if settings.anywhere:
        asked, prompts = [_anywhere(one) for one in asked], shortened(prompts, settings)
    wanted = _asked(prompts, settings, asked)
    found = None if hooks else _found(model, wanted, asked)
    if found is None:
        found = _try(model, prompts, settings, asked, executor != "auto", memory)
        if not hooks:
            _RECEIPTS.setdefault(model, {}).setdefault(state_of(model), []).append((wanted, found))
            if all(type(one).__module__.startswith("knockgrid.") for one in asked):
                keep(model, wanted, found[1])
    chosen, receipt = found
    for act_name, heads in receipt["heads"].items():
        what = f"activation {act_name!r} of {model.cfg.architecture}"
        check_heads(settings.interventions, act_name, heads, what)
    refused = {t["executor"]: t["refused"] for t in receipt["tried"] if "refused" in t}
    if reasons or refused:
        warn_slow(model, ready, settings, chosen.name, reasons, refused)
    return chosen, {**receipt, "user_hooks": hooks}


def _asked(prompts: Sequence[Prepared], settings: Settings, executors: Sequence[Executor]) -> Asked:
    groups = grouped(prompts[0], settings.interventions)
    # A source or place of its own can be refused where another of the same kind is not.
    kinds = Counter(
        f"{kind} at {one.places!r} from {[part.source for part in one.parts]!r}"
        for kind in groups
        for one in groups[kind]
    )
    several = settings.of_batch(prompts).n_tokens > 1
    more = (several, settings.persistent, settings.prepend_bos, settings.direction)
    return Asked(kinds, len(prompts), _some(settings), (*more, *map(repr, executors)))


def _found(
    model: TransformerBridge, wanted: Asked, asked: Sequence[Executor]
) -> tuple[Executor, Receipt] | None:
    """A receipt that holds for what is wanted: of this process, or out of the user's cache."""
    if ANEW.get():
        return None
    made = _RECEIPTS.setdefault(model, {}).setdefault(state_of(model), [])
    for before, found in made:
        if before.holds_for(wanted):
            return found
    receipt = kept(model, wanted)
    for one in asked:
        if receipt is not None and one.name == receipt["executor"]:
            found = _versions(one)[0 if receipt["lift"] else -1], receipt
            made.append((wanted, found))
            return found
    return None


def _candidates(executor: "str | Executor") -> list[Executor]:
    if executor == "auto":
        return [staircase, rectangle, reference]
    named = allowed("executor")
    if isinstance(executor, str):
        if executor not in named:
            raise unknown("executor", executor, named)
        return [getattr(executors, executor)]
    if not callable(executor) or not hasattr(executor, "needs_kv"):
        raise InputError(f"{executor!r} is not an executor; give one of {', '.join(named)}")
    return [executor]


def _anywhere(executor: Executor) -> Executor:
    """The executor as it measures whole texts; refused where it cannot."""
    if not hasattr(executor, "states") or not is_dataclass(executor):
        raise InputError(
            f"executor {executor.name!r} gives what follows a prompt and no states of a whole "
            "text; leave executor='auto', or measure out"
        )
    changes = {"lift": False} if _lifts(executor) else {}
    return cast(Executor, replace(cast(Any, executor), anywhere=True, **changes))


def _some(settings: Settings) -> tuple[int, ...]:
    """The first, middle and last of the layers."""
    layers = settings.layers
    return tuple(dict.fromkeys([layers[0], layers[len(layers) // 2], layers[-1]]))


def _try(
    model: TransformerBridge,
    prompts: Sequence[Prepared],
    settings: Settings,
    asked: Sequence[Executor],
    forced: bool,
    memory: Memory,
) -> tuple[Executor, Receipt]:
    _check_other_length(model, prompts[0], settings)
    in_answer = any(is_answer_position(at) for one in settings.interventions for at in one.places)
    n_tokens = settings.n_tokens if in_answer else min(2, settings.n_tokens)
    short = replace(settings, n_tokens=n_tokens, samples=1, all_logits=True)
    trial, no_cache = _recorded(model, prompts, short, any(each.needs_kv for each in asked))
    # Nothing but the passes can be made smaller here, so they get what the runs leave.
    bytes_left = None if memory.max_bytes is None else memory.max_bytes - bytes_held(trial.runs)
    expected = expected_of(model, trial, memory.most_rows or TRIAL)
    # A maximal edit may overflow in float16 and says nothing about the sweep.
    for cell in (cell for cells in trial.cells.values() for cell in cells):
        if bool(nan_rows(expected[cell.index].logits).any()):
            raise not_a_distribution(cell, trial.runs[cell.runs[0]].prompt)
    n_heads = Counter[str]()
    for (act_name, _), act in trial.runs[0].acts.items():
        n_heads[act_name] = max(n_heads[act_name], act.shape[1] if act.ndim > 2 else 0)
    receipt: Receipt = {
        "prompts": [one.prompt.id for one in prompts],
        "layers": list(_some(settings)),
        "maximal_effects": _check_effects(model, trial, expected),
        "unseen": [kind for kind, cells in trial.maximal.items() if not cells],
        "heads": dict(n_heads),
        "tried": [],
    }
    for candidate in [version for one in asked for version in _versions(one)]:
        try:
            if no_cache is not None and candidate.needs_kv:
                raise Refused(no_cache)
            kinds = _check(model, trial, expected, bounded(candidate, memory, bytes_left))
        except Refused as reason:
            if not _lifts(candidate):
                receipt["tried"].append({"executor": candidate.name, "refused": str(reason)})
        else:
            receipt["tried"].append({"executor": candidate.name, "kinds": kinds})
            return candidate, {"executor": candidate.name, "lift": _lifts(candidate), **receipt}
    last = receipt["tried"][-1]
    advice = (
        "; use executor='auto' or 'reference'"
        if forced and last["executor"] != reference.name
        else ""
    )
    raise InputError(
        f"executor {last['executor']!r} cannot be used on {model.cfg.architecture}: "
        f"{last['refused']}{advice}"
    )


def _lifts(executor: Executor) -> bool:
    return bool(getattr(executor, "lift", False))


def _versions(executor: Executor) -> list[Executor]:
    """An executor, and itself without the step that not every architecture bears."""
    if is_dataclass(executor) and _lifts(executor):
        return [executor, cast(Executor, replace(cast(Any, executor), lift=False))]
    return [executor]


def _check_other_length(model: TransformerBridge, prompt: Prepared, settings: Settings) -> None:
    """With as many tokens as the model has heads, a dimension of heads passes for one of tokens."""
    heads = {int(model.cfg.n_heads), int(getattr(model.cfg, "n_key_value_heads", None) or 0)}
    ids = ids_of(model, [prompt])[:, :-1]
    if len(prompt.tokens) in heads - {1}:
        record_full(model, ids, ids.shape[1], replace(settings, keep_kv=False))


def _recorded(
    model: TransformerBridge, prompts: Sequence[Prepared], settings: Settings, needs_kv: bool
) -> tuple[Trial, str | None]:
    """The cells to try, and why runs of this model hold no keys and values, if they do not."""
    groups, some = grouped(prompts[0], settings.interventions), _some(settings)

    def made(keep_kv: bool) -> Trial:
        return make_trial(model, prompts, replace(settings, keep_kv=keep_kv), groups, some)

    if not needs_kv:
        return made(keep_kv=False), None
    try:
        trial = made(keep_kv=True)
    except InputError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        return made(keep_kv=False), (
            "the model does not keep keys and values for every layer, as linear attention and "
            f"recurrent states have none ({_line(error)})"
        )
    return trial, None if all(run.kv for run in trial.runs) else NO_CACHE


def _line(error: Exception) -> str:
    """An exception in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _check_effects(
    model: TransformerBridge, trial: Trial, expected: Mapping[int, Seen]
) -> dict[str, float]:
    """A maximal edit must reach the logits, else every cell of its kind would be 0 by mistake."""
    found: dict[str, float] = {}
    for kind, cells in trial.maximal.items():
        if not cells:
            continue
        found[kind] = min(expected[cell.index].effect for cell in cells)
        if not found[kind] > 0:
            raise InputError(
                f"edits of kind {kind!r} do not reach the logits of {model.cfg.architecture}: even "
                "a maximal one changes nothing, as its bridge computes attention elsewhere or "
                "discards the edit; leave them out, other kinds are not affected"
            )
    return found


def _check(
    model: TransformerBridge, trial: Trial, expected: Mapping[int, Seen], executor: Executor
) -> Receipt:
    """What an executor gave for every kind of edit; refused where it differs from the reference."""
    seen = _carried_out(model, trial, expected, executor)

    def distance(cells: Sequence[Cell]) -> float:
        return largest(abs(seen[c.index].effect - expected[c.index].effect) for c in cells)

    tolerance = tolerance_of(model)
    rounding = largest(
        float((seen[i].logits - one.logits).abs().max() / one.logits.abs().max())
        for i, one in expected.items()
    )
    dtype = next(model.original_model.parameters()).dtype
    if dtype == torch.float64 and rounding <= ROUNDED:
        tolerance = replace(SINGLE, no_op=tolerance.no_op)
    together = {cell.index for cell in trial.pair}
    null = largest(seen[i].null for i in seen.keys() - together)
    if not null <= tolerance.agree:
        raise Refused(f"its unedited pass is {null:.1e} in JS away from the clean run")
    pair = max(distance(trial.pair), largest(seen[i].null for i in together))
    if not pair <= tolerance.agree:
        raise Refused(
            f"with two prompts in one pass it is {pair:.1e} in JS away from the reference"
        )
    kinds: Receipt = {}
    for kind in trial.cells:
        no_op = largest(seen[cell.index].effect for cell in trial.idle(kind))
        apart = distance(trial.edited(kind))
        if not no_op <= tolerance.no_op:
            raise Refused(f"a no-op of kind {kind!r} moves JS by {no_op:.1e}")
        if not apart <= tolerance.agree:
            raise Refused(f"{kind!r} differs from the reference by {apart:.1e} in JS")
        kinds[kind] = {"no_op": no_op, "max_difference": apart}
    return kinds


def _carried_out(
    model: TransformerBridge, trial: Trial, expected: Mapping[int, Seen], executor: Executor
) -> dict[int, Seen]:
    """All cells in one go, and those that can be taken from another run once more by themselves."""
    if executor is reference:
        return {**expected, **measure(model, trial.runs, trial.idle(*trial.cells), reference)}

    def measured(*kinds: str) -> dict[int, Seen]:
        cells = [*trial.edited(*kinds), *trial.idle(*kinds), *trial.pair]
        seen = measure(model, trial.runs, cells, executor)
        if _lifts(executor):
            # Maximal edits begin early, and a pass with them in it takes no edit from a cache.
            lifted = [cell for cell in cells if any(one.prefix for one in cell.samples[0])]
            seen |= measure(model, trial.runs, lifted, executor) if lifted else {}
        return seen

    try:
        return measured(*trial.cells)
    except Exception as together:
        if is_out_of_memory(together):  # says nothing of the executor
            raise
        for kind in trial.cells:  # to be able to say which it was
            try:
                measured(kind)
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                raise Refused(f"{kind!r} raised {_line(error)}") from error
        raise Refused(f"all kinds together raised {_line(together)}") from together
