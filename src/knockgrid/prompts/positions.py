"""Positions: from names and character spans to token indices, through the tokenizer's offsets.

Indices count from the first token of the sequence that the model sees, BOS included.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from knockgrid.errors import InputError, as_int, shown, unknown
from knockgrid.prompts.prompt import Prompt, check_prompt

Position = str | int
At = Position | Sequence[Position]


@dataclass(frozen=True)
class Tokens:
    """The token ids of a text, each with its half-open character span.

    A BOS that was put in front has the span `(0, 0)`, which overlaps nothing.
    """

    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]
    bos: int

    def __len__(self) -> int:
        return len(self.ids)


def encode(tokenizer: Any, text: str, **options: Any) -> Any:
    """The encoding of a text alone: no special tokens, nothing padded, nothing cut.

    `transformers` leaves the user's padding and truncation off afterwards, so they are restored.
    """
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    padding, truncation = getattr(backend, "padding", None), getattr(backend, "truncation", None)
    try:
        return tokenizer(text, add_special_tokens=False, **options)
    finally:
        if padding is not None:
            backend.enable_padding(**padding)
        if truncation is not None:
            backend.enable_truncation(**truncation)


def tokenize(text: str, tokenizer: Any, prepend_bos: bool = True) -> Tokens:
    """Token ids and offsets of `text`, with the BOS token in front if asked, and never twice."""
    if not getattr(tokenizer, "is_fast", False):
        raise InputError(
            f"{type(tokenizer).__name__} is a slow tokenizer without character offsets, so a span "
            "cannot be located; load the fast one (use_fast=True)"
        )
    encoded = encode(tokenizer, text, return_offsets_mapping=True)
    ids, offsets = list(encoded["input_ids"]), [tuple(o) for o in encoded["offset_mapping"]]
    if prepend_bos:
        if tokenizer.bos_token_id is None:
            raise InputError(f"{type(tokenizer).__name__} has no BOS token; pass prepend_bos=False")
        if not ids or ids[0] != tokenizer.bos_token_id:
            ids, offsets = [tokenizer.bos_token_id, *ids], [(0, 0), *offsets]
    if not ids:
        raise InputError(f"{shown(text)} has no tokens; a prompt needs at least one")
    return Tokens(tuple(ids), tuple(offsets), int(prepend_bos))


def _of_span(prompt: Prompt, tokens: Tokens, name: str) -> tuple[int, ...]:
    """The tokens whose offset overlaps a span.

    A leading space counts with its token, and byte tokens that share one character all belong.
    """
    start, end = map(int, prompt.spans[name])
    found = tuple(i for i, (a, b) in enumerate(tokens.offsets) if a < end and b > start)
    if not found:
        raise InputError(f"no token overlaps span {name!r} of {shown(prompt.text)}")
    return found


def _rest(prompt: Prompt, tokens: Tokens, spans: Iterable[str]) -> tuple[int, ...]:
    """Every token that is neither the BOS, nor in one of these spans, nor the last one."""
    named = {i for span in spans for i in _of_span(prompt, tokens, span)}
    return tuple(i for i in range(tokens.bos, len(tokens) - 1) if i not in named)


def _random(prompt: Prompt, tokens: Tokens) -> tuple[int, ...]:
    """As many tokens as the subject has, neither of it, nor the BOS, nor the last one.

    Drawn by the prompt's id alone: the same in every call, process and order of prompts.
    """

    def lot(i: int) -> bytes:
        return hashlib.sha256(f"{prompt.id} {i}".encode("utf-8", "replace")).digest()

    drawn = sorted(_rest(prompt, tokens, ["subject"]), key=lot)
    return tuple(sorted(drawn[: len(_of_span(prompt, tokens, "subject"))]))


Find = Callable[[Prompt, Tokens], tuple[int, ...]]
PLACES: dict[str, Find] = {
    "last": lambda prompt, tokens: (len(tokens) - 1,),
    "all": lambda prompt, tokens: tuple(range(len(tokens))),
    "bos": lambda prompt, tokens: (0,)[: tokens.bos],
    "rest": lambda prompt, tokens: _rest(prompt, tokens, prompt.spans),
}
OF_SUBJECT: dict[str, Find] = {
    "between": lambda prompt, tokens: tuple(
        range(_of_span(prompt, tokens, "subject")[-1] + 1, len(tokens) - 1)
    ),
    "random": _random,
}
ENDS = {"_first": 0, "_last": -1}


def _places(prompt: Prompt) -> dict[str, Find]:
    return PLACES | OF_SUBJECT if "subject" in prompt.spans else PLACES


def names(prompt: Prompt) -> list[str]:
    """The position names that a prompt has."""
    spans = [f"{span}{end}" for span in prompt.spans for end in ("", *ENDS)]
    return [*_places(prompt), *spans]


def place_of(given: object) -> At:
    """A place as a user writes it, with Python's own integers."""
    at = as_int(given)
    if isinstance(at, str | int) and not isinstance(at, bool):
        return at
    if isinstance(at, Iterable) and not isinstance(at, Mapping | bytes):
        found: list[Any] = [place_of(one) for one in at]
        return tuple(found) if isinstance(at, tuple) else found
    raise InputError(
        f"place {shown(given)} is neither a name nor an index; write one such as 'subject', 'last' "
        "or -1, or a list of them"
    )


