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
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.divergences.distribution import nan_rows
from knockgrid.edits.intervention import Cell, not_a_distribution
from knockgrid.engine import executors
from knockgrid.engine.bounds import bounded, bytes_held
from knockgrid.engine.executors import rectangle, reference, staircase
from knockgrid.engine.executors.executor import Executor
from knockgrid.engine.memory import TRIAL, Memory, is_out_of_memory
from knockgrid.engine.oracle import SINGLE, Seen, expected_of, largest, measure, tolerance_of
from knockgrid.engine.receipts import Asked, Receipt, are_ignored, keep, kept, state_of
from knockgrid.engine.record import check_heads, record_full
from knockgrid.engine.settings import Settings
from knockgrid.engine.slower import NO_CACHE, warn_slow
from knockgrid.engine.trial import Trial, first_complete, grouped, make_trial, partner_of
from knockgrid.errors import InputError, unknown
from knockgrid.host.hooks import user_hooks
from knockgrid.passes.answer_positions import is_answer_position
from knockgrid.passes.prepared import Prepared, ids_of
from knockgrid.passes.run import Run
from knockgrid.spec import allowed


class Refused(Exception):
    """Why an executor cannot be used; it ends up in the receipt."""


ROUNDED = 1e-5
"""Relative difference of logits that is no more than the rounding of float32 parts in float64.

Routers of experts and some attention modules compute in float32 whatever the model's dtype is.
"""


def choose(
    model: TransformerBridge,
    ready: Sequence[Prepared],
    settings: Settings,
    executor: "str | Executor",
    memory: Memory,
) -> tuple[Executor, Receipt]:
    """The executor a sweep runs on, and what was seen when it was tried in passes that fit.

    Raises:
        InputError: an unknown executor, a kind of edit that cannot be made on this model, or an
            executor that was asked for by name and does not agree with the reference.
    """
    asked = _candidates(executor)
    hooks = user_hooks(model)
    reasons: list[str] = []
    if hooks and asked != [reference]:
        reasons.append(
            f"the model carries hooks of your own (at {hooks[0]}), which were written for whole "
            "prompts"
        )
        asked = [reference]
    prompt = first_complete(model, ready, settings)
    partner = partner_of(prompt, ready)
    prompts = [prompt] if partner is None else [prompt, partner]
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


Kept = dict[tuple[Any, ...], list[tuple[Asked, tuple[Executor, Receipt]]]]
_RECEIPTS: "WeakKeyDictionary[TransformerBridge, Kept]" = WeakKeyDictionary()


def _asked(prompts: Sequence[Prepared], settings: Settings, executors: Sequence[Executor]) -> Asked:
    """What a receipt has to hold for."""
    groups = grouped(prompts[0], settings.interventions)
    # A source or place of its own can be refused where another of the same kind is not.
    kinds = Counter(
        f"{kind} at {one.places!r} from {one.source!r}" for kind in groups for one in groups[kind]
    )
    more = (settings.n_tokens > 1, settings.persistent, settings.prepend_bos, settings.direction)
    executed = tuple(map(repr, executors))
    return Asked(kinds, len(prompts), _some(settings.layers), (*more, *executed))


def _found(
    model: TransformerBridge, wanted: Asked, asked: Sequence[Executor]
) -> tuple[Executor, Receipt] | None:
    """A receipt that holds for what is wanted: of this process, or out of the user's cache."""
    if are_ignored():
        return None
    made = _RECEIPTS.setdefault(model, {}).setdefault(state_of(model), [])
    for before, found in made:
        if before.holds_for(wanted):
            return found
    receipt = kept(model, wanted)
    if receipt is None:
        return None
    for one in asked:
        if one.name == receipt["executor"]:
            one = _versions(one)[0 if receipt["lift"] else -1]
            made.append((wanted, (one, receipt)))
            return one, receipt
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


def _some(layers: Sequence[int]) -> tuple[int, ...]:
    """The first, middle and last of the layers."""
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
    short = replace(settings, n_tokens=n_tokens, samples=1)
    trial, no_cache = _recorded(model, prompts, short, any(each.needs_kv for each in asked))
    # Nothing but the passes can be made smaller here, so they get what the runs leave.
    bytes_left = None if memory.max_bytes is None else memory.max_bytes - bytes_held(trial.runs)
    expected = expected_of(model, trial, memory.most_rows or TRIAL)
    _refuse_nan(trial, expected)
    receipt: Receipt = {
        "prompts": [one.prompt.id for one in prompts],
        "layers": list(_some(settings.layers)),
        "maximal_effects": _check_effects(model, trial, expected),
        "unseen": [kind for kind, cells in trial.maximal.items() if not cells],
        "heads": _heads(trial.runs[0]),
        "tried": [],
    }
    for candidate in [version for one in asked for version in _versions(one)]:
        try:
            if no_cache is not None and candidate.needs_kv:
                raise Refused(no_cache)
            within = bounded(candidate, memory, bytes_left)
            kinds = _check(model, trial, expected, within)
        except Refused as reason:
            if not getattr(candidate, "lift", False):
                receipt["tried"].append({"executor": candidate.name, "refused": str(reason)})
        else:
            receipt["tried"].append({"executor": candidate.name, "kinds": kinds})
            lift = bool(getattr(candidate, "lift", False))
            return candidate, {"executor": candidate.name, "lift": lift, **receipt}
    last = receipt["tried"][-1]
    advice = "; use executor='auto' or 'reference'" if forced and asked != [reference] else ""
    raise InputError(
        f"executor {last['executor']!r} cannot be used on {model.cfg.architecture}: "
        f"{last['refused']}{advice}"
    )


