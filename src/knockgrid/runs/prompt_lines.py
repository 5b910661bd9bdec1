"""Prompts as lines of a run's plan, from which the same prompts come back."""

from collections.abc import Mapping
from typing import Any

from knockgrid.engine.collect import spans_of
from knockgrid.prompts.prompt import Prompt


def line_of(prompt: Prompt, **more: Any) -> dict[str, Any]:
    """Everything that a sweep reads of a prompt, and its partner, as JSON holds it.

    Example:
        >>> line_of(Prompt("Rome is in", spans={"subject": "Rome"}, id="rome"), shard=0)["spans"]
        {'subject': [0, 4]}
    """
    return {
        "id": prompt.id,
        "text": prompt.text,
        "spans": spans_of(prompt),
        "answers": list(prompt.answers),
        "relation": prompt.relation,
        "group": prompt.group,
        "swap": None if prompt.swap is None else line_of(prompt.swap),
        **more,
    }


def prompt_of(side: Mapping[str, Any]) -> Prompt:
    """The prompt behind a line or an entry of the side table, its swap partner included.

    Example:
        >>> side = {"id": "rome", "text": "Rome is in", "spans": {"subject": [0, 4]}}
        >>> prompt_of(side).span_text("subject")
        'Rome'
    """
    partner = side.get("swap")
    return Prompt(
        side["text"],
        id=side["id"],
        spans={name: tuple(span) for name, span in side["spans"].items()},
        answers=tuple(side.get("answers", ())),
        relation=side.get("relation"),
        group=side.get("group"),
        swap=None if partner is None else prompt_of(partner),
    )
