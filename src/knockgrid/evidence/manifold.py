"""off_manifold: is an edited state still one that the model could have had?"""

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.display.progress import bar
from knockgrid.edits.intervention import Cell, Intervention, listed
from knockgrid.engine.bind import Bound
from knockgrid.engine.executors.reference import forward
from knockgrid.engine.measure import label
from knockgrid.engine.memory import Memory
from knockgrid.engine.preflight import choose
from knockgrid.engine.setup import with_statistics
from knockgrid.errors import InputError, check_counts, unknown
from knockgrid.evidence.checked import about, bound_batches, checked
from knockgrid.evidence.natural import (
    DISTANCES,
    FLOOR,
    Compared,
    Natural,
    Place,
    natural_states,
    states_at,
)
from knockgrid.host.bridge import has_hook, hook_name, load, n_layers
from knockgrid.passes.answer_positions import positions_in
from knockgrid.passes.prepared import Prepared, prepare
from knockgrid.passes.run import Run, keep_measured
from knockgrid.prompts.prompt import Prompt
from knockgrid.sources.source import normal
from knockgrid.table.left_out import warn_left_out
from knockgrid.table.table import build

STATISTICS = {
    "norm_ratio": "norm / mean natural norm",
    "nn_percentile": "nearest-neighbour percentile",
    "attn_entropy": "attention entropy after the edit (nats)",
    "attn_entropy_clean": "attention entropy, clean (nats)",
    "sink_mass": "attention to the first token after the edit",
    "sink_mass_clean": "attention to the first token, clean",
}

Row = dict[str, Any]
Rows = dict[int, Tensor]
"""By layer, entropy (nats) and weight on the first token of an attention row, means over heads."""


