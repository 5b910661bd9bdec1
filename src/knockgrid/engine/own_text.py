"""Own text: patches at `last+k`, the states that write token k of a free run."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from knockgrid.edits.intervention import Intervention
from knockgrid.edits.patch import Patch
from knockgrid.errors import InputError
from knockgrid.passes.answer_positions import steps_in
from knockgrid.passes.prepared import Prepared
from knockgrid.prompts.positions import tokenize_prompt
from knockgrid.sources.constants import Fixed, Zero
from knockgrid.sources.other_run import Donor
from knockgrid.sources.source import Unavailable


def read_at(one: Intervention) -> list[int]:
    """The steps of its donor that a patch takes values from."""
    if not isinstance(one, Patch) or not isinstance(one.source, Donor):
        return []
    return steps_in(one.pos if one.source.pos is None else one.source.pos)


def in_own_text(one: Intervention) -> bool:
    """Whether an edit is placed in the text that a free run writes, or reads such a text."""
    return any(steps_in(at) or read_at(part) for part in one.parts for at in part.places)


def stand_in(one: Intervention) -> Intervention:
    """The same patch at the last prompt token, which a trial has; no text is written there."""
    source = one.source
    if isinstance(source, Donor):
        source = replace(source, pos=None)
    name = f"stand-in {one.name}"
    return replace(one.moved("last"), source=source, name=name, position=None)


def check_own_text(
    tokenizer: Any,
    ready: Sequence[Prepared],
    interventions: Sequence[Intervention],
    n_tokens: int,
    prepend_bos: bool,
) -> None:
    """Refuse edits in the text of a free run that is too short for them, or without a value."""
    for one in filter(in_own_text, interventions):
        if not isinstance(one, Patch):
            raise InputError(
                f"intervention {one.name!r} is placed in the text that a free run writes, where "
                "only patches can be; a list, such as ['last+1', 'last+2'], names several places"
            )
        steps, places = steps_in(one.pos), [one.pos] if isinstance(one.pos, str | int) else one.pos
        if steps and len(steps) < len(places):
            raise InputError(
                f"place {one.pos!r} mixes the prompt with the text that is written; name either "
                "('last+0' is 'last')"
            )
        if max(steps, default=0) >= n_tokens:
            raise InputError(
                f"n_tokens is {n_tokens}, so no token is written at 'last+{max(steps)}'; give "
                f"n_tokens={max(steps) + 1} or more"
            )
        if steps and not isinstance(one.source, Donor | Zero | Fixed):
            raise InputError(
                f"source {one.source.label!r} knows the clean text, not the one that is written at "
                f"{one.pos!r}; use donor(), zero() or fixed()"
            )
        _check_donors(tokenizer, ready, one, n_tokens, prepend_bos)


def _check_donors(
    tokenizer: Any, ready: Sequence[Prepared], one: Patch, n_tokens: int, prepend_bos: bool
) -> None:
    """Refuse a donor whose text ends before a step that is read of it."""
    last = max(read_at(one), default=0)
    if last >= n_tokens:
        raise InputError(
            f"{one.source.label} is read at 'last+{last}', and texts are as long as "
            f"n_tokens={n_tokens}; give n_tokens={last + 1} or more"
        )
    for prepared in ready if last else ():
        try:
            spec = one.source.run(prepared.prompt)
        except Unavailable:  # the prompt is dropped from this row, and counted
            continue
        if spec is None or spec.prompt is prepared.prompt:
            continue
        given = tokenize_prompt(spec.prompt, tokenizer, prepend_bos).given
        if len(given) < last:
            raise InputError(
                f"donor {spec.prompt.id!r} has {len(given)} tokens after its prompt, and 'last+"
                f"{last}' of it is asked for; give it a continuation of {last} tokens or more"
            )
