"""Spans: the sentences, lines, paragraphs, turns and matches of a text, by name.

Each function gives `{name: (start, end)}` in characters of `prompt.whole`, for `with_spans`: in
order, without white space around them, and without overlap.
"""

import re
from collections.abc import Iterable

from knockgrid.errors import InputError, shown
from knockgrid.prompts.prompt import Prompt, Span, check_prompt, trimmed
from knockgrid.prompts.sentence_ends import sentence_ends

Spans = dict[str, Span]
BLANK = re.compile(r"\n[^\S\n]*(?:\n[^\S\n]*)+")
MARKED = re.compile(
    r"<\|im_start\|>[^\n<]*\n(.*?)(?:<\|im_end\|>|\Z)"
    r"|<\|start_header_id\|>[^\n<]*<\|end_header_id\|>(.*?)(?:<\|eot_id\|>|\Z)",
    re.DOTALL,
)
SPOKEN = re.compile(r"^[^\S\n]*(?:(?i:User|Assistant|Human|AI|System)|Q|A)[^\S\n]*:", re.MULTILINE)


def sentences(prompt: Prompt) -> Spans:
    r"""The sentences of a prompt's continuation, or of its text where it has none: s0, s1, ….

    Example:
        >>> trace = Prompt("Why?", continuation=" It is 3.5 km, i.e. near. Dr. No left! Done.")
        >>> list(trace.with_spans(sentences(trace)).spans.values())
        [(5, 29), (30, 42), (43, 48)]

    A sentence ends at `.`, `!`, `?` or `…` and the quotes and brackets that close behind it,
    before white space, at `。`, `！` or `？`, at a blank line, and before a line that begins a list
    item. It does not end inside a number or a formula (`$…$`, `\(…\)`, `\[…\]`), after an
    abbreviation of `sentence_ends.ABBREVIATIONS` or an initial ("J. Smith"), at the number of a
    list item ("2."), or at an ellipsis or quotation that a small letter follows.

    Raises:
        InputError: no Prompt, or nothing but white space.

    Limits: rules for English and alike, which a wrong full stop misleads. `matches` takes a rule of
    your own, and `with_spans` the spans of any library, such as pysbd or spaCy.
    """
    start, end = _measured(prompt)
    ends = sentence_ends(prompt.whole[start:end])
    return _named("s", "sentence", prompt, _between(start, end, ends))


def lines(prompt: Prompt) -> Spans:
    r"""The lines of a prompt's continuation, or of its text where it has none: l0, l1, ….

    Example:
        >>> lines(Prompt("Add 2 and 3.\n\nThen 4."))
        {'l0': (0, 12), 'l1': (14, 21)}

    Lines of white space alone are left out. An `InputError` where nothing is left.
    """
    start, end = _measured(prompt)
    ends = (found.end() for found in re.finditer("\n", prompt.whole[start:end]))
    return _named("l", "line", prompt, _between(start, end, ends))


def paragraphs(prompt: Prompt) -> Spans:
    r"""The paragraphs of a prompt's continuation, or of its text where it has none: p0, p1, ….

    Example:
        >>> paragraphs(Prompt("Add 2\nand 3.\n\nThen 4."))
        {'p0': (0, 12), 'p1': (14, 21)}

    Blank lines stand between them. An `InputError` where nothing is left.
    """
    start, end = _measured(prompt)
    ends = (found.end() for found in BLANK.finditer(prompt.whole[start:end]))
    return _named("p", "paragraph", prompt, _between(start, end, ends))


def turns(prompt: Prompt) -> Spans:
    r"""What is said in each turn of a chat, prompt and continuation together: t0, t1, ….

    Example:
        >>> turns(Prompt("User: Is it far?\nAssistant: No."))
        {'t0': (6, 16), 't1': (28, 31)}

    Turns are marked as in ChatML (`<|im_start|>user`), by the headers of Llama 3
    (`<|start_header_id|>`), or by lines that begin with `User:`, `Assistant:`, `Human:`, `AI:`,
    `System:`, `Q:` or `A:`. The marks are no part of them.

    Raises:
        InputError: no such mark; `matches` takes other ones.
    """
    check_prompt(prompt)
    text = prompt.whole
    found = [one.span(1 if one[1] is not None else 2) for one in MARKED.finditer(text)]
    if not found:
        marks = [one.span() for one in SPOKEN.finditer(text)]
        ends = [first for first, _ in marks[1:]] + [len(text)] * bool(marks)
        found = [(behind, end) for (_, behind), end in zip(marks, ends, strict=True)]
    if not found:
        raise InputError(
            f"{shown(text)} has no turns: neither <|im_start|> nor <|start_header_id|>, nor a line "
            "that begins with User: or Assistant:; give their pattern to matches()"
        )
    return _named("t", "turn", prompt, found)


def matches(prompt: Prompt, pattern: str | re.Pattern[str]) -> Spans:
    r"""What a regular expression finds in a prompt and its continuation: m0, m1, ….

    Example:
        >>> matches(Prompt("Add 2 and 30."), r"\d+")
        {'m0': (4, 5), 'm1': (10, 12)}

    Matches of nothing, or of white space alone, are left out.

    Raises:
        InputError: a pattern that is none, or that finds nothing.
    """
    check_prompt(prompt)
    try:
        found = [one.span() for one in re.finditer(pattern, prompt.whole)]
    except (re.error, TypeError, OverflowError, RecursionError) as error:
        raise InputError(
            f"pattern {shown(pattern)} is no regular expression ({error}); give one such as "
            r"r'Step \d+'"
        ) from None
    return _named("m", f"match of {shown(pattern)}", prompt, found)


def _measured(prompt: Prompt) -> Span:
    """The continuation, or the text where there is none."""
    check_prompt(prompt)
    start = 0 if prompt.continuation is None else len(prompt.text)
    return start, len(prompt.whole)


def _between(start: int, end: int, ends: Iterable[int]) -> list[Span]:
    """The pieces of a part of a text that is cut at some places, which count from its start."""
    cuts = [start, *(start + at for at in ends), end]
    return list(zip(cuts, cuts[1:], strict=False))


def _named(letter: str, what: str, prompt: Prompt, found: Iterable[Span]) -> Spans:
    """Spans without white space around them, numbered; those of white space alone are left out."""
    kept = []
    for start, end in found:
        piece = prompt.whole[start:end]
        seen = trimmed(piece)
        if seen:
            first = start + piece.find(seen)
            kept.append((first, first + len(seen)))
    if not kept:
        raise InputError(f"{shown(prompt.whole)} has no {what}; give others to with_spans()")
    return {f"{letter}{i}": span for i, span in enumerate(kept)}
