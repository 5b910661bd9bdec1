"""Prompts of a wanted token length, whose subject starts at most 12 tokens before the end."""

from itertools import cycle

import knockgrid as kg

FILLER = (
    "Here is a list of plain facts, one after another, each of them short and well known. "
    "Water freezes in winter and melts in spring, and rivers carry it down to the sea. "
    "Trains leave the station in the morning and come back late in the evening. "
    "Bread is made from flour, and a good baker gets up long before the sun does. "
)


def of_length(tokenizer, length: int, count: int) -> list[kg.Prompt]:
    """`count` facts with `length` tokens, BOS included; a filler in front makes them longer."""
    words, found = FILLER.split() * 3, []
    relations = ["country_capital_city", "country_language", "us_state_capital"]
    for fact in cycle(kg.facts(relations)):
        if len(found) == count:
            return found
        prompt = grown(fact, tokenizer, length, words)
        if prompt is not None and prompt.id not in {p.id for p in found}:
            found.append(prompt)


def grown(fact: kg.Prompt, tokenizer, length: int, words: list[str]) -> kg.Prompt | None:
    """The fact with as many words in front as it needs, or None where no number of them fits."""
    for n in range(len(words)):
        before = " ".join(words[:n]) + " " if n else ""
        start, end = (i + len(before) for i in fact.spans["subject"])
        prompt = kg.Prompt(before + fact.text, spans={"subject": (start, end)}, id=fact.id)
        total = len(tokenizer(prompt.text)["input_ids"]) + 1
        if total >= length:
            first = kg.token_positions(prompt, "subject", tokenizer)[0]
            return prompt if total == length and total - first <= 12 else None
    return None
