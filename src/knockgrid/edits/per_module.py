"""per_module: patch the output of every module of a block in turn."""

from collections.abc import Sequence
from dataclasses import replace

from transformer_lens.model_bridge import TransformerBridge

from knockgrid.edits.patch import Patch, patch
from knockgrid.host.bridge import load
from knockgrid.host.modules import module_acts
from knockgrid.prompts.positions import At
from knockgrid.sources.source import Source


def per_module(
    model: str | TransformerBridge,
    at: At = "all",
    source: Source | None = None,
    modules: Sequence[str] | None = None,
) -> list[Patch]:
    """Patch the output of each module in turn: the columns of a layer × module grid.

    Example:
        >>> import knockgrid as kg
        >>> [one.module for one in kg.per_module("demo", "last")][:4]
        ['attn. q', 'attn. k', 'attn. v', 'attn. o']

    Modules are `attn. q`, `attn. k`, `attn. v`, `attn. o`, `mlp. up`, `mlp. down`, `mlp. gate`,
    as far as the architecture has them; joint projections are split, experts are summed in
    `mlp. down`. q, k and v are taken before the rotary embedding, up and gate before the
    nonlinearity. `source` is what is put there, by default the corrupted run; `zero()` and `mean()`
    ablate. The table's column `module` tells the cells apart.

    Raises:
        InputError: a module that the model lacks, with those it has.
    """
    acts = module_acts(load(model), None if modules is None else list(modules))
    return [
        replace(patch(act_name, at, source, name=f"{label}@{at}", label=label), module=label)
        for label, act_name in acts.items()
    ]
