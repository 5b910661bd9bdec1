"""What a cell on attention cuts, against what the model's queries can see."""

from collections.abc import Sequence

import torch

from knockgrid.edits.edges import Knockout
from knockgrid.edits.intervention import Cell, Intervention
from knockgrid.errors import InputError
from knockgrid.passes.answer_positions import positions_in
from knockgrid.passes.edit import Edit, cut_edges
from knockgrid.passes.run import Run


def unseen_edge(run: Run, cell: Cell, n_layers: int) -> str | None:
    """Why a cell on attention cannot mean anything: no layer of its set can see the edge."""
    for edits in cell.samples[:1]:
        refuse_blind(run, cell.intervention, edits)
    for part in cell.intervention.parts:
        layers = part.layers_at(cell.layer, n_layers)
        if part.edges is not None and (reason := _unseen(run, part, layers)):
            return reason
    return None


def _unseen(run: Run, part: Intervention, layers: Sequence[int]) -> str | None:
    dest, src = part.edges or ("", "")
    query, key = (torch.tensor(positions_in(run, at), dtype=torch.long) for at in (dest, src))
    rule = part.pairs if isinstance(part, Knockout) else None
    there = {at: run.visible[at] for at in layers if at in run.visible}
    parts = {id(sees): sees[:, key][query] for sees in there.values()}  # most layers share one
    seen = {at: parts[id(sees)] for at, sees in there.items()}
    what = f"no layer of {','.join(map(str, layers))}"
    if not any(bool(sees.any()) for sees in seen.values()):
        return f"{what} has attention scores" if not seen else f"{what} lets {dest!r} see {src!r}"
    cut = {at: s if rule is None else s & rule.cut(query, key, run, at) for at, s in seen.items()}
    if any(bool(some.any()) for some in cut.values()):
        return None
    label = "" if rule is None else rule.label
    return f"{what} lets {dest!r} see a key of {src!r} that is {label!r}"


def refuse_blind(run: Run, one: Intervention, edits: Sequence[Edit]) -> None:
    """Refuse a cell that would leave a query nothing to attend to: a softmax over nothing."""
    blocked: dict[int, list[Edit]] = {}
    for edit in edits:
        if edit.act_name == "attn_scores" and edit.heads != () and edit.layer in run.visible:
            blocked.setdefault(edit.layer, []).append(edit)
    done = set[object]()
    for layer, some in blocked.items():
        sees = run.visible[layer]
        # most layers see the same and lose the same
        same = (id(sees), *((e.pos, e.src_pos, e.heads, id(e.pairs)) for e in some))
        for edit in some if same not in done else ():
            cut = torch.zeros_like(sees)
            for each in some:
                if edit.heads is None or each.heads is None or {*edit.heads} & {*each.heads}:
                    query, key = map(torch.from_numpy, cut_edges(each))
                    cut[query, key] = True
            blind = (sees.any(1) & ~(sees & ~cut).any(1)).nonzero()
            if len(blind):
                raise InputError(
                    f"intervention {one.name!r} would leave position {int(blind[0])} of prompt "
                    f"{run.prompt.id!r} nothing to attend to; leave at least one token, such as "
                    "the position itself, out of src"
                )
        done.add(same)
