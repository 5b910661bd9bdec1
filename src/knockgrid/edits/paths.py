"""paths: the direct way from the subject to the last token, and the ways through other tokens."""

from dataclasses import replace

from knockgrid.edits.edge_patch import EdgePatch, edge_patch
from knockgrid.edits.layers import Window
from knockgrid.sources.source import Source


def paths(source: Source | None = None, window: Window = "from") -> list[EdgePatch]:
    """Cut the direct path from the subject, the paths through the tokens between, and both.

    Example:
        >>> import knockgrid as kg
        >>> [one.name for one in kg.paths()]
        ['direct', 'between', 'both']

    Each row lets its queries see the source run's keys and values at the subject, by default from
    the cell's layer on: `direct` the last token, `between` the tokens after the subject and before
    the last one, `both` all of them. At layer 0 `both` is the whole corruption, since nothing of
    the subject reaches the last token otherwise; `both` - `direct` - `between` is what the two ways
    share (negative) or only do together (positive).

    Limit: prompts need a token between the subject and the last one.
    """
    rows = {"direct": "last", "between": "between", "both": ["between", "last"]}
    return [
        replace(edge_patch("last", "subject", source, window, name=name, label=name), dest=dest)
        for name, dest in rows.items()
    ]
