"""Sentence ends: where sentences of a text end, by rule."""

import re
from collections.abc import Iterator

ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof sr jr st mt rev gen col sgt capt lt gov sen rep hon vs etc eg ie e.g i.e cf "
    "al approx ca inc ltd co corp dept univ resp a.m p.m u.s u.k a.d b.c ph.d m.sc b.sc viz".split()
)
"""Words, without their last full stop, after which a sentence goes on."""
NUMBERED = frozenset(
    "no nos fig figs eq eqs sec ch vol ed p pp jan feb mar apr jun jul aug sep sept oct nov "
    "dec".split()
)
"""Words after which it goes on where a number follows."""
AT_END = frozenset("etc al a.m p.m u.s u.k inc ltd co corp jr sr ph.d".split())
"""Those of them that end a sentence where a capital letter follows."""
STOP = re.compile(r"(?<![.!?…])[.!?…]+[\"'”’»)\]*_]*(?=\s|$)|[。！？]+[」』”’）]*")
BREAK = re.compile(r"\n[^\S\n]*(?=\n|[-*•] |\d{1,3}[.)] )")
INLINE = re.compile(r"(?<![\w$])\$(?=[^\s$])[^$\n]{0,400}(?<=\S)\$(?![\d$])")
DISPLAYED = (("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)"))
LONGEST_FORMULA = 4000
"""Characters after which a formula that was opened counts as none."""
CLOSING = "\"'”’»)]*_"
ITEM = re.compile(r"\s*(?:[-*•]\s)?\s*(?:\d{1,3}(?:\.\d{1,3})*|[a-z]|[ivx]{1,5})")
INITIALS = re.compile(r"(?:[A-Z]\.)*[A-Z]")
WORD = re.compile(r"[\w.]+$")
LONGEST = 24
"""Characters before a full stop in which its word is looked for."""


def sentence_ends(text: str) -> list[int]:
    """The places at which a text is cut into sentences, in order, without its end."""
    inside = sorted([*(one.span() for one in INLINE.finditer(text)), *_displayed(text)])
    found = {one.end() for one in STOP.finditer(text) if _ends(text, one)}
    found |= {one.start() for one in BREAK.finditer(text)}
    return [at for at in _outside(sorted(found), inside) if at < len(text)]


def _displayed(text: str) -> Iterator[tuple[int, int]]:
    for opens, closes in DISPLAYED:
        start = text.find(opens)
        while start >= 0:
            inside = start + len(opens)
            end = text.find(closes, inside, inside + LONGEST_FORMULA)
            if end >= 0:
                yield start, end + len(closes)
            start = text.find(opens, inside if end < 0 else end + len(closes))


def _outside(places: list[int], inside: list[tuple[int, int]]) -> Iterator[int]:
    """The places that lie in no formula; both are in order."""
    i = 0
    for at in places:
        while i < len(inside) and inside[i][1] <= at:
            i += 1
        if i == len(inside) or at <= inside[i][0]:
            yield at


def _ends(text: str, stop: re.Match[str]) -> bool:
    """Whether a sentence ends at these marks."""
    marks, before = stop[0], text[max(0, stop.start() - LONGEST) : stop.start()]
    following = text[stop.end() : stop.end() + LONGEST].lstrip()[:1]
    small = following.islower()
    if small and (marks[0] == "…" or marks.startswith("..") or marks[-1] in CLOSING):
        return False  # a pause, or words that were quoted
    if marks[0] != "." or marks.startswith(".."):
        return True
    line = before.rpartition("\n")[2]
    begins = "\n" in before or stop.start() <= LONGEST
    if begins and ITEM.fullmatch(line) and following:
        return False  # the number of a list item
    found = WORD.search(before)
    word = found[0] if found else ""
    if word.casefold() in AT_END and following.isupper():
        return True
    if INITIALS.fullmatch(word) and word != "I":
        return not following or not following.isupper()
    if word.casefold() in NUMBERED:
        return not (following.isdigit() or following == "(")
    return word.casefold() not in ABBREVIATIONS or not following
