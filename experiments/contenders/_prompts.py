"""Prompts of a wanted token length, whose subject starts at most 12 tokens before the end."""

from random import Random

import knockgrid as kg

FILLER = (
    "Here is a list of plain facts, one after another, each of them short and well known. "
    "Water freezes in winter and melts in spring, and rivers carry it down to the sea. "
    "Trains leave the station in the morning and come back late in the evening. "
    "Bread is made from flour, and a good baker gets up long before the sun does. "
)


def of_length(tokenizer, length: int, count: int) -> list[kg.Prompt]:
    """`count` facts with `length` tokens, BOS included; a filler in front makes them longer."""
    words, found = FILLER.split() * 6, []
    facts = list(kg.facts())
    Random(0).shuffle(facts)  # subjects that start 3 to 12 tokens before the end, as they come
    for fact in facts:
        if len(found) == count:
            break
        prompt = grown(fact, tokenizer, length, words)
        if prompt is not None and prompt.text not in {p.text for p in found}:
            found.append(prompt)
    return found


def grown(fact: kg.Prompt, tokenizer, length: int, words: list[str]) -> kg.Prompt | None:
    """The fact with as many words in front as it needs, or None where no number of them fits."""
    for n in range(len(words)):
        before = " ".join(words[:n]) + " " if n else ""
        start, end = (i + len(before) for i in fact.spans["subject"])
        name = f"{fact.id} of {length}"
        prompt = kg.Prompt(before + fact.text, spans={"subject": (start, end)}, id=name)
        total = len(tokenizer(prompt.text)["input_ids"]) + 1
        if total >= length:
            first = kg.token_positions(prompt, "subject", tokenizer, True)[0]
            return prompt if total == length and total - first <= 12 else None
    return None


def from_the_start(tokenizer, length: int, count: int) -> list[kg.Prompt]:
    """`count` prompts of `length` tokens that begin with their subject."""
    words, found = FILLER.split() * 6, []
    for fact in kg.facts(["country_capital_city"])[:count]:
        subject = fact.span_text("subject")
        for n in range(1, len(words)):
            text = f"{subject} is a country. {' '.join(words[:n])}"
            if len(tokenizer(text)["input_ids"]) + 1 >= length:
                found.append(kg.Prompt(text, spans={"subject": (0, len(subject))}, id=fact.id))
                break
    return found