def resolve(prompt: Prompt, tokens: Tokens, at: At) -> tuple[int, ...]:
    """Token indices of a position name, an index (negative from the end), or several of them."""
    if isinstance(at, bool):
        raise InputError(f"position {at!r} is neither a name nor an index")
    if isinstance(at, int):
        if not -len(tokens) <= at < len(tokens):
            raise InputError(
                f"position {at} is out of range: {shown(prompt.text)} has {len(tokens)} tokens"
            )
        return (at % len(tokens),)
    if not isinstance(at, str):
        return tuple(sorted({i for one in at for i in resolve(prompt, tokens, one)}))
    if at in prompt.spans:
        return _of_span(prompt, tokens, at)
    if at in (places := _places(prompt)):
        return places[at](prompt, tokens)
    for end, index in ENDS.items():
        span = at.removesuffix(end)
        if span != at and span in prompt.spans:
            return (_of_span(prompt, tokens, span)[index],)
    if at in ("subject", *(f"subject{end}" for end in ENDS)):
        raise InputError(
            f"prompt {shown(prompt.text)} has no span 'subject'; "
            "give Prompt(text, spans={'subject': ...})"
        )
    raise unknown("position", at, names(prompt))


def lacks(prompt: Prompt, tokens: Tokens, at: At) -> str | None:
    """Why a prompt has no such place, or None where it has."""
    if not isinstance(at, str | int):
        return next((reason for one in at if (reason := lacks(prompt, tokens, one))), None)
    if isinstance(at, str) and at not in names(prompt):
        return f"the prompt has no {at!r}"
    if isinstance(at, int) and not -len(tokens) <= at < len(tokens):
        return f"the prompt has no position {at}"
    return None if resolve(prompt, tokens, at) else f"{at!r} is empty in the prompt"


def default_bos(model: Any, prepend_bos: bool | None) -> bool:
    """Whether BOS is prepended: as asked, else as the model is configured, if it has one."""
    if prepend_bos is not None:
        return prepend_bos
    config = getattr(model, "cfg", None)
    has = getattr(model if config is None else model.tokenizer, "bos_token_id", None) is not None
    if config is None and has:
        raise InputError(
            f"{type(model).__name__} has a BOS token, and only the model says whether a sweep puts "
            "it in front; give the model, or prepend_bos=True or False"
        )
    return has and bool(getattr(config, "default_prepend_bos", True))


def token_positions(
    prompt: Prompt, at: At, tokenizer: Any, prepend_bos: bool | None = None
) -> tuple[int, ...]:
    """The token indices of a place in a prompt, as a sweep counts them.

    Example:
        >>> import knockgrid as kg
        >>> model = kg.load("demo")
        >>> prompt = kg.Prompt("In Peru, people speak", spans={"subject": "Peru"})
        >>> kg.token_positions(prompt, "subject", model)
        (2,)
        >>> kg.token_positions(prompt, "last", model.tokenizer, prepend_bos=False)
        (4,)

    `at` is `subject`, any other span name, `<span>_first`, `<span>_last`, `last`, `all`, `bos`,
    `rest` (no BOS, no span, not the last token), `between` (after the subject, before the last
    token), `random` (as many tokens as the subject has, or all there are, none of them subject, BOS
    or last, drawn by the prompt's id), an index, or a list of these. A tokenizer in place of the
    model does not know whether a sweep puts a BOS token in front, so pass `prepend_bos` with it.

    Raises:
        InputError: unknown name, index out of range, a tokenizer without offsets, or one with a BOS
            token and no `prepend_bos`.
    """
    check_prompt(prompt)
    bos = default_bos(tokenizer, prepend_bos)
    of_model = getattr(tokenizer, "cfg", None) is not None
    tokens = tokenize(prompt.text, tokenizer.tokenizer if of_model else tokenizer, bos)
    return resolve(prompt, tokens, place_of(at))
