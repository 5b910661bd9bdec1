"""information_flow, and its controls: "more than what?", and what should do nothing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from knockgrid.edits.edges import EdgePatch, Knockout, edge_patch, knockout
from knockgrid.edits.intervention import Intervention
from knockgrid.edits.layers import Window
from knockgrid.edits.patch import Patch, patch
from knockgrid.errors import InputError
from knockgrid.prompts.prompt import Prompt
from knockgrid.sources.other_run import CorruptedRun, Noise, donor
from knockgrid.sources.pushes import random_direction, ulp
from knockgrid.sources.source import Source

ELSEWHERE = {"random": "random tokens", "rest": "relation tokens", "bos": "BOS"}


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

    Source: the rows of Cheang et al. 2025 (arXiv 2510.09033, Fig. 2), who do not say what replaces
    the states; the corrupted run is this tool's default.
    """
    return [
        patch(act_name, "subject", source, name="subject", label="Subj."),
        knockout("last", "subject", window, name="attention", label="Attn."),
        patch(act_name, "last", source, name="last", label="Last."),
    ]


def contrasts(treatments: Sequence[Intervention] | None = None) -> list[Intervention]:
    """The contrasts of some treatments: the same intervention at tokens other than the subject's.

    Example:
        >>> import knockgrid as kg
        >>> [one.name for one in kg.contrasts()][:3]
        ['subject | random', 'subject | rest', 'subject | bos']

    `treatments` are rows at the subject, from the subject, or at the last token, by default
    `information_flow()`; sweep them together with their contrasts, in which only tokens change:

    - a patch at the subject goes to as many `random` tokens, to the `rest` (the relation's) and to
      `bos`, from a run that has the same noise at those very tokens instead;
    - attention from the subject becomes attention from those tokens, and from the last token to
      itself; `rest` leaves BOS and the last token attendable;
    - a patch at the last token takes its value from a run that is corrupted at those tokens.

    Where a prompt lacks a place, it is dropped from that row, and counted. A treatment at another
    place, or one that is a control itself, is an `InputError`.

    Source: the controls of Geva et al. 2023 (arXiv 2304.14767).

    Limits: BOS is a sink, which every later token leans on: it can beat the subject. A swap or a
    donor has no counterpart at other tokens, so a patch or an edge patch from one has no contrast.
    """
    return [one for row in _treatments(treatments) for one in _contrasts_of(row)]


def nulls(
    treatments: Sequence[Intervention] | None = None,
    partners: Mapping[str, Prompt] | None = None,
) -> list[Intervention]:
    """The nulls of some treatments: rounding, a push of the same size, and the same answer.

    Example:
        >>> import knockgrid as kg
        >>> [one.name for one in kg.nulls()][:3]
        ['subject | ulp', 'subject | direction', 'attention | ulp']

    - `ulp`: every entry of the same activation moved by one unit in the last place; for attention
      rows that of the attention's output at the query, over the same window;
    - `direction`: the same patch in a random direction, as far as its own source moves it;
    - `same answer`: the subject exchanged for one with the same answer, from the mapping
      `partners` (`knockgrid.prompts.same_answer` finds one); attention rows see that run's keys and
      values.

    A treatment that edits neither an activation nor attention, or is a control itself, is an
    `InputError`.

    Limits: only `ulp` should be nothing at all; what the other two move is what a treatment must
    exceed.
    """
    return [one for row in _treatments(treatments) for one in _nulls_of(row, partners)]


def _treatments(given: Sequence[Intervention] | None) -> list[Intervention]:
    rows = information_flow() if given is None else list(given)
    for row in rows:
        if not isinstance(row, Intervention):
            raise InputError(
                f"{row!r} is not an intervention; give rows such as information_flow()"
            )
        if row.role != "treatment":
            raise InputError(
                f"{row.name!r} is a {row.role} of {row.of!r}; give the treatments alone, such as "
                "information_flow()"
            )
    return rows


def _control(
    role: str, row: Intervention, what: str, said: str, made: Any = None, **changes: Any
) -> Any:
    """What a row becomes (by default itself, changed) as a control of it."""
    name, label = f"{row.name} | {what}", f"{row.label} | {said}"
    return replace(made or row, name=name, label=label, role=role, of=row.name, **changes)


def _contrasts_of(row: Intervention) -> Iterable[Intervention]:
    if isinstance(row, Knockout) and (row.dest, row.src) == ("last", "subject"):
        others = {**ELSEWHERE, "last": "last token"}
        return [_control("contrast", row, at, said, src=at) for at, said in others.items()]
    if isinstance(row, EdgePatch) and row.src == "subject":
        return _corrupted(row, "src")
    if isinstance(row, Patch) and row.pos == "subject":
        return _corrupted(row, "pos")
    if isinstance(row, Patch) and row.pos == "last":
        return _corrupted(row, None) if isinstance(row.source, CorruptedRun) else []
    raise InputError(
        f"contrasts of {row.name!r} are not defined; give patches at 'subject' or 'last', or "
        "knockouts and edge patches from 'subject'"
    )


def _corrupted(row: Patch | EdgePatch, place: str | None) -> Iterable[Intervention]:
    """The row with its corruption, and the place it is named by, at other tokens."""
    for at, said in ELSEWHERE.items():
        if isinstance(row.source, CorruptedRun) and isinstance(row.source.by, Noise):
            source: Source = replace(row.source, by=replace(row.source.by, pos=at))
        elif row.source.from_run:
            continue
        else:
            source = row.source
        moved = {} if place is None else {place: at}
        yield _control("contrast", row, at, said, source=source, **moved)


def _nulls_of(row: Intervention, partners: Mapping[str, Prompt] | None) -> Iterable[Intervention]:
    yield _control("null", row, "ulp", "±1 ulp", rounded(row))
    if isinstance(row, Patch):
        source = random_direction(row.source)
        yield _control("null", row, "direction", "random direction", source=source)
    if partners is not None:
        source, made = donor(partners), row
        if isinstance(row, Knockout):
            made = edge_patch(row.dest, row.src, source, row.window, row.heads)
        yield _control("null", row, "same answer", "same answer", made, source=source)


def rounded(row: Intervention) -> Patch:
    """The ±1-ulp edit at the site of an intervention, over the same layers.

    Attention has no activation at the knocked-out edge; what it moves is `attn_out` at the queries.
    Of a joint it is made at the site of one part.
    """
    row = next((part for part in row.parts if not part.has_own_layers), row.parts[0])
    if isinstance(row, Patch):
        return replace(row, source=ulp(), alpha=1.0)
    if row.edges is None and not row.sites:
        raise InputError(f"{row!r} edits neither an activation nor attention")
    act_name, pos = row.sites[0] if row.edges is None else ("attn_out", row.edges[0])
    return patch(act_name, pos, ulp(), row.window, name=row.name, label=row.label)
