"""facts: the bundled facts, written for this project from common knowledge; partners of prompts."""

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from knockgrid.errors import unknown
from knockgrid.prompts.positions import encode, resolve, tokenize_prompt
from knockgrid.prompts.prompt import Prompt, shared_answers
from knockgrid.prompts.rows import pair_swaps, parse


def facts(relations: str | Sequence[str] | None = None, *, tokenizer: Any = None) -> list[Prompt]:
    """The bundled facts: prompts with their subject, answers, relation and swap partner.

    Example:
        >>> import knockgrid as kg
        >>> prompt = kg.facts("country_capital_city")[0]
        >>> prompt.relation, prompt.swap is not None
        ('country_capital_city', True)

    `relations` keeps some of them; an unknown one is an `InputError`. Swap partners share relation
    and template and have a different answer; they were chosen for equal token length on SmolLM2.
    With a `tokenizer`, a partner that differs in token length there gives way to the first in the
    relation that fits, if one does.
    """
    lines = files("knockgrid.prompts").joinpath("facts.jsonl").read_text("utf-8").splitlines()
    rows = [parse(json.loads(line), f"facts.jsonl line {n}") for n, line in enumerate(lines, 1)]
    have = list(dict.fromkeys(str(one.prompt.relation) for one in rows))
    wanted = have if relations is None else [relations] if isinstance(relations, str) else relations
    for relation in wanted:
        if relation not in have:
            raise unknown("relation", relation, have)
    prompts = [p for p in pair_swaps(rows) if p.relation in set(wanted)]
    return prompts if tokenizer is None else _of_equal_length(prompts, tokenizer)


def _of_equal_length(prompts: Sequence[Prompt], tokenizer: Any) -> list[Prompt]:
    """The prompts, with a swap partner of equal token length wherever their relation has one."""

    def shape(prompt: Prompt) -> tuple[str | None, int, int]:
        before = prompt.text[: int(prompt.spans["subject"][0])]
        whole, start = (len(encode(tokenizer, t)["input_ids"]) for t in (prompt.text, before))
        return prompt.relation, whole, start

    shapes = [shape(prompt) for prompt in prompts]

    def fitted(prompt: Prompt, mine: tuple[str | None, int, int]) -> Prompt:
        if prompt.swap is not None and shape(prompt.swap) == mine:
            return prompt
        for other, theirs in zip(prompts, shapes, strict=True):
            if theirs == mine and not shared_answers(prompt, other):
                return prompt.replace(swap=other.replace(swap=None))
        return prompt

    return [fitted(prompt, mine) for prompt, mine in zip(prompts, shapes, strict=True)]


def same_answer(prompts: Sequence[Prompt], tokenizer: Any) -> dict[str, Prompt]:
    """A partner for each prompt that has one: a different subject of its relation, the same answer.

    Example:
        >>> import knockgrid as kg
        >>> partners = same_answer(kg.facts("city_in_country"), kg.load("demo").tokenizer)
        >>> all(p.relation == "city_in_country" for p in partners.values()), len(partners) > 10
        (True, True)

    For `nulls`: a donor with the same answer moves more than the answer. Partners share relation,
    template, token length and the subject's place, and an answer in any case of letters; the next
    one in order is the partner, so that partners vary. Prompts without one are left out. Give only
    prompts that the model knows: it must give the partner the same answer too.
    """
    groups: dict[tuple[Any, ...], list[Prompt]] = {}
    for prompt in prompts:
        tokens = tokenize_prompt(prompt, tokenizer, False)  # a BOS would move all places alike
        places = resolve(prompt, tokens, "subject")
        start, end = map(int, prompt.spans["subject"])
        around = (prompt.whole[:start], prompt.whole[end:])
        form = (prompt.relation, *around, len(tokens), places)
        groups.setdefault(form, []).append(prompt)
    found: dict[str, Prompt] = {}
    for alike in groups.values():
        for i, prompt in enumerate(alike):
            subject = prompt.span_text("subject")
            for other in alike[i + 1 :] + alike[:i]:
                if subject != other.span_text("subject") and shared_answers(prompt, other):
                    found[str(prompt.id)] = other
                    break
    return {str(p.id): found[str(p.id)] for p in prompts if p.id in found}
