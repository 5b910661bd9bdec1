r"""Text from data on its way into HTML, LaTeX, a figure, a spreadsheet or a file name.

Prompts, names and labels come from files that anybody may have written. Each function here makes a
text harmless in one place, and in no other.
"""

import hashlib
import html as _html
import re
import unicodedata

LATEX = {
    **{letter: f"\\{letter}" for letter in "#$%&_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}
FORMULA = re.compile(r"[\t\r\n]|[\s\0-\x1f\u200b-\u200f\u2060\ufeff]*[=+\-@＝＋－＠]")
"""What makes a spreadsheet compute a cell, after OWASP's page on CSV injection."""
LONGEST = 80
"""Characters of a file name; file systems take 255, suffixes included."""
_SAFE = re.compile(r"[a-z0-9_][a-z0-9_+=@-]*")
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)")  # Windows opens these as devices


def html(text: object) -> str:
    """Text that HTML shows as it is, in an element or in a quoted attribute.

    Characters that HTML and XML forbid (control characters, lone surrogates) become U+FFFD.

    Limit: not for the inside of a script, a style, an unquoted attribute or an address.
    """
    return _html.escape("".join(c if _in_xml(c) else "\ufffd" for c in str(text)))


def _in_xml(c: str) -> bool:
    if c < " ":
        return c in "\t\n\r"
    return not ("\x7f" <= c <= "\x9f" or "\ud800" <= c <= "\udfff" or c in "\ufffe\uffff")


def latex(text: object) -> str:
    """Text that LaTeX prints as it is: no command, no group, no comment, no formula.

    Line breaks and other control characters become spaces, as an empty line would end a paragraph.
    """
    return "".join(LATEX.get(c, " " if unicodedata.category(c)[0] == "C" else c) for c in str(text))


def mathtext(text: object) -> str:
    """Text that matplotlib draws letter by letter: a dollar sign begins no formula."""
    return str(text).replace("$", r"\$")


def spreadsheet(text: str) -> str:
    """Text as a CSV cell that no spreadsheet computes: an apostrophe precedes a formula.

    Excel, LibreOffice and Google Sheets run a cell that begins with `=`, `+`, `-`, `@`, a tab or a
    line break (full-width signs too, and after invisible characters); quotes around it do not help.
    Such an export is for reading; Parquet and JSONL hold the exact text. Numbers stay numbers: give
    only text columns. `from_spreadsheet` removes the apostrophe.

    Source: OWASP, "CSV Injection". Limit: a text whose first letters are apostrophes before a
    formula gets one more, so that nothing is lost on the way back.
    """
    return f"'{text}" if _computes(text) else text


def from_spreadsheet(text: str) -> str:
    """The text before `spreadsheet`."""
    return text[1:] if text.startswith("'") and _computes(text[1:]) else text


def _computes(text: str) -> bool:
    """Whether a cell would be computed, or is an escaped one, which must stay distinguishable."""
    return FORMULA.match(text.lstrip("'")) is not None


def file_name(text: object) -> str:
    """A file name for any text: a part of a path, never a path.

    A short text of lower-case ASCII letters, digits and `_+=@-` is its own name, unless it begins
    with a sign or names a device of Windows. Any other is spelled with those letters, a tilde and
    sixteen digits of its SHA-256, so that two texts never share a name, even where capital letters
    or accents do not count. At most 80 ASCII characters and no dot: the caller adds a suffix.
    """
    given = str(text)
    if _SAFE.fullmatch(given) and len(given) <= LONGEST and not _DEVICES.fullmatch(given):
        return given
    digest = hashlib.sha256(given.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    # the beginning alone decides how it reads, so a long text costs nothing
    plain = unicodedata.normalize("NFKD", given[:LONGEST]).encode("ascii", "ignore").decode()
    words = re.sub(r"[^a-z0-9]+", "_", plain.lower()).strip("_")
    return f"{words[: LONGEST - 17]}~{digest}"
