"""Prompts as plain data, from which the same prompts are built again."""

from collections.abc import Mapping
from typing import Any

from knockgrid.prompts.prompt import Prompt


def prompt_as_data(prompt: Prompt, **more: Any) -> dict[str, Any]:
    """Everything that a sweep reads of a prompt, and its partner, as JSON holds it.

    What a prompt does not have of foil and continuation has no key: its digest is that of runs
    before there were any.
    """
    given = {} if prompt.continuation is None else {"continuation": prompt.continuation}
    return {
        "id": prompt.id,
        "text": prompt.text,
        **given,  # not as a null, so that the digests of older runs stay
        "spans": spans_as_data(prompt),
        "answers": list(prompt.answers),
        **({} if prompt.foil is None else {"foil": prompt.foil}),
        "relation": prompt.relation,
        "group": prompt.group,
        "swap": None if prompt.swap is None else prompt_as_data(prompt.swap),
        **more,
    }


def spans_as_data(prompt: Prompt) -> dict[str, list[int]]:
    """The spans of a prompt as JSON holds them."""
    return {name: [int(i) for i in span] for name, span in prompt.spans.items()}


def prompt_from_data(data: Mapping[str, Any]) -> Prompt:
    """The prompt behind its data, or behind an entry of the side table, with its swap partner."""
    partner = data.get("swap")
    return Prompt(
        data["text"],
        continuation=data.get("continuation"),
        id=data["id"],
        spans={name: tuple(span) for name, span in data["spans"].items()},
        answers=tuple(data.get("answers", ())),
        foil=data.get("foil"),
        relation=data.get("relation"),
        group=data.get("group"),
        swap=None if partner is None else prompt_from_data(partner),
    )
