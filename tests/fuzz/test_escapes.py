"""Escaped text is harmless in its place, and nothing of it is lost."""

import csv
import html as standard
import io
import re
from html.parser import HTMLParser

from counted import target
from hypothesis import assume, given
from hypothesis import strategies as st
from matplotlib import cbook

from knockgrid.display.escape import file_name, from_spreadsheet, html, latex, mathtext, spreadsheet
from knockgrid.errors import printable, shown

FRAGMENTS = st.sampled_from(
    [
        *("<script>", "</p>", "&amp;", "&", '"', "'", "<!--", "]]>", "\\", "$", "\\$", "$\\frac{"),
        *("{", "}", "%", "#", "_", "^", "^^41", "~", "\\input{/etc/passwd}", "\n\n", "\t", "\r"),
        *("=1+1", "+1", "-1", "@SUM(1)", "'", "''=1", " =1", "＝1", "＠a", "|", ",", ";"),
        *("/", "..", "../", "CON", "con", "nul", "LPT1", ".", " ", "-rf", "é", "e\u0301", "a" * 90),
        *("\0", "\x1b[2J", "\ud800", "\u202e", "\ufffe", "\U0010ffff", "Rome", "rome", "ROME"),
        "\ufeff=",
    ]
)
TEXT = st.lists(FRAGMENTS | st.text(st.characters(), max_size=4), max_size=6).map("".join)


class Parsed(HTMLParser):
    """What a browser's parser would see."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.data = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        self.tags.append(f"/{tag}")

    def handle_comment(self, data):
        self.tags.append("!")

    def handle_data(self, data):
        self.data.append(data)


FORBIDDEN = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@given(TEXT)
@target("HTML", 5_000)
def test_html(text):
    parsed = Parsed()
    parsed.feed(f'<p title="{html(text)}">{html(text)}</p>')
    parsed.close()
    want = FORBIDDEN.sub("\ufffd", text)
    assert parsed.tags == ["p", "/p"]
    assert parsed.attributes == [("title", want)]
    assert "".join(parsed.data) == want
    assert standard.unescape(html(text)) == want


NAMED = {"textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^"}


def read_latex(text: str) -> str:
    """A reader of its own: it knows control sequences, and refuses everything active."""
    found, at = [], 0
    while at < len(text):
        match = re.compile(r"\\([a-z]+)\{\}|\\([#$%&_{}])|([^\\#$%&_{}~^])", re.S).match(text, at)
        assert match, f"active at {at} in {text!r}"
        found.append(NAMED[match[1]] if match[1] else match[2] or match[3])
        at = match.end()
    return "".join(found)


@given(TEXT)
@target("LaTeX", 5_000)
def test_latex(text):
    back = read_latex(latex(text))
    assert len(back) == len(text)
    assert all(
        a == b or (b == " " and not a.isprintable()) for a, b in zip(text, back, strict=True)
    )


@given(TEXT)
@target("matplotlib", 5_000)
def test_mathtext(text):
    drawn = mathtext(text)
    assert not cbook.is_math_text(drawn)
    assert drawn.replace(r"\$", "$") == text  # which is what matplotlib does to it


@given(TEXT)
@target("CSV cells", 6_000)
def test_spreadsheet(text):
    cell = spreadsheet(text)
    assert not re.match(r"\s*[=+\-@＝＋－＠]|[\t\r\n]", cell)
    assert from_spreadsheet(cell) == text
    assume("\0" not in text)
    file = io.StringIO(newline="")
    csv.writer(file).writerow([cell, "2"])
    file.seek(0)
    (row,) = csv.reader(file)
    assert [from_spreadsheet(row[0]), row[1]] == [text, "2"]


DEVICES = {"con", "prn", "aux", "nul", *(f"{p}{n}" for p in ("com", "lpt") for n in range(10))}


@given(TEXT, TEXT)
@target("file names", 8_000)
def test_file_names(text, other):
    name = file_name(text)
    assert re.fullmatch(r"[a-z0-9_~][a-z0-9_+=@~-]*", name)
    assert len(name) <= 80
    assert name not in DEVICES
    assert text == other or file_name(other) != name


@given(TEXT)
@target("text in errors", 5_000)
def test_shown(text):
    for said in (shown(text), shown([text] * 50), shown({text: text}), printable(text)):
        assert said.isprintable()
    assert len(shown(text * 9)) <= 80
