"""Foils: the first token of the wrong answer that a prompt's right one is compared with."""

import warnings
from collections.abc import Sequence
from typing import Any

from knockgrid.divergences.divergence import Divergence
from knockgrid.engine.answers import Answer, Placed, answer_tokens, other_tokens, separators
from knockgrid.errors import InputError, shown
from knockgrid.prompts.positions import tokenize

NONE = -1
"""Stands for no token."""


def foil_token(tokenizer: Any, one: Placed, separator: str) -> int:
    """The foil's first token behind a prompt, from which one separator divides it; -1: no foil."""
    if one.prompt.foil is None:
        return NONE
    own = one.tokens.ids
    text = one.prompt.text + separator + one.prompt.foil
    ids = tokenize(text, tokenizer, bool(one.tokens.bos)).ids
    if ids[: len(own)] != own or len(ids) <= len(own):
        raise other_tokens(tokenizer, one, f"foil {shown(one.prompt.foil)}", ids)
    return ids[len(own)]


def check_foils(tokenizer: Any, placed: Sequence[Placed], measures: Sequence[Divergence]) -> None:
    """Refuse foils without an answer or without a token of their own, where a measure reads them.

    A measure of the foil alone needs no answer.
    """
    names = [one.name for one in measures if {"answer", "foil"} <= set(one.needs)]
    if not names:
        return
    for one in placed:
        if one.prompt.foil is None:
            continue
        if not one.prompt.answers:
            raise InputError(
                f"prompt {shown(one.prompt.text)} has the foil {shown(one.prompt.foil)} and no "
                f"answer, and {names[0]} compares the two; give answers=[...], or take the foil out"
            )
        for alias, ways in zip(one.prompt.answers, answer_tokens(tokenizer, one), strict=True):
            if all(foil_token(tokenizer, one, way.separator) == way.ids[0] for way in ways):
                raise _alike(tokenizer, one, alias, ways[0])


def _alike(tokenizer: Any, one: Placed, alias: str, way: Answer) -> InputError:
    """The error for a foil that begins as an answer does."""
    token = shown(tokenizer.decode([way.ids[0]]))
    return InputError(
        f"answer {shown(alias)} and foil {shown(one.prompt.foil)} of {shown(one.prompt.text)} "
        f"begin with the same token {token}, which their logits cannot tell apart; give a foil "
        "that begins differently"
    )


def first_foils(
    tokenizer: Any,
    placed: Sequence[Placed],
    best: Sequence[Answer | None],
    measures: Sequence[Divergence],
) -> list[int]:
    """The token of every prompt's foil, behind the separator of its best answer; -1: none.

    Where the model puts both behind a separator that is a token of its own, they have no token to
    tell them apart: the foil has none then, and a warning says whose.
    """
    found, alike = [NONE] * len(placed), list[Placed]()
    wanted = any("foil" in one.needs for one in measures)
    for i, (one, answer) in enumerate(zip(placed, best, strict=True)):
        if not wanted or one.prompt.foil is None:
            continue
        likely = separators(one.prompt.text, one.prompt.foil)[0]
        token = foil_token(tokenizer, one, likely if answer is None else answer.separator)
        if answer is not None and answer.ids[0] == token:
            alike.append(one)
        else:
            found[i] = token
    if alike:
        prompt = alike[0].prompt
        warnings.warn(
            f"the model writes answer and foil of {len(alike)} prompts of one length with the same "
            f"first token (first: {shown(prompt.text)} and {shown(prompt.foil)}), so measures of "
            "the foil have no value there; give foils that begin differently",
            stacklevel=4,
        )
    return found
