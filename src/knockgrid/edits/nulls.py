"""nulls: what should do nothing, or no more than a push in any direction does."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from knockgrid.edits.contrasts import check_treatment
from knockgrid.edits.edge_patch import edge_patch
from knockgrid.edits.information_flow import information_flow
from knockgrid.edits.intervention import Intervention
from knockgrid.edits.knockout import Knockout
from knockgrid.edits.patch import Patch, patch
from knockgrid.errors import InputError
from knockgrid.prompts.prompt import Prompt
from knockgrid.sources.donor import donor
from knockgrid.sources.random_direction import random_direction
from knockgrid.sources.ulp import ulp


def nulls(
    treatments: Sequence[Intervention] | None = None,
    partners: Mapping[str, Prompt] | None = None,
) -> list[Intervention]:
    """The nulls of some treatments: rounding, a push of the same size, and the same answer.

    Example:
        >>> import knockgrid as kg
        >>> [one.name for one in kg.nulls()][:3]
        ['subject | ulp', 'subject | direction', 'attention | ulp']
        >>> one = kg.nulls()[0]
        >>> one.role, one.of, one.label
        ('null', 'subject', 'Subj. | ±1 ulp')

    - `ulp`: every entry of the same activation moved by one unit in the last place; for attention
      rows that of the attention's output at the query, over the same window (see `rounded`);
    - `direction`: the same patch in a random direction, as far as its own source moves it;
      attention rows have none;
    - `same answer`: the subject exchanged for one with the same answer, from the mapping
      `partners` (`knockgrid.prompts.same_answer` finds one); attention rows see that run's keys and
      values.

    Limits: only `ulp` should be nothing at all. A random direction leaves the manifold, and another
    subject brings more than its answer: what these two move is what a treatment must exceed.

    Raises:
        InputError: a treatment that edits neither an activation nor attention, or is a null.
    """
    rows = information_flow() if treatments is None else list(treatments)
    return [one for row in rows for one in _nulls_of(row, partners)]


def _nulls_of(row: Intervention, partners: Mapping[str, Prompt] | None) -> list[Intervention]:
    check_treatment(row)
    made = [_as_null(rounded(row), row, "ulp", "±1 ulp")]
    if isinstance(row, Patch):
        pushed = replace(row, source=random_direction(row.source))
        made.append(_as_null(pushed, row, "direction", "random direction"))
    if partners is not None:
        made.append(_as_null(_exchanged(row, partners), row, "same answer", "same answer"))
    return made


def rounded(row: Intervention) -> Patch:
    """The ±1-ulp edit at the site of an intervention, over the same layers.

    Attention has no activation at the knocked-out edge itself; what it moves is `attn_out` at the
    queries.

    Raises:
        InputError: an intervention that edits neither an activation nor attention.
    """
    if isinstance(row, Patch):
        return replace(row, source=ulp(), alpha=1.0)
    named: dict[str, Any] = {"name": row.name, "label": row.label}
    if row.edges is not None:
        return patch("attn_out", row.edges[0], ulp(), row.window, **named)
    if not row.sites:
        raise InputError(f"{row!r} edits neither an activation nor attention")
    act_name, pos = row.sites[0]
    return patch(act_name, pos, ulp(), row.window, **named)


def _exchanged(row: Intervention, partners: Mapping[str, Prompt]) -> Intervention:
    source = donor(partners)
    if isinstance(row, Knockout):
        return edge_patch(row.dest, row.src, source, row.window, row.heads)
    changes: dict[str, Any] = {"source": source}
    return replace(row, **changes)


def _as_null(made: Intervention, row: Intervention, what: str, said: str) -> Intervention:
    name, label = f"{row.name} | {what}", f"{row.label} | {said}"
    return replace(made, name=name, label=label, role="null", of=row.name)
