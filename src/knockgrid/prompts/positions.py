"""Positions: from names and character spans to token indices, of which BOS has the first."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from knockgrid.errors import InputError, as_int, shown, unknown
from knockgrid.prompts.prompt import Prompt, check_prompt

Position = str | int
At = Position | Sequence[Position]


@dataclass(frozen=True)
class Tokens:
    """The token ids of a text with their half-open character spans; a BOS in front has `(0, 0)`.

    Those of a continuation stand apart, in `given`: the length is that of the prompt alone.
    """

    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]
    bos: int
    given: tuple[int, ...] = ()
    given_offsets: tuple[tuple[int, int], ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def n_all(self) -> int:
        """Tokens of the prompt and of its continuation."""
        return len(self.ids) + len(self.given)


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


def tokenize_prompt(prompt: Prompt, tokenizer: Any, prepend_bos: bool = True) -> Tokens:
    """The tokens of a prompt and, apart, those of its continuation as they follow the prompt.

    Both are tokenized as one text, since a model reads them so; alone, the continuation may have
    other tokens.

    Raises:
        InputError: what `tokenize` refuses, or a token that lies on both sides of the boundary.
    """
    tokens = tokenize(prompt.text, tokenizer, prepend_bos)
    if prompt.continuation is None:
        return tokens
    both, n = tokenize(prompt.whole, tokenizer, prepend_bos), len(tokens)
    if both.ids[:n] != tokens.ids or both.offsets[n - 1][1] > len(prompt.text):
        raise _straddled(prompt, tokens, both)
    if len(both) == n:
        raise InputError(
            f"the continuation {shown(prompt.continuation)} has no tokens after "
            f"{shown(prompt.text)}; give one with a word in it"
        )
    return replace(tokens, given=both.ids[n:], given_offsets=both.offsets[n:])


def _straddled(prompt: Prompt, tokens: Tokens, both: Tokens) -> InputError:
    """The error for a boundary that no token of the whole text keeps, with the token over it."""
    end, spans = len(prompt.text), both.offsets
    over = next(((a, b) for a, b in spans if a < end < b), None)
    if over is None:  # the tokens before it are others
        pairs = zip(both.ids, (*tokens.ids, *[-1] * len(both)), spans, strict=False)
        over = next(span for one, other, span in pairs if one != other)
    advice = "let the prompt end where a word ends"
    if prompt.text[-1].isspace():
        advice = "move the white space from the prompt's end to the continuation's beginning"
    return InputError(
        f"the continuation {shown(prompt.continuation)} changes the tokens of "
        f"{shown(prompt.text)}: both together have a token {shown(prompt.whole[slice(*over)])} "
        f"there; {advice}"
    )


def _of_span(prompt: Prompt, tokens: Tokens, name: str) -> tuple[int, ...]:
    """The tokens whose offset overlaps a span.

    A leading space counts with its token, and byte tokens that share one character all belong.
    """
    start, end = map(int, prompt.spans[name])
    offsets = (*tokens.offsets, *tokens.given_offsets)
    found = tuple(i for i, (a, b) in enumerate(offsets) if a < end and b > start)
    if not found:
        raise InputError(f"no token overlaps span {name!r} of {shown(prompt.whole)}")
    return found


def names(prompt: Prompt) -> list[str]:
    """The position names that a prompt has."""
    spans = [f"{span}{end}" for span in prompt.spans for end in ("", "_first", "_last")]
    of_subject = ["between", "random"] if "subject" in prompt.spans else []
    return ["last", "all", "bos", "rest", *of_subject, *spans]


def _named(prompt: Prompt, tokens: Tokens, at: str) -> tuple[int, ...]:
    """Token indices of a name that the prompt has."""
    span, _, end = at.rpartition("_")
    if at in prompt.spans:
        return _of_span(prompt, tokens, at)
    if span in prompt.spans:
        return (_of_span(prompt, tokens, span)[0 if end == "first" else -1],)
    if at == "last":
        return (len(tokens) - 1,)
    if at == "all":
        return tuple(range(tokens.n_all))
    if at == "bos":
        return tuple(range(tokens.bos))
    inside = range(tokens.bos, len(tokens) - 1)
    if at == "rest":
        named = {i for span in prompt.spans for i in _of_span(prompt, tokens, span)}
        given = range(len(tokens), tokens.n_all)
        return tuple(i for i in (*inside, *given) if i not in named)
    subject = _of_span(prompt, tokens, "subject")
    if at == "between":
        return tuple(i for i in inside if i > subject[-1])

    def lot(i: int) -> bytes:  # by the prompt's id alone: the same in every call and process
        return hashlib.sha256(f"{prompt.id} {i}".encode("utf-8", "replace")).digest()

    return tuple(sorted(sorted((i for i in inside if i not in subject), key=lot)[: len(subject)]))


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
    """Token indices of a position name, an index, or several of them.

    An index goes on into the continuation; a negative one counts from the prompt's end.
    """
    if isinstance(at, bool):
        raise InputError(f"position {at!r} is neither a name nor an index")
    if isinstance(at, int):
        if not -len(tokens) <= at < tokens.n_all:
            more = f" and {len(tokens.given)} of its continuation" if tokens.given else ""
            raise InputError(
                f"position {at} is out of range: {shown(prompt.text)} has {len(tokens)} tokens"
                f"{more}"
            )
        return (at if at >= 0 else at + len(tokens),)
    if not isinstance(at, str):
        return tuple(sorted({i for one in at for i in resolve(prompt, tokens, one)}))
    if at in names(prompt):
        return _named(prompt, tokens, at)
    if at in ("subject", "subject_first", "subject_last"):
        raise InputError(
            f"prompt {shown(prompt.text)} has no span 'subject'; "
            "give Prompt(text, spans={'subject': ...})"
        )
    raise unknown("position", at, names(prompt))


def lacks(prompt: Prompt, tokens: Tokens, at: At) -> str | None:
    """Why a prompt has no such place, or None where it has."""
    for one in [at] if isinstance(at, str | int) else at:
        if isinstance(one, int) and not -len(tokens) <= one < tokens.n_all:
            return f"the prompt has no position {one}"
        if isinstance(one, str) and one not in names(prompt):
            return f"the prompt has no {one!r}"
        if not resolve(prompt, tokens, one):
            return f"{one!r} is empty in the prompt"
    return None


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

    A continuation's tokens come after the prompt's. `all` and `rest` take them in, a span may cover
    them, and an index may reach them; `last`, `between`, `random` and negative indices are about
    the prompt alone.

    Raises:
        InputError: unknown name, index out of range, a tokenizer without offsets, one with a BOS
            token and no `prepend_bos`, or a token over the end of the prompt and the beginning of
            its continuation.
    """
    check_prompt(prompt)
    bos = default_bos(tokenizer, prepend_bos)
    of_model = getattr(tokenizer, "cfg", None) is not None
    tokens = tokenize_prompt(prompt, tokenizer.tokenizer if of_model else tokenizer, bos)
    return resolve(prompt, tokens, place_of(at))
