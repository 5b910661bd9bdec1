"""contrasts: the same interventions at other tokens, which answer "more than what?"."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from knockgrid.edits.edge_patch import EdgePatch
from knockgrid.edits.information_flow import information_flow
from knockgrid.edits.intervention import Intervention
from knockgrid.edits.knockout import Knockout
from knockgrid.edits.patch import Patch
from knockgrid.errors import InputError
from knockgrid.prompts.positions import At
from knockgrid.sources.corrupted_run import CorruptedRun
from knockgrid.sources.noise import Noise
from knockgrid.sources.source import Source

ELSEWHERE = {"random": "random tokens", "rest": "relation tokens", "bos": "BOS"}


def contrasts(treatments: Sequence[Intervention] | None = None) -> list[Intervention]:
    """The contrasts of some treatments: the same intervention at tokens other than the subject's.

    Example:
        >>> import knockgrid as kg
        >>> [one.name for one in kg.contrasts()][:3]
        ['subject | random', 'subject | rest', 'subject | bos']
        >>> one = kg.contrasts()[0]
        >>> one.role, one.of, one.label, one.source.label
        ('contrast', 'subject', 'Subj. | random tokens', "corrupted_run(noise(3.0, pos='random'))")

    `treatments` are rows at the subject, from the subject, or at the last token, by default
    `information_flow()`; sweep them together with their contrasts. Each contrast keeps everything
    of its treatment (site, window, noise level, heads) but the tokens:

    - a patch at the subject: the same patch at as many `random` tokens, at the `rest` (the
      relation's tokens) and at `bos`, from a run that is corrupted at those very tokens instead;
    - attention from the subject to the last token: attention from those tokens, and from the last
      token to itself. `rest` is all that is neither subject nor BOS nor the last token, so that BOS
      and the last token stay attendable: the non-subject row of Geva et al. 2023;
    - a patch at the last token: the same patch from a run that is corrupted at those tokens.

    A contrast corrupts other tokens as much as the subject, each of them with the same noise; the
    relation's tokens may be more than the subject's, `random` ones are as many. BOS is a sink,
    which every later token leans on: it can beat the subject. Where a prompt lacks a place (BOS is
    not prepended, no token is left), it is dropped from that row, and counted.

    Source: the controls of Geva et al. 2023 (arXiv 2304.14767), which block attention
    from non-subject positions and from the last one.

    Limits: a swap or a donor has no counterpart at other tokens, so that of a swapped patch there
    is no contrast; edges of a swap are none either, knockouts are.

    Raises:
        InputError: a treatment at another place, or one that is a contrast itself.
    """
    rows = information_flow() if treatments is None else list(treatments)
    return [one for row in rows for one in _contrasts_of(row)]


def _contrasts_of(row: Intervention) -> Iterable[Intervention]:
    check_treatment(row)
    if isinstance(row, Knockout):
        if (row.dest, row.src) != ("last", "subject"):
            raise _no_contrast(row)
        others = {**ELSEWHERE, "last": "last token"}
        return [_as_contrast(row, at, said, {"src": at}) for at, said in others.items()]
    if isinstance(row, EdgePatch) and row.src == "subject":
        return _corrupted(row, "src")
    if isinstance(row, Patch) and row.pos == "subject":
        return _corrupted(row, "pos")
    if isinstance(row, Patch) and row.pos == "last":
        return _corrupted(row, None) if isinstance(row.source, CorruptedRun) else []
    raise _no_contrast(row)


def _corrupted(row: Patch | EdgePatch, place: str | None) -> list[Intervention]:
    """The row with its corruption, and the place it is named by, at other tokens."""
    made = []
    for at, said in ELSEWHERE.items():
        source = _elsewhere(row.source, at)
        changes = {"source": source} if place is None else {"source": source, place: at}
        if source is not None:
            made.append(_as_contrast(row, at, said, changes))
    return made


def _elsewhere(source: Source, at: At) -> Source | None:
    """The source of a contrast; None where there is no such thing."""
    if isinstance(source, CorruptedRun) and isinstance(source.by, Noise):
        return replace(source, by=replace(source.by, pos=at))
    return None if source.from_run else source


def _as_contrast(row: Any, at: str, said: str, changes: dict[str, Any]) -> Any:
    name, label = f"{row.name} | {at}", f"{row.label} | {said}"
    return replace(row, name=name, label=label, role="contrast", of=row.name, **changes)


def check_treatment(row: Intervention) -> None:
    """Refuse what is no treatment.

    Raises:
        InputError: not an intervention, or one that is a null or a contrast itself.
    """
    if not isinstance(row, Intervention):
        raise InputError(f"{row!r} is not an intervention; give rows such as information_flow()")
    if row.role != "treatment":
        raise InputError(
            f"{row.name!r} is a {row.role} of {row.of!r}; give the treatments alone, such as "
            "information_flow()"
        )


def _no_contrast(row: Intervention) -> InputError:
    return InputError(
        f"contrasts of {row.name!r} are not defined; give patches at 'subject' or 'last', or "
        "knockouts and edge patches from 'subject'"
    )
