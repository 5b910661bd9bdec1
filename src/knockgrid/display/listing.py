"""Listings: how objects show themselves in a notebook.

Fragments of HTML with inline styles in the colours of the page, so that they read in light and
dark alike; no script, nothing from a network. Each text goes through `escape.html`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from knockgrid.display.escape import html

MARK = "font-weight:600;border-bottom:2px solid currentColor"
CELL = "text-align:left;vertical-align:top;padding:1px 12px 1px 0"
LONGEST = 400
"""Characters of a text that are shown."""


def listing(title: str, entries: Iterable[tuple[str, Any]]) -> str:
    """A heading over pairs of a name and a value; pairs without a value are left out."""
    rows = "".join(
        f'<tr style="background:none"><td style="{CELL};opacity:0.7">{html(name)}</td>'
        f'<td style="{CELL}">{value if isinstance(value, Html) else html(short(value))}</td></tr>'
        for name, value in entries
        if value is not None
    )
    return f'<div><b>{html(title)}</b><table style="border:none">{rows}</table></div>'


class Html(str):
    """Text that is HTML already, of parts that this module escaped."""


def short(value: Any) -> str:
    """A value as text, cut where it is long."""
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]} …"


def marked(text: str, spans: Mapping[str, Any]) -> Html:
    """A text whose spans are underlined, with their names on hover; spans may overlap."""
    cuts = sorted({0, len(text), *(int(i) for span in spans.values() for i in span)})
    parts = []
    for start, end in zip(cuts, cuts[1:], strict=False):
        names = [name for name, (a, b) in spans.items() if a <= start and end <= b]
        piece = html(text[start:end])
        said = html(", ".join(names))
        parts.append(f'<span title="{said}" style="{MARK}">{piece}</span>' if names else piece)
    return Html("".join(parts))