def off_manifold(
    model: str | Path | TransformerBridge,
    prompts: Sequence[Prompt] | Prompt,
    interventions: Sequence[Intervention] | Intervention,
    *,
    layers: str | int | Sequence[int] = "all",
    n_prompts: int = 16,
    reference: Sequence[Prompt] | None = None,
    distance: str = "standardised",
    prepend_bos: bool | None = None,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """How natural the state is that each edit leaves behind, and what the last token then sees.

    Example:
        >>> import knockgrid as kg
        >>> prompts = kg.facts("country_capital_city")[:5]
        >>> rows = [kg.patch("resid_post", "last", kg.zero(), name="zero")]
        >>> few = {"layers": [12], "n_prompts": 1, "progress": False}
        >>> table = kg.evidence.off_manifold("demo", prompts, rows, **few)
        >>> table[["norm_ratio", "nn_percentile"]].values.tolist()
        [[0.0, 100.0]]

    A sample of `n_prompts`, keyed by `seed` and the prompts' ids, is edited, one pass per cell. One
    row per prompt of it, intervention and layer.

    The *edited state* of a patch is its activation at the edited positions right after the edit, at
    the highest layer of the cell's set; of a knockout or an edge patch it is `resid_post` at the
    query there, which the edit changes. *Natural states* are those of clean runs of all `prompts`,
    or of `reference`, at the same activation, layer and position name, tokens pooled; the prompt
    itself and the one that a source took its values from (a swap partner, a donor) are left out.

    - `norm_ratio`: mean norm of the edited tokens over that of the natural states.
    - `nn_percentile`: the share, in percent, of natural states whose nearest neighbour in another
      prompt is nearer than the edited state's nearest natural state (half of those equally far),
      averaged over tokens. About 50 on average for a natural state; 100 is farther out than any.
      The distance `"standardised"` divides each dimension by its standard deviation over the
      natural states, or by a tenth of the median one where that is larger, as a few massive
      dimensions make up most of a plain `"euclidean"` one.
    - `attn_entropy` (nats) and `sink_mass`: of the last prompt token's attention row, entropy and
      weight on the first token, means over heads and over the layers above the set; for knockouts
      and edge patches over the set and the layers above it. `..._clean`: of the same layers.
    - `n_natural`: how many natural states there were.

    A number that a place does not have is NaN, and `status` says why: natural states of fewer than
    3 other prompts, a state that is not finite, no layer above, a bridge without attention pattern.

    Raises:
        InputError: bad input, or a kind of edit that cannot be made on this model.

    Source: the question of Grant et al. 2025, arXiv 2511.04638; the percentile is ours.
    Limit: near natural states is not on their manifold: with few prompts in many dimensions every
    state is far from every other, and prompts of one template lie close together: compare with the
    clean states (a patch with `alpha=0`), or widen `reference`. In the middle of a wide cloud, 0 or
    the mean may have a low percentile: read `norm_ratio` beside it.
    """
    if distance not in DISTANCES:
        raise unknown("distance", distance, DISTANCES)
    check_counts(n_prompts=n_prompts)
    model, rows = load(model), listed(interventions)
    ready, settings = checked(model, prompts, rows, layers, prepend_bos, seed=seed)
    bos = settings.prepend_bos
    natural = ready if reference is None else prepare(model, reference, bos, 1)
    settings = with_statistics(model, ready, settings)
    picked = _sample(ready, n_prompts, seed)
    _, receipt = choose(model, picked, settings, "reference", Memory())
    places = {_place_of(model, one, layer) for one, layer in settings.cells}
    states = natural_states(model, natural, places, distance)
    found: dict[int, Row] = {}
    dropped: dict[str, dict[str, str]] = {}
    total = len(picked) * len(settings.cells)
    with bar(total, " cells", "off_manifold", progress) as done:
        for bound in bound_batches(model, picked, settings, dropped):
            for cell, row in _rows(model, bound, states):
                named = label(cell, bound.clean[cell.prompt], 0, "")
                found[cell.index] = {**named, "token": None, "token_text": None, **row}
                done.update()
    if not found:
        reason = next(iter(next(iter(dropped.values())).values()))
        raise InputError(f"no prompt of the sample has a cell: {reason}")
    metadata = {
        **about(model, settings),
        "statistics": STATISTICS,
        "distance": distance,
        "floor": FLOOR,
        "interventions": [one.describe() for one in rows],
        "sigma": dict(settings.sigma),
        "sample": [one.prompt.id for one in picked],
        "n_reference": len(natural),
        "receipt": receipt,
        "dropped": dropped,
    }
    return warn_left_out(build([found[i] for i in sorted(found)], metadata))


def _sample(ready: Sequence[Prepared], n: int, seed: int) -> list[Prepared]:
    """At most n prompts, in their order; which ones depends on the seed and each prompt's id."""
    drawn = sorted(ready, key=lambda one: float(normal((1,), (seed, one.prompt.id, "sample"))[0]))
    kept = {one.prompt.id for one in drawn[:n]}
    return [one for one in ready if one.prompt.id in kept]


def _place_of(model: TransformerBridge, one: Intervention, layer: int | None) -> Place:
    """Where the edited state of a cell is: at the highest layer of its set."""
    if len(one.parts) > 1:
        raise InputError(f"{one.name!r} edits several places; look at its parts one by one")
    top = max(one.layers_at(layer, n_layers(model)))
    if one.edges is not None:
        return Place("resid_post", top, one.edges[0])
    act_name, at = one.sites[0]
    return Place(act_name, top, at, one.heads)


def _rows(
    model: TransformerBridge, bound: Bound, states: dict[Place, Natural]
) -> Iterator[tuple[Cell, Row]]:
    """What there is to say of every cell of a batch."""
    clean = [_look(model, run)[1] for run in bound.clean]
    for cell in bound.cells:
        run, place = bound.clean[cell.prompt], _place_of(model, cell.intervention, cell.layer)
        state, after = _look(model, run, cell, place)
        assert state is not None
        # the state of a swap partner would be natural at distance 0, so that one is left out too
        source = bound.sources.get((cell.prompt, cell.intervention.name, 0))
        own = {run.prompt.text, *([] if source is None else [source.prompt.text])}
        near = states[place].compare(state, *own)
        why, near = (near, Compared()) if isinstance(near, str) else (None, near)
        seen, blind = _attention(model, cell, clean[cell.prompt], after)
        status = "; ".join(reason for reason in (why, blind) if reason) or "ok"
        yield cell, {**near._asdict(), **seen, "status": status}
    for cell, reason in bound.skipped:
        nothing = dict.fromkeys(STATISTICS, math.nan)
        yield cell, {**nothing, "n_natural": 0, "status": f"NA: {reason}"}


def _look(
    model: TransformerBridge, run: Run, cell: Cell | None = None, place: Place | None = None
) -> tuple[Tensor | None, Rows]:
    """The state at a place and the last token's attention, in one pass with a cell's edits."""
    rows, kept = Rows(), list[Tensor]()
    # the logits are not looked at: one position is enough for the unembedding
    hooks: list[tuple[str, Any]] = [("unembed.hook_in", keep_measured(slice(-1, None)))]
    for layer in range(n_layers(model)):
        if has_hook(model, "pattern", layer):
            noted = partial(note, rows, run.n_prompt - 1, layer)
            hooks.append((hook_name(model, "pattern", layer), noted))
    if place is not None:
        pos = positions_in(run, place.at)

        def keep(activation: Tensor, hook: Any) -> None:
            kept.append(states_at(activation[0], pos, place.heads))

        hooks.append((hook_name(model, place.act_name, place.layer), keep))
    edits, n_rows = (cell.samples[0], cell.n_rows) if cell is not None else ((), 1)
    forward(model, run, edits, n_rows, watch=hooks)
    return (kept[0] if kept else None), rows


def note(rows: Rows, query: int, layer: int, pattern: Any, hook: Any) -> None:
    """Keep entropy and sink of the first batch row; other kinds of attention hand out less."""
    if isinstance(pattern, Tensor) and pattern.ndim == 4:
        weight = pattern[0, :, query].detach().float()
        entropy = torch.special.entr(weight).sum(-1).mean()
        rows[layer] = torch.stack([entropy, weight[:, 0].mean()]).cpu().double()


def _attention(
    model: TransformerBridge, cell: Cell, clean: Rows, after: Rows
) -> tuple[Row, str | None]:
    """What the last token attends to, and why that cannot be said."""
    above = range(max(cell.layers) + 1, n_layers(model))
    layers = [*(cell.layers if cell.intervention.edges is not None else ()), *above]
    seen: Row = {}
    for name, rows in (("", after), ("_clean", clean)):
        found = [rows[layer] for layer in layers if layer in rows]
        mean = torch.stack(found).mean(0).tolist() if found else [math.nan] * 2
        seen[f"attn_entropy{name}"], seen[f"sink_mass{name}"] = mean
    if not layers:
        return seen, f"no attention above layer {max(cell.layers)}"
    if any(layer in after for layer in layers):
        return seen, None
    has = any(has_hook(model, "pattern", layer) for layer in layers)
    what = "the bridge gives no attention pattern" if has else "no attention in these layers"
    return seen, what
