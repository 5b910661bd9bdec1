"""per_head: one intervention, head by head."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from knockgrid.edits.edge_patch import EdgePatch
from knockgrid.edits.intervention import Intervention
from knockgrid.edits.knockout import Knockout
from knockgrid.edits.patch import Patch
from knockgrid.errors import InputError

Headed = TypeVar("Headed", Knockout, EdgePatch, Patch)


def per_head(intervention: Headed, heads: int | Sequence[int]) -> list[Headed]:
    """The same intervention limited to each head in turn: the rows of a layer × head grid.

    Example:
        >>> import knockgrid as kg
        >>> [one.name for one in kg.per_head(kg.knockout(window=1), 2)]
        ['subject->last head 0', 'subject->last head 1']

    `heads` is a number of heads or a list of head indices (query heads; for `k` and `v` those of
    the activation). Works with `knockout`, `edge_patch` and with `patch` of an activation that has
    heads: `patch("z", "last")` patches what each head adds before the output projection. The
    table's column `head` tells them apart.

    Raises:
        InputError: no heads, one given twice, or an intervention that is limited to heads already.
    """
    if not isinstance(intervention, Intervention):
        raise InputError(f"{intervention!r} has no heads; use knockout(), edge_patch() or patch()")
    if intervention.heads is not None:
        raise InputError(f"{intervention.name!r} is limited to heads already; leave heads= out")
    chosen = list(range(heads)) if isinstance(heads, int) else list(heads)
    if not chosen or len(set(chosen)) < len(chosen):
        raise InputError(f"heads are {heads!r}; give a number of heads or a list, each head once")
    return [
        replace(
            intervention,
            head=head,
            heads=(head,),
            name=f"{intervention.name} head {head}",
            label=f"head {head}",
        )
        for head in chosen
    ]