def _versions(executor: Executor) -> list[Executor]:
    """An executor, and itself without the step that not every architecture bears."""
    if is_dataclass(executor) and getattr(executor, "lift", False):
        return [executor, cast(Executor, replace(cast(Any, executor), lift=False))]
    return [executor]


def _check_other_length(model: TransformerBridge, prompt: Prepared, settings: Settings) -> None:
    """With as many tokens as the model has heads, a dimension of heads passes for one of tokens."""
    heads = {int(model.cfg.n_heads), int(getattr(model.cfg, "n_key_value_heads", None) or 0)}
    ids = ids_of(model, [prompt])[:, :-1]
    if len(prompt.tokens) in heads - {1}:
        record_full(model, ids, ids.shape[1], replace(settings, keep_kv=False))


def _heads(run: Run) -> dict[str, int]:
    """For every activation that was recorded, how many heads it has; 0 for none."""
    found: dict[str, int] = {}
    for (act_name, _), act in run.acts.items():
        found[act_name] = max(found.get(act_name, 0), act.shape[1] if act.ndim > 2 else 0)
    return found


def _refuse_nan(trial: Trial, expected: Mapping[int, Seen]) -> None:
    """Name a cell of the sweep whose logits are no distribution: no executor is to blame.

    A maximal edit may overflow in float16 and says nothing about the sweep.
    """
    for cell in (cell for kind in trial.kinds for cell in trial.cells[kind]):
        if bool(nan_rows(expected[cell.index].logits).any()):
            raise not_a_distribution(cell, trial.runs[cell.runs[0]].prompt)


def _recorded(
    model: TransformerBridge, prompts: Sequence[Prepared], settings: Settings, needs_kv: bool
) -> tuple[Trial, str | None]:
    """The cells to try, and why runs of this model hold no keys and values, if they do not."""
    groups, some = grouped(prompts[0], settings.interventions), _some(settings.layers)

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
    if all(run.kv for run in trial.runs):
        return trial, None
    return trial, NO_CACHE


def _line(error: Exception) -> str:
    """An exception in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _apart(mine: Tensor, theirs: Tensor) -> float:
    """The largest difference of logits, relative to the largest logit."""
    return float((mine - theirs).abs().max() / theirs.abs().max())


def _check_effects(
    model: TransformerBridge, trial: Trial, expected: Mapping[int, Seen]
) -> dict[str, float]:
    """A maximal edit of every kind must reach the logits.

    Raises:
        InputError: one does not, so that every cell of that kind would be 0 by mistake.
    """
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
    """What an executor gave for every kind of edit.

    Raises:
        Refused: it failed, moved a no-op, or differs from the reference.
    """
    seen = _carried_out(model, trial, expected, executor)
    dtype, tolerance = next(model.original_model.parameters()).dtype, tolerance_of(model)
    rounding = largest(_apart(seen[i].logits, expected[i].logits) for i in expected)
    if dtype == torch.float64 and rounding <= ROUNDED:
        tolerance = replace(SINGLE, no_op=tolerance.no_op)
    kinds: Receipt = {}
    together = {cell.index for cell in trial.pair}
    null = largest(seen[i].null for i in seen.keys() - together)
    if not null <= tolerance.agree:
        raise Refused(f"its unedited pass is {null:.1e} in JS away from the clean run")
    pair = max(_distance(seen, expected, trial.pair), largest(seen[i].null for i in together))
    if not pair <= tolerance.agree:
        raise Refused(
            f"with two prompts in one pass it is {pair:.1e} in JS away from the reference"
        )
    for kind in trial.kinds:
        no_op = largest(seen[cell.index].effect for cell in trial.idle(kind))
        apart = _distance(seen, expected, trial.edited(kind))
        if not no_op <= tolerance.no_op:
            raise Refused(f"a no-op of kind {kind!r} moves JS by {no_op:.1e}")
        if not apart <= tolerance.agree:
            raise Refused(f"{kind!r} differs from the reference by {apart:.1e} in JS")
        kinds[kind] = {"no_op": no_op, "max_difference": apart}
    return kinds


def _distance(
    seen: Mapping[int, Seen], expected: Mapping[int, Seen], cells: Sequence[Cell]
) -> float:
    return largest(abs(seen[c.index].effect - expected[c.index].effect) for c in cells)


def _carried_out(
    model: TransformerBridge, trial: Trial, expected: Mapping[int, Seen], executor: Executor
) -> dict[int, Seen]:
    """All cells in one go, and those that can be taken from another run once more by themselves.

    If that fails, kind by kind, to be able to say which it was.
    """
    if executor is reference:
        return {**expected, **measure(model, trial.runs, trial.idle(*trial.kinds), reference)}

    def measured(*kinds: str) -> dict[int, Seen]:
        cells = [*trial.edited(*kinds), *trial.idle(*kinds), *trial.pair]
        seen = measure(model, trial.runs, cells, executor)
        if getattr(executor, "lift", False):
            # Maximal edits begin early, and a pass with them in it takes no edit from a cache.
            lifted = [cell for cell in cells if any(one.prefix for one in cell.samples[0])]
            seen |= measure(model, trial.runs, lifted, executor) if lifted else {}
        return seen

    try:
        return measured(*trial.kinds)
    except Exception as together:
        if is_out_of_memory(together):  # says nothing of the executor
            raise
        for kind in trial.kinds:
            try:
                measured(kind)
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                raise Refused(f"{kind!r} raised {_line(error)}") from error
        raise Refused(f"all kinds together raised {_line(together)}") from together
