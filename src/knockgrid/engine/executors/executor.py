"""Executor: carries out cells. Every executor gives the same numbers as the reference executor."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.edits.intervention import Cell
from knockgrid.host.bridge import hook_name
from knockgrid.passes.edit import Apply, Edit, Placed, compile_edits
from knockgrid.passes.run import Hooks, Run, as_hook, input_device, noise_hooks


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one sample of one cell did.

    `logits` and `null` are `[token, d_vocab]`; `null` is the same pass without an edit: divergences
    are taken against it, so that a no-op is 0 in every dtype. `generated` holds what the intervened
    model wrote itself, where it did.
    """

    cell: Cell
    sample: int
    logits: Tensor
    null: Tensor
    generated: tuple[int, ...] = ()
    clean_generated: tuple[int, ...] | None = None
    """What the unedited row wrote in a sampled run."""


@runtime_checkable
class Executor(Protocol):
    """Anything that turns cells into outcomes, in any order."""

    @property
    def name(self) -> str:
        """The name in receipts and manifests."""
        ...

    @property
    def needs_kv(self) -> bool:
        """Whether runs must hold keys and values."""
        ...

    def __call__(
        self, model: TransformerBridge, runs: Sequence[Run], cells: Sequence[Cell]
    ) -> Iterator[Outcome]:
        """Carry out all samples of all cells."""
        ...


@dataclass(frozen=True, eq=False)
class Item:
    """One sample of one cell: the unit that executors schedule."""

    cell: Cell
    sample: int
    run: int
    edits: tuple[Edit, ...]

    @property
    def start(self) -> int:
        """The first position that the pass must contain."""
        return min(pos for edit in self.edits for pos in edit.anchors)

    def lifted(self, start: int) -> bool:
        """Whether a pass from `start` on leaves out positions that this item edits."""
        edit = self.edits[0] if self.edits else None
        return edit is not None and edit.prefix is not None and start > edit.pos[0]


def items(cells: Sequence[Cell]) -> list[Item]:
    """All samples of all cells."""
    return [
        Item(cell, sample, cell.runs[sample], edits)
        for cell in cells
        for sample, edits in enumerate(cell.samples)
    ]


def edits_by_hook(model: TransformerBridge, placed: Sequence[Placed]) -> Mapping[str, Apply]:
    """Edits compiled per hook point."""
    names: dict[tuple[str, int], str] = {}
    groups: dict[str, list[Placed]] = {}
    middle: dict[int, list[Placed]] = {}
    for one in placed:
        site = (one.edit.act_name, one.edit.layer)
        if one.edit.act_name == "resid_mid":
            middle.setdefault(one.edit.layer, []).append(one)
            continue
        if site not in names:
            names[site] = hook_name(model, *site)
        groups.setdefault(names[site], []).append(one)
    device = input_device(model)
    compiled = {name: compile_edits(group, device) for name, group in groups.items()}
    for layer, group in middle.items():
        stream = MidStream(compile_edits(group, device))
        for act_name, apply in (("resid_pre", stream.enter), ("attn_out", stream.leave)):
            name = hook_name(model, act_name, layer)
            first = compiled.get(name)
            compiled[name] = apply if first is None else partial(_both, first, apply)
    return compiled


def _both(first: Apply, then: Apply, activation: Tensor) -> Tensor:
    return then(first(activation))


def edit_hooks(model: TransformerBridge, noise: Tensor | None, placed: Sequence[Placed]) -> Hooks:
    """The hooks that add the noise of a run, and make the edits placed in its rows."""
    hooks = [*noise_hooks(model, noise), *edits_by_hook(model, placed).items()]
    return [(name, as_hook(apply)) for name, apply in hooks]


class MidStream:
    """Edits of the residual stream between attention and MLP.

    TransformerLens's hook there is the MLP's input, which the stream itself passes by. So what an
    edit changes is added to what attention adds to the stream; then the MLP reads it too.
    """

    def __init__(self, apply: Apply) -> None:
        self.apply, self.resid = apply, torch.empty(0)

    def enter(self, resid: Tensor) -> Tensor:
        """Remember what enters the block, edits included."""
        self.resid = resid
        return resid

    def leave(self, attn_out: Tensor) -> Tensor:
        """What attention must add for the sum to be the edited one; nothing more elsewhere."""
        mid = self.resid + attn_out
        return attn_out + (self.apply(mid) - mid)
