"""information_flow: the three rows of the published heatmaps."""

from knockgrid.edits.intervention import Intervention
from knockgrid.edits.knockout import knockout
from knockgrid.edits.layers import Window
from knockgrid.edits.patch import patch
from knockgrid.sources.source import Source


def information_flow(
    source: Source | None = None, window: Window = 5, act_name: str = "resid_post"
) -> list[Intervention]:
    """The rows subject, attention and last: where knowledge is, how it moves, where it ends.

    Example:
        >>> import knockgrid as kg
        >>> [row.name for row in kg.information_flow()]
        ['subject', 'attention', 'last']

    `subject` patches `act_name` at all subject tokens from `source` (by default the corrupted
    run), `attention` blocks subject -> last in a window of layers, `last` patches `act_name` at
    the last prompt token.

    Source: the rows of Cheang et al. 2025 (arXiv 2510.09033, Fig. 2). The paper does not say what
    replaces the states; the corrupted run is this tool's default, not a claim about theirs.
    """
    return [
        patch(act_name, "subject", source, name="subject", label="Subj."),
        knockout("last", "subject", window, name="attention", label="Attn."),
        patch(act_name, "last", source, name="last", label="Last."),
    ]
