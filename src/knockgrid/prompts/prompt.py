"""Prompt: the text a model is asked to continue, with the places in it that have a name."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import SupportsIndex

from knockgrid.display.listing import listing, marked
from knockgrid.errors import InputError, looks_alike, shown

Span = tuple[int, int]
WHITE = "".join(filter(str.isspace, map(chr, range(0x3001)))) + "\u200b\u2060\ufeff"
LISTED = 9
"""Most occurrences of an ambiguous span that are looked for: a hostile text has millions."""


def trimmed(text: str) -> str:
    """A text without white space around it, invisible characters included."""
    return text.strip(WHITE)


def _find_once(text: str, name: str, part: str) -> Span:
    """The character span of `part` in `text`, which must hold it exactly once."""
    if not part:
        raise InputError(f"span {shown(name)} is empty; give the characters it covers")
    starts, at = [], text.find(part)
    while at >= 0 and len(starts) < LISTED:
        starts.append(at)
        at = text.find(part, at + 1)
    said = f"span {shown(name)} ({shown(part)})"
    if not starts:
        advice = looks_alike(part, text) or "check the spelling"
        raise InputError(f"{said} does not occur in {shown(text)}; {advice}")
    if len(starts) > 1:
        times = f"{len(starts)} times" if at < 0 else f"more than {LISTED} times"
        places = ", ".join(map(str, starts[:-1])) + f" and {starts[-1]}"
        last = (starts[-1], starts[-1] + len(part))
        raise InputError(
            f"{said} occurs {times} in {shown(text)}, at {places}; "
            f"give spans={{{shown(name)}: {last}}}"
        )
    return starts[0], starts[0] + len(part)


def _checked(text: str, name: str, given: object) -> Span:
    if isinstance(given, str):
        return _find_once(text, name, trimmed(given))
    if not (isinstance(given, Sequence) and len(given) == 2 and all(type(i) is int for i in given)):
        raise InputError(
            f"span {shown(name)} is {shown(given)}; give (start, end) in characters or the text"
        )
    start, end = given
    if not 0 <= start < end <= len(text):
        raise InputError(
            f"span {shown(name)} ({shown(start)}, {shown(end)}) lies outside {shown(text)}, which "
            f"has {len(text)} characters; spans are half-open and not empty"
        )
    covered = text[start:end]
    seen = trimmed(covered)
    start += covered.find(seen) if seen else 0
    return start, start + len(seen or covered)


def _alias(prompt: str, number: int, given: str) -> str:
    """An answer without white space around it; the rest must be one answer."""
    alias = trimmed(given)
    if not alias:
        raise InputError(
            f"answer {number} of {shown(prompt)} is {shown(given)}, which is empty; leave it out"
        )
    if alias[:2] in ('["', "['") and alias[-1] == "]":
        raise InputError(
            f"answer {number} of {shown(prompt)} is {shown(alias)}, a list as text; give its items"
        )
    return alias


def _foil(prompt: str, given: str, answers: Sequence[str]) -> str:
    """A foil without white space around it, which must be none of the answers."""
    foil = trimmed(given)
    if not foil:
        raise InputError(f"the foil of {shown(prompt)} is {shown(given)}, empty; leave it out")
    if foil.casefold() in {answer.casefold() for answer in answers}:
        raise InputError(
            f"the foil of {shown(prompt)} is {shown(foil)}, which is one of its answers; give a "
            "wrong answer"
        )
    return foil


def _sound(what: str, text: object) -> None:
    """Refuse what is no text (a NaN of a table, too), and text with a NUL or a lone surrogate.

    A lone surrogate is half of a character beyond U+FFFF, which can be neither tokenized nor
    written.
    """
    if not isinstance(text, str):
        instead = "give a text, or leave it out"
        if isinstance(text, SupportsIndex):
            instead = f"write {str(text)!r}"
        raise InputError(f"{what} is {shown(text)}, which is no text; {instead}")
    if "\0" in text:
        raise InputError(f"{what} {shown(text)} holds a NUL character; take it out")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = ascii(text[error.start])[1:-1]
        raise InputError(
            f"{what} {shown(text)} holds half a character ({half}, a lone surrogate) at "
            f"{error.start}; UTF-8 cannot write it, so repair the text"
        ) from None


@dataclass(frozen=True)
class Prompt:
    """A prompt with named character spans, its right answers and its place in a data set.

    Example:
        >>> prompt = Prompt(
        ...     "The Eiffel Tower is located in the city of",
        ...     spans={"subject": "The Eiffel Tower"},
        ...     answers=("Paris",),
        ... )
        >>> prompt.spans["subject"]
        (0, 16)

    A span is half-open in characters (code points), or the text itself, which must then occur
    exactly once. White space around spans, answers and foil is removed. A `continuation` is
    measured in place of what the model would write; it follows the text as it stands, so that it
    mostly begins with a space, and spans are counted in both together (`whole`). `foil` is a wrong
    answer, whose logit `logit_diff` and `recovered` compare with the right one's. `relation` and
    the subject are the clusters of the statistics, `group` is the panel of a figure, `swap` the
    partner prompt of `corrupted_run(by=swap())`, and `id` names the prompt in tables (by default a
    digest of text, continuation and spans).

    Raises:
        InputError: empty text or continuation, a span that is absent, ambiguous or outside them, an
            answer that is empty, a foil that is empty or one of the answers (in any case of
            letters), or a name, continuation, answer or foil that is no text, or has NUL or a lone
            surrogate in it.
    """

    text: str
    _: KW_ONLY
    continuation: str | None = None
    spans: Mapping[str, Span | str] = field(default_factory=dict)
    answers: Sequence[str] = ()
    foil: str | None = None
    relation: str | None = None
    group: str | None = None
    swap: "Prompt | None" = None
    id: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text:
            raise InputError(f"a prompt needs text, got {shown(self.text)}")
        if isinstance(self.answers, str) or not isinstance(self.answers, Iterable):
            kind = "the string " if isinstance(self.answers, str) else ""
            raise InputError(f"answers is {kind}{shown(self.answers)}; give a list of strings")
        answers = tuple(self.answers)  # once: it may be an iterator
        names = {n: getattr(self, n) for n in ("foil", "relation", "group", "id", "continuation")}
        texts = [("text", self.text), *((k, v) for k, v in names.items() if v is not None)]
        texts += [("answer", one) for one in answers] + [("span name", one) for one in self.spans]
        for what, text in texts:
            _sound(what, text)
        if self.continuation == "":
            raise InputError(
                f"the continuation of {shown(self.text)} is empty; leave it out, or give the text "
                "that is measured"
            )
        answers = tuple(_alias(self.text, i, one) for i, one in enumerate(answers, 1))
        object.__setattr__(self, "answers", answers)
        if self.foil is not None:
            object.__setattr__(self, "foil", _foil(self.text, self.foil, answers))
        spans = {name: _checked(self.whole, name, given) for name, given in self.spans.items()}
        object.__setattr__(self, "spans", spans)
        if self.id is None:
            more = () if self.continuation is None else (self.continuation,)
            seen = repr((self.text, sorted(spans.items()), *more)).encode("utf-8", "replace")
            object.__setattr__(self, "id", hashlib.sha256(seen).hexdigest()[:12])

    def __hash__(self) -> int:
        return hash((self.id, self.text))

    def _repr_html_(self) -> str:
        n = len(self.text)
        moved = {name: (max(0, a - n), b - n) for name, (a, b) in self._places if b > n}
        said = {
            "text": marked(self.text, {k: (a, min(b, n)) for k, (a, b) in self._places if a < n}),
            "continuation": marked(self.continuation, moved) if self.continuation else None,
            "answers": ", ".join(self.answers) or None,
            "foil": self.foil,
            "relation": self.relation,
            "group": self.group,
            "swap": None if self.swap is None else self.swap.text,
        }
        return listing(f"Prompt {self.id}", said.items())

    @property
    def _places(self) -> list[tuple[str, Span]]:
        return [(name, (int(a), int(b))) for name, (a, b) in self.spans.items()]

    @property
    def whole(self) -> str:
        """The text and its continuation, in which spans are counted.

        Example:
            >>> Prompt("Rome is in", continuation=" Italy.").whole
            'Rome is in Italy.'
        """
        return self.text + (self.continuation or "")

    @property
    def span_names(self) -> tuple[str, ...]:
        """The names of the spans, in order.

        Example:
            >>> Prompt("Rome is in", spans={"subject": "Rome", "verb": "is"}).span_names
            ('subject', 'verb')
        """
        return tuple(self.spans)

    def span_text(self, name: str) -> str | None:
        """The characters of a span, or None where the prompt has no such span.

        Example:
            >>> Prompt("Rome is in", spans={"subject": "Rome"}).span_text("subject")
            'Rome'
        """
        if name not in self.spans:
            return None
        start, end = self.spans[name]
        return self.whole[int(start) : int(end)]

    def replace(self, **changes: object) -> "Prompt":
        """A copy with some fields changed.

        Example:
            >>> Prompt("Rome is in").replace(group="cities").group
            'cities'
        """
        return replace(self, **changes)  # type: ignore[arg-type]

    def with_spans(self, spans: Mapping[str, Span | str]) -> "Prompt":
        """A copy that has these spans as well; its id stays.

        Example:
            >>> Prompt("Rome is in", spans={"subject": "Rome"}).with_spans({"verb": "is"}).spans
            {'subject': (0, 4), 'verb': (5, 7)}

        Raises:
            InputError: a name that the prompt has already, or what `Prompt` refuses as a span.
        """
        if not isinstance(spans, Mapping):
            raise InputError(f"spans are {shown(spans)}; give them by name: {{'verb': (5, 7)}}")
        for name in spans:
            if name in self.spans:
                raise InputError(
                    f"prompt {shown(self.text)} has a span {shown(name)} already; take another "
                    "name, or replace(spans=...)"
                )
        return self.replace(spans={**self.spans, **spans})


def shared_answers(one: Prompt, other: Prompt) -> set[str]:
    """The answers that two prompts share, in any case of letters."""
    found, others = ({answer.casefold() for answer in p.answers} for p in (one, other))
    return found & others


def check_prompt(given: object) -> None:
    """Refuse what is no `Prompt`, such as a bare text."""
    if not isinstance(given, Prompt):
        raise InputError(f"{shown(given)} is not a Prompt; write Prompt(text, spans={{...}})")
