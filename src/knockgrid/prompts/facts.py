"""facts: the bundled facts, written for this project from common knowledge."""

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from knockgrid.errors import unknown
from knockgrid.prompts.partners import of_equal_length
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

    `relations` keeps some of them. Swap partners share relation and template and have a different
    answer; they were chosen for equal token length on SmolLM2. With a `tokenizer`, a partner that
    differs in token length there gives way to the first in the relation that fits, if one does.

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
    return prompts if tokenizer is None else of_equal_length(prompts, tokenizer)
