"""Prompt: the text a model is asked to continue, with the places in it that have a name."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace

from knockgrid._errors import InputError

Span = tuple[int, int]


def find_once(text: str, name: str, part: str) -> Span:
    """The character span of `part` in `text`, which must hold it exactly once.

    Example:
        >>> find_once("Rome is in", "subject", "Rome")
        (0, 4)
    """
    if not part:
        raise InputError(f"span {name!r} is empty; give the characters it covers")
    starts = [i for i in range(len(text)) if text.startswith(part, i)]
    if not starts:
        raise InputError(f"span {name!r} ({part!r}) does not occur in {text!r}; check the spelling")
    if len(starts) > 1:
        places = ", ".join(map(str, starts[:-1])) + f" and {starts[-1]}"
        last = (starts[-1], starts[-1] + len(part))
        raise InputError(
            f"span {name!r} ({part!r}) occurs {len(starts)} times in {text!r}, at {places}; "
            f"give spans={{{name!r}: {last}}}"
        )
    return starts[0], starts[0] + len(part)


def _checked(text: str, name: str, given: object) -> Span:
    if isinstance(given, str):
        return find_once(text, name, given)
    if not (isinstance(given, Sequence) and len(given) == 2 and all(type(i) is int for i in given)):
        raise InputError(f"span {name!r} is {given!r}; give (start, end) in characters or the text")
    start, end = given
    if not 0 <= start < end <= len(text):
        raise InputError(
            f"span {name!r} ({start}, {end}) lies outside {text!r}, which has {len(text)} "
            "characters; spans are half-open and not empty"
        )
    return start, end


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

    Spans are half-open and count characters (code points), or are given as the text itself, which
    must then occur exactly once. `relation` and the subject are the clusters of the statistics,
    `group` is the panel of a figure, `swap` the partner prompt of `corrupted_run(by=swap())`, and
    `id` names the prompt in tables (by default a digest of text and spans).

    Raises:
        InputError: empty text, or a span that is absent, ambiguous or outside the text.
    """

    text: str
    _: KW_ONLY
    spans: Mapping[str, Span | str] = field(default_factory=dict)
    answers: Sequence[str] = ()
    relation: str | None = None
    group: str | None = None
    swap: "Prompt | None" = None
    id: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text:
            raise InputError(f"a prompt needs text, got {self.text!r}")
        if isinstance(self.answers, str):
            raise InputError(f"answers is the string {self.answers!r}; give a list of strings")
        spans = {name: _checked(self.text, name, given) for name, given in self.spans.items()}
        object.__setattr__(self, "spans", spans)
        object.__setattr__(self, "answers", tuple(self.answers))
        if self.id is None:
            digest = hashlib.sha256(
                repr((self.text, sorted(spans.items()))).encode("utf-8", "replace")
            )
            object.__setattr__(self, "id", digest.hexdigest()[:12])

    def __hash__(self) -> int:
        return hash((self.id, self.text))

    def span_text(self, name: str) -> str | None:
        """The characters of a span, or None where the prompt has no such span.

        Example:
            >>> Prompt("Rome is in", spans={"subject": "Rome"}).span_text("subject")
            'Rome'
        """
        if name not in self.spans:
            return None
        start, end = self.spans[name]
        return self.text[int(start) : int(end)]

    def replace(self, **changes: object) -> "Prompt":
        """A copy with some fields changed.

        Example:
            >>> Prompt("Rome is in").replace(group="cities").group
            'cities'
        """
        return replace(self, **changes)  # type: ignore[arg-type]
