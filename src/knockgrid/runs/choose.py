"""Which prompts a run takes: those that the settings name, and what the model knows of them."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from transformer_lens.model_bridge import TransformerBridge

from knockgrid import prompts as datasets
from knockgrid.engine.answers import Known, check_answered, sorted_out, warn_of
from knockgrid.errors import InputError
from knockgrid.table.left_out import LeftOut
from knockgrid.prompts.prompt import Prompt
from knockgrid.runs.config import SweepConfig, check_form

CHUNK = 64
NO_PROMPT = "no prompt is left; name other prompts or relations"


@dataclass(frozen=True)
class Chosen:
    """The prompts of a run, and how they were selected.

    `selection` counts the prompts that were tried, those among them that the model knew, and those
    of either kind that were kept; it is None where nothing was selected by knowledge.
    """

    prompts: Sequence[Prompt]
    selection: dict[str, int] | None = None


def choose_prompts(config: SweepConfig, model: TransformerBridge) -> Chosen:
    """The prompts that the settings name, filtered and cut as they say.

    Raises:
        InputError: none is left.
    """
    found = named(config, model.tokenizer)
    if config.known or config.unknown:
        check_answered(found)
        chosen = by_knowledge(model, found, config)
    else:
        chosen = Chosen(found[: config.limit])
    if not chosen.prompts:
        if config.known and found:
            raise InputError(
                f"no prompt is left: the model answers none of the {len(found)} right; leave out "
                "--known, or look at what it says with kg.known(model, prompts).said"
            )
        raise InputError(NO_PROMPT)
    return chosen


def named(config: SweepConfig, tokenizer: Any) -> list[Prompt]:
    """All prompts that the settings name, whatever a model knows of them."""
    return in_form(_read(config, tokenizer), config.form, tokenizer)


def check_prompts(config: SweepConfig) -> None:
    """Refuse prompts that cannot be read, or are none, before a model is loaded.

    Those of a hub are asked for once, and later.

    Raises:
        InputError: no such file or relation, a file that cannot be read, or nothing in it.
    """
    if not config.prompts.startswith("hf:") and not _read(config):
        raise InputError(NO_PROMPT)


def _read(config: SweepConfig, tokenizer: Any = None) -> list[Prompt]:
    if config.prompts == "facts":
        if config.columns or config.template:
            raise InputError("columns and template are of a prompt file; give prompts as well")
        return datasets.facts(config.relations, tokenizer=tokenizer)
    found = datasets.read_prompts(config.prompts, columns=config.columns, template=config.template)
    return [p for p in found if config.relations is None or p.relation in config.relations]


def in_form(prompts: list[Prompt], form: str, tokenizer: Any) -> list[Prompt]:
    """The prompts as they are, in a chat model's own turn, or behind a text.

    Raises:
        InputError: a form that is neither "plain", "chat" nor a template.
    """
    if form == "plain":
        return prompts
    if form == "chat":
        return datasets.in_chat(prompts, tokenizer)
    check_form("form", form)
    return datasets.in_chat(prompts, form)


def by_knowledge(
    model: TransformerBridge, prompts: Sequence[Prompt], config: SweepConfig
) -> Chosen:
    """Known prompts, relation by relation in turn, until the limit, and unknown ones if asked."""
    right: list[Prompt] = []
    wrong: list[Prompt] = []
    said, odd = dict[str, str](), list[str]()
    check_answered(prompts)
    turns, tried = in_turn([prompt for prompt in prompts if prompt.answers]), 0
    for i in range(0, len(turns), CHUNK):
        chunk = turns[i : i + CHUNK]
        some, odd_ones = sorted_out(model, chunk, prepend_bos=config.prepend_bos)
        odd += odd_ones
        right, wrong, tried = [*right, *some], [*wrong, *some.dropped], min(i + CHUNK, len(turns))
        said |= some.said
        enough = config.limit is not None and len(right) >= config.limit
        if enough and len(wrong) >= config.unknown:
            break
    warn_of(odd, len(right))
    kept, others = right[: config.limit], wrong[: config.unknown]
    counts = {
        "considered": tried,
        "known": len(right),
        "known_kept": len(kept),
        "unknown_kept": len(others),
    }
    without = [prompt for prompt in prompts if not prompt.answers]
    if without:
        counts["without_answers"] = len(without)
    told = Known(tuple(right), (*wrong, *without), said)
    if told.why:
        warnings.warn(f"left out of this run: {told.why}", LeftOut, stacklevel=2)
    return Chosen([*kept, *others], counts)


def in_turn(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The first of every relation, then the second of every relation, and so on.

    Example:
        >>> some = [Prompt(f"{r} {i}", relation=r, id=f"{r}{i}") for r in "ab" for i in range(2)]
        >>> [prompt.id for prompt in in_turn(some)]
        ['a0', 'b0', 'a1', 'b1']
    """
    relations: dict[str | None, list[Prompt]] = {}
    for prompt in prompts:
        relations.setdefault(prompt.relation, []).append(prompt)
    return [p for turn in zip_longest(*relations.values()) for p in turn if p is not None]
