"""facts: the bundled facts, written for this project from common knowledge."""

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from knockgrid.errors import unknown
from knockgrid.prompts.positions import encode
from knockgrid.prompts.prompt import Prompt
from knockgrid.prompts.rows import pair_swaps, parse


def facts(relations: str | Sequence[str] | None = None, *, tokenizer: Any = None) -> list[Prompt]:
    """The bundled facts: prompts with their subject, answers, relation and swap partner.

    Example:
        >>> import knockgrid as kg
        >>> prompt = kg.facts("country_capital_city")[0]
        >>> prompt.relation, prompt.swap is not None
        ('country_capital_city', True)
        >>> len({p.relation for p in kg.facts()}) >= 12, len(kg.facts()) >= 600
        (True, True)

    `relations` keeps some of them. Swap partners share relation and template and have another
    answer; they were chosen for equal token length on SmolLM2. With a `tokenizer`, a partner of
    another length there is exchanged for the first in the relation that fits, if there is one.

    Raises:
        InputError: a relation that does not exist, with the nearest spelling.
    """
    lines = files("knockgrid.prompts").joinpath("facts.jsonl").read_text("utf-8").splitlines()
    rows = [parse(json.loads(line), f"facts.jsonl line {n}") for n, line in enumerate(lines, 1)]
    have = list(dict.fromkeys(str(one.prompt.relation) for one in rows))
    wanted = have if relations is None else [relations] if isinstance(relations, str) else relations
    for relation in wanted:
        if relation not in have:
            raise unknown("relation", relation, have)
    prompts = [p for p in pair_swaps(rows) if p.relation in set(wanted)]
    return prompts if tokenizer is None else with_equal_partners(prompts, tokenizer)


def with_equal_partners(prompts: Sequence[Prompt], tokenizer: Any) -> list[Prompt]:
    """Prompts whose swap partner has as many tokens on a tokenizer, wherever one exists."""

    def shape(prompt: Prompt) -> tuple[str | None, int, int]:
        start = int(prompt.spans["subject"][0])
        ids = encode(tokenizer, prompt.text)["input_ids"]
        before = encode(tokenizer, prompt.text[:start])["input_ids"]
        return prompt.relation, len(ids), len(before)

    shapes = {id(prompt): shape(prompt) for prompt in prompts}
    return [_repaired(prompt, prompts, shapes, shape) for prompt in prompts]


def _repaired(prompt: Prompt, prompts: Sequence[Prompt], shapes: Any, shape: Any) -> Prompt:
    mine, answers = shapes[id(prompt)], {a.casefold() for a in prompt.answers}
    if prompt.swap is not None and shape(prompt.swap) == mine:
        return prompt
    for other in prompts:
        fits = shapes[id(other)] == mine
        if fits and not answers & {a.casefold() for a in other.answers}:
            return prompt.replace(swap=other.replace(swap=None))
    return prompt
