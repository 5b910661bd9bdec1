"""per_position: one patch, position by position."""

from collections.abc import Sequence
from dataclasses import replace

from knockgrid.edits.patch import Patch
from knockgrid.errors import InputError
from knockgrid.prompts.positions import Position


def per_position(intervention: Patch, positions: int | Sequence[Position]) -> list[Patch]:
    """The same patch at each position in turn: the columns of a layer × position grid.

    Example:
        >>> import knockgrid as kg
        >>> one = kg.patch("resid_post", "last")
        >>> [each.position for each in kg.per_position(one, ["subject_last", "last"])]
        ['subject_last', 'last']

    `positions` are position names, indices, or a number of tokens (0 to n - 1). Besides the names
    of `token_positions` there are those of the answer (Orgad et al., arXiv 2410.02707): `last_q`,
    `first_answer`, `second_answer`, `exact_answer_before_first`, `exact_answer_first`,
    `exact_answer_last`, `exact_answer_after_last`, and `"-1"`, `"-2"`, ... from the end of prompt
    and output; they need `n_tokens` > 1. A prompt that lacks a position has NA there. Each cell is
    measured at one token, the one right after its position (token 0 for the prompt), since an edit
    cannot reach earlier ones. The table's column `position` tells the cells apart.

    Raises:
        InputError: no positions, one given twice, or not a patch.
    """
    if not isinstance(intervention, Patch):
        raise InputError(f"{intervention!r} is not a patch; per_position() moves a patch()")
    chosen = list(range(positions)) if isinstance(positions, int) else list(positions)
    negative = [at for at in chosen if isinstance(at, int) and at < 0]
    if negative:
        raise InputError(
            f"position {negative[0]} counts from the end, of the prompt or of its answer? Write "
            f"'last' or an index from 0 for the prompt, the text '{negative[0]}' for the output"
        )
    named = list(map(str, chosen))
    if not chosen or len(set(named)) < len(named):
        raise InputError(f"positions are {positions!r}; give names or indices, each once")
    return [
        replace(
            intervention,
            pos=at,
            position=name,
            name=f"{intervention.act_name}@{name}",
            label=name,
        )
        for at, name in zip(chosen, named, strict=True)
    ]
