"""Which prompts a run takes: those that the settings name, and what the model knows of them."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from transformer_lens.model_bridge import TransformerBridge

from knockgrid import prompts as datasets
from knockgrid.engine.answers import Known, check_answered, sorted_out, warn_of
from knockgrid.errors import InputError
from knockgrid.table.left_out import LeftOut
from knockgrid.prompts.prompt import Prompt
from knockgrid.prompts.rows import pair_swaps, parse
from knockgrid.runs.study import check_form
from knockgrid.spec import Spec

CHUNK = 64
NO_PROMPT = "no prompt is left; name other prompts or relations"


@dataclass(frozen=True)
class Chosen:
    """The prompts of a run, and the counts of a selection by knowledge, if there was one."""

    prompts: Sequence[Prompt]
    selection: dict[str, int] | None = None


def choose_prompts(spec: Spec, model: TransformerBridge) -> Chosen:
    """The prompts that the settings name, filtered and cut as they say."""
    found = named(spec, model.tokenizer)
    if spec.known or spec.unknown:
        check_answered(found)
        chosen = by_knowledge(model, found, spec)
    else:
        cut = spec.limit is not None and len(found) > spec.limit
        chosen = Chosen(in_turn(found)[: spec.limit] if cut else found)
    if not chosen.prompts and isinstance(spec.prompts, str):
        if spec.known and found:
            raise InputError(
                f"no prompt is left: the model answers none of the {len(found)} right; leave out "
                "--known, or look at what it says with kg.known(model, prompts).said"
            )
        raise InputError(NO_PROMPT)
    return chosen


def named(spec: Spec, tokenizer: Any) -> list[Prompt]:
    """All prompts that the settings name, whatever a model knows of them."""
    return in_form(_read(spec, tokenizer), spec.form, tokenizer)


def check_prompts(spec: Spec) -> None:
    """Refuse prompts that cannot be read, or are none, before a model is loaded.

    Those of a hub are asked for once, and later.
    """
    if isinstance(spec.prompts, str) and not (spec.prompts.startswith("hf:") or _read(spec)):
        raise InputError(NO_PROMPT)


def _read(spec: Spec, tokenizer: Any = None) -> list[Prompt]:
    if not isinstance(spec.prompts, str):
        rows = enumerate(spec.prompts, 1)
        if all(isinstance(one, Mapping) for one in spec.prompts):
            return pair_swaps(parse(one, f"row {i} of prompts") for i, one in rows)
        return list(spec.prompts)
    if spec.prompts == "facts":
        if spec.columns or spec.template:
            raise InputError("columns and template are of a prompt file; give prompts as well")
        return datasets.facts(spec.relations, tokenizer=tokenizer)
    found = datasets.read_prompts(spec.prompts, columns=spec.columns, template=spec.template)
    return [p for p in found if spec.relations is None or p.relation in spec.relations]


def in_form(prompts: list[Prompt], form: str, tokenizer: Any) -> list[Prompt]:
    """The prompts as they are, in a chat model's own turn, or behind a text."""
    check_form("form", form)
    if form == "plain":
        return prompts
    return datasets.in_chat(prompts, tokenizer if form == "chat" else form)


def by_knowledge(model: TransformerBridge, prompts: Sequence[Prompt], spec: Spec) -> Chosen:
    """Known prompts, relation by relation in turn, until the limit, and unknown ones if asked."""
    right, wrong, odd, said = list[Prompt](), list[Prompt](), list[str](), dict[str, str]()
    turns = in_turn([prompt for prompt in prompts if prompt.answers])
    for i in range(0, len(turns), CHUNK):
        some, odd_ones = sorted_out(model, turns[i : i + CHUNK], prepend_bos=spec.prepend_bos)
        odd += odd_ones
        right += some
        wrong += some.dropped
        said |= some.said
        enough = spec.limit is not None and len(right) >= spec.limit
        if enough and len(wrong) >= spec.unknown:
            break
    warn_of(odd, len(right))
    kept, others = right[: spec.limit], wrong[: spec.unknown]
    counts = {"considered": len(right) + len(wrong), "known": len(right)}
    counts |= {"known_kept": len(kept), "unknown_kept": len(others)}
    without = [prompt for prompt in prompts if not prompt.answers]
    if without:
        counts["without_answers"] = len(without)
    told = Known(tuple(right), (*wrong, *without), said)
    if told.why:
        warnings.warn(f"left out of this run: {told.why}", LeftOut, stacklevel=2)
    return Chosen([*kept, *others], counts)


def in_turn(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The first of every relation, then the second of every relation, and so on."""
    relations: dict[str | None, list[Prompt]] = {}
    for prompt in prompts:
        relations.setdefault(prompt.relation, []).append(prompt)
    return [p for turn in zip_longest(*relations.values()) for p in turn if p is not None]
