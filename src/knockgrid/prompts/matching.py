"""Whether a text gives an answer: by the rule of this package, or by the user's own judge."""

import re
import unicodedata
from collections.abc import Callable, Sequence

from knockgrid.errors import InputError
from knockgrid.prompts.prompt import Prompt

Judge = Callable[[Prompt, str], bool]
"""A user's own rule: from the prompt and the model's continuation to whether it is right."""

ARTICLE = re.compile(r"(?:the|an|a) ")
OPENING = re.compile(r"[\W_]+")  # quotes, brackets, markdown, dashes, bullets
CLOSING = " \"'*_`.,;:!?)]}>»"
ALIKE = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "™": " ", "℠": " "})
UNFINISHED = "\ufffd"  # a part of a character, which the next token would have completed


def is_answer(text: str, answers: Sequence[str]) -> bool:
    """Whether a continuation begins with one of the answers, as whole words.

    Strictly, as a prompt that wrongly counts as correct changes sides in every figure. These do not
    count: case; the article the, a or an before text or answer; quotes, brackets, markdown and
    other marks around either; how Unicode writes the same letters, spaces, dashes and apostrophes;
    accents on Latin letters, which English text often drops ("Bogota"). A word ends where no
    letter, digit or mark follows: "Guinea" is not in "Guinea-Bissau", "3" not in "3.14", "C" not in
    "C++", but "Rome" is in "Rome's". What follows the answer is not read.
    """
    said = _readings(plain_form(text))
    given = {form for answer in answers for form in _spellings(plain_form(answer))}
    return any(one.startswith(form) and _ends(one, len(form)) for one in said for form in given)


def judged(prompt: Prompt, text: str, judge: Judge | None = None) -> bool:
    """Whether a continuation answers a prompt correctly, by its answers or by a judge."""
    if judge is None:
        return is_answer(text, prompt.answers)
    verdict = judge(prompt, text)
    if verdict not in (True, False):  # NumPy's booleans are equal to Python's
        raise InputError(
            f"the judge gave {verdict!r} for prompt {prompt.id!r}; it has to give True or False"
        )
    return bool(verdict)


def plain_form(text: str) -> str:
    """A text in which case, Unicode variants and accents on Latin letters are gone."""
    text = unicodedata.normalize("NFKC", text.translate(ALIKE)).casefold()
    text = unicodedata.normalize("NFKC", text).translate(ALIKE)  # casefold may leave NFKC
    text = "".join("-" if unicodedata.category(c) == "Pd" else c for c in _without_accents(text))
    return " ".join(text.split())


def _without_accents(text: str) -> str:
    kept, base = [], ""
    for char in unicodedata.normalize("NFD", text):
        if not unicodedata.combining(char):
            base = char
        elif base.isascii() and base.isalpha() and "\u0300" <= char <= "\u036f":
            continue
        kept.append(char)
    return unicodedata.normalize("NFKC", "".join(kept))


def _readings(said: str) -> list[str]:
    """A continuation as it is, without opening marks, and without an article after them."""
    bare = _opened(said)
    article = ARTICLE.match(bare)
    return [said, bare, *([_opened(bare[article.end() :])] if article else [])]


def _spellings(answer: str) -> set[str]:
    """An answer as it is, without the marks around it, and without its article."""
    bare = _opened(answer).rstrip(CLOSING)
    return {form for form in (answer, bare, ARTICLE.sub("", bare, count=1)) if form}


def _opened(text: str) -> str:
    """A text without opening marks; those that belong to a number (-5, .5) stay."""
    found = OPENING.match(text)
    if found is None or UNFINISHED in found.group():
        return text
    start = found.end()
    if text[start : start + 1].isdigit() and text[start - 1] in "-+.−":
        return text
    return text[start:]


def _ends(said: str, at: int) -> bool:
    """Whether a word ends before `at`."""
    rest = said[at:]
    if not rest:
        return True
    if rest[0].isalnum() or rest[0] in "+#" + UNFINISHED or unicodedata.category(rest[0])[0] == "M":
        return False
    if rest[0] in "-'_" and rest[1:2].isalnum():
        return re.match(r"'s(?!\w)", rest) is not None
    return not (rest[0] in ".,:/" and said[at - 1].isdigit() and rest[1:2].isdigit())
