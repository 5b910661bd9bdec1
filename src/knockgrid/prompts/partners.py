"""Partners of prompts: of equal length for swaps, of the same answer for nulls."""

from collections.abc import Sequence
from typing import Any

from knockgrid.prompts.positions import encode, resolve, tokenize
from knockgrid.prompts.prompt import Prompt


def of_equal_length(prompts: Sequence[Prompt], tokenizer: Any) -> list[Prompt]:
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
            if theirs == mine and not _answers(prompt) & _answers(other):
                return prompt.replace(swap=other.replace(swap=None))
        return prompt

    return [fitted(prompt, mine) for prompt, mine in zip(prompts, shapes, strict=True)]


def _answers(prompt: Prompt) -> set[str]:
    return {answer.casefold() for answer in prompt.answers}


def same_answer(prompts: Sequence[Prompt], tokenizer: Any) -> dict[str, Prompt]:
    """A partner for each prompt that has one: a different subject of its relation, the same answer.

    Example:
        >>> import knockgrid as kg
        >>> tokenizer = kg.load("demo").tokenizer
        >>> partners = same_answer(kg.facts("city_in_country"), tokenizer)
        >>> all(p.relation == "city_in_country" for p in partners.values()), len(partners) > 10
        (True, True)

    For `nulls`: a donor with the same answer moves more than the answer. Partners share relation,
    template, token length and the subject's place, and an answer in any case of letters; the next
    one in order is the partner, so that partners vary. Prompts without one are left out. Give only
    prompts that the model knows: it must give the partner the same answer too.
    """
    groups: dict[tuple[Any, ...], list[Prompt]] = {}
    for prompt in prompts:
        groups.setdefault(_form(prompt, tokenizer), []).append(prompt)
    found: dict[str, Prompt] = {}
    for alike in groups.values():
        for i, prompt in enumerate(alike):
            others = (one for one in alike[i + 1 :] + alike[:i] if _fits(prompt, one))
            if partner := next(others, None):
                found[str(prompt.id)] = partner
    return {str(p.id): found[str(p.id)] for p in prompts if p.id in found}


def _form(prompt: Prompt, tokenizer: Any) -> tuple[Any, ...]:
    """What partners share: relation, text around the subject, token length, subject tokens."""
    tokens = tokenize(prompt.text, tokenizer, False)  # a BOS would move all places alike
    places = resolve(prompt, tokens, "subject")
    start, end = map(int, prompt.spans["subject"])
    around = (prompt.text[:start], prompt.text[end:])
    return (prompt.relation, *around, len(tokens), places)


def _fits(prompt: Prompt, other: Prompt) -> bool:
    is_other = prompt.span_text("subject") != other.span_text("subject")
    return is_other and bool(_answers(prompt) & _answers(other))
