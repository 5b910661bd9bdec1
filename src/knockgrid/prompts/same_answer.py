"""same_answer: for every prompt another subject with the same answer."""

from collections.abc import Sequence
from typing import Any

from knockgrid.errors import InputError, shown
from knockgrid.prompts.positions import resolve, tokenize
from knockgrid.prompts.prompt import Prompt


def same_answer(prompts: Sequence[Prompt], tokenizer: Any) -> dict[str, Prompt]:
    """A partner for each prompt that has one: another subject of its relation, an answer in common.

    Example:
        >>> import knockgrid as kg
        >>> tokenizer = kg.load("demo").tokenizer
        >>> partners = kg.same_answer(kg.facts("city_in_country"), tokenizer)
        >>> all(p.relation == "city_in_country" for p in partners.values()), len(partners) > 10
        (True, True)

    Give it to `donor`: `kg.patch("resid_post", "subject", kg.donor(partners))` exchanges the
    subject and keeps the answer, so what then moves is more than the answer. Partners share
    relation, template, token length and the subject's place, and have an answer in common in any
    case of letters; the next one in the order of the prompts is taken, so that partners vary.
    Prompts without a partner are not in the mapping; `sweep` drops them from the row, and counts
    them. Give only prompts that the model knows: it must give the partner the same answer too.

    Raises:
        InputError: a prompt without a span 'subject', or a tokenizer without offsets.
    """
    found: dict[str, Prompt] = {}
    groups: dict[tuple[Any, ...], list[Prompt]] = {}
    for prompt in prompts:
        groups.setdefault(_form(prompt, tokenizer), []).append(prompt)
    for alike in groups.values():
        for i, prompt in enumerate(alike):
            for other in alike[i + 1 :] + alike[:i]:
                if _fits(prompt, other):
                    found[str(prompt.id)] = other
                    break
    return {str(p.id): found[str(p.id)] for p in prompts if p.id in found}


def _form(prompt: Prompt, tokenizer: Any) -> tuple[Any, ...]:
    """What partners share: relation, text around the subject, token length, subject tokens."""
    if "subject" not in prompt.spans:
        raise InputError(
            f"prompt {shown(prompt.text)} has no span 'subject'; "
            "give Prompt(text, spans={'subject': ...})"
        )
    start, end = map(int, prompt.spans["subject"])
    tokens = tokenize(prompt.text, tokenizer, False)  # a BOS would move all places alike
    around = (prompt.text[:start], prompt.text[end:])
    return (prompt.relation, *around, len(tokens), resolve(prompt, tokens, "subject"))


def _fits(prompt: Prompt, other: Prompt) -> bool:
    mine, theirs = ({a.casefold() for a in p.answers} for p in (prompt, other))
    return bool(mine & theirs) and prompt.span_text("subject") != other.span_text("subject")
