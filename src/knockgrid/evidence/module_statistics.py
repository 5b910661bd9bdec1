"""module_statistics: what can be said of a module without patching it, on a sweep's axes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.edits.families import per_module
from knockgrid.edits.patch import Patch
from knockgrid.engine.bind import Bound
from knockgrid.engine.settings import Settings
from knockgrid.engine.setup import versions, with_statistics
from knockgrid.errors import InputError, unknown
from knockgrid.evidence.checked import about, bound_batches, checked, exact
from knockgrid.host.bridge import describe, hook_name, load, n_layers
from knockgrid.passes.answer_positions import positions_in
from knockgrid.passes.edit import Edit, formula, taken
from knockgrid.passes.prepared import token_texts
from knockgrid.passes.run import Hooks, Run, Site, keep_measured, run_hooked
from knockgrid.prompts.positions import At
from knockgrid.prompts.prompt import Prompt
from knockgrid.sources.constants import zero
from knockgrid.sources.source import Source
from knockgrid.table.left_out import warn_left_out
from knockgrid.table.table import build

STATISTICS = {
    "act_norm": "mean over tokens of the L2 norm of the output (activation units)",
    "act_shift": "‖source - clean‖ / ‖clean‖ of the output over the tokens (fraction)",
    "grad_norm": "L2 norm over the tokens of d log p(clean argmax) / d output (nats per unit)",
    "attribution": "first-order change of log p(clean argmax), (source - clean)·gradient (nats)",
    "attribution_size": "absolute value of the attribution (nats)",
    "weight_norm": "Frobenius norm of the weight matrix (weight units)",
    "weight_change": "‖W_b - W_a‖_F / ‖W_a‖_F against the second checkpoint (fraction)",
}
ALL = tuple(STATISTICS)
FROM_SOURCE = {"act_shift", "attribution", "attribution_size"}
FROM_GRADIENT = {"grad_norm", "attribution", "attribution_size"}
FROM_WEIGHTS = {"weight_norm", "weight_change"}
# The part of a block that holds the matrix. The bridge has split joint projections there.
PARTS = {
    "attn. q": "attn.q",
    "attn. k": "attn.k",
    "attn. v": "attn.v",
    "attn. o": "attn.o",
    "mlp. up": "mlp.in",
    "mlp. down": "mlp.out",
    "mlp. gate": "mlp.gate",
}
NO_MATRIX = "no weight_norm: this module has no single weight matrix"

Row = dict[str, object]
Weights = Mapping[tuple[str, int], Mapping[str, float]]


@torch.inference_mode(False)  # tensors made in that mode can take part in no gradient
def module_statistics(
    model: str | Path | TransformerBridge,
    prompts: Sequence[Prompt] | Prompt,
    *,
    layers: str | int | Sequence[int] = "all",
    modules: str | Sequence[str] | None = None,
    pos: At = "all",
    source: Source | None = None,
    statistics: str | Sequence[str] = ALL,
    compare_to: str | Path | TransformerBridge | None = None,
    prepend_bos: bool | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Norms, shifts, gradients and attributions of every module, on the axes of a module sweep.

    Example:
        >>> import knockgrid as kg
        >>> prompt = kg.Prompt("The capital of Italy is", spans={"subject": "Italy"})
        >>> table = kg.evidence.module_statistics("demo", prompt, layers=[0, 29], pos="last")
        >>> kg.grid(table, "act_norm", rows="layer", columns="module").shape
        (2, 7)
        >>> bool((table.attribution_size == table.attribution.abs()).all())
        True

    One row per prompt, module and layer, and one column per statistic that is asked for. Tokens are
    those of `pos`, the output of a module is what `per_module` patches, heads flattened:

    - `act_norm`: mean over the tokens of the output's L2 norm in the clean run (activation units);
    - `act_shift`: ‖source - clean‖ / ‖clean‖ over the tokens (fraction);
    - `grad_norm`: L2 norm over the tokens of the gradient, with respect to the output, of the
      log-probability of the clean argmax after the prompt (nats per activation unit);
    - `attribution`: (source - clean)·gradient summed over the tokens, the first-order estimate of
      what patching does to that log-probability (nats); `attribution_size` is its absolute value;
    - `weight_norm`: the Frobenius norm of the module's matrix (weight units), and with a second
      checkpoint in `compare_to` `weight_change`: ‖W_b - W_a‖_F / ‖W_a‖_F (fraction). Both leave out
      biases and the norm that some blocks put behind `attn. o`, `mlp. down`.

    `source` is what a patch would put there, by default the corrupted run, with `sweep`'s first
    draw of that `seed`. Joint projections are split. The `mlp. down` of a mixture of experts has no
    single matrix: its weight statistics are NaN, with the reason in `status`.

    Raises:
        InputError: an unknown module or statistic, a second checkpoint that differs in
            architecture, a place that a prompt lacks, or a module that no gradient reaches.

    Source: Nanda 2023, "Attribution patching: activation patching at industrial scale"; Kramár et
    al. 2024 (arXiv 2403.00745), which names where it fails.

    Limit: an attribution is exact for small changes only. It fails where attention or a
    nonlinearity saturates, for `attn. q` and `attn. k` above all; `rank_agreement` says how far it
    may be trusted on a given model.
    """
    model = load(model)
    other = None if compare_to is None else load(compare_to)
    wanted = _wanted(statistics, other is not None)
    source = source if FROM_SOURCE & set(wanted) else zero()  # zero() needs no run of its own
    rows = per_module(model, pos, source, [modules] if isinstance(modules, str) else modules)
    ready, settings = checked(model, prompts, rows, layers, prepend_bos, seed=seed)
    settings = with_statistics(model, ready, settings)
    if other is not None:
        _check_comparable(model, other)
    places = [(str(row.module), layer) for row in rows for layer in settings.layers]
    weights = _weights(model, other, places if FROM_WEIGHTS & set(wanted) else ())
    sites = [(row.act_name, layer) for row in rows for layer in settings.layers]
    found: list[Row] = []
    dropped: dict[str, dict[str, str]] = {}
    for bound in bound_batches(model, ready, settings, dropped):
        grads = gradients(model, bound.clean, sites) if FROM_GRADIENT & set(wanted) else {}
        found += _rows(model, bound, settings, grads, weights, wanted)
    order = {str(one.prompt.id): i for i, one in enumerate(ready)}
    found.sort(key=lambda row: order[str(row["prompt"])])  # a stable sort
    metadata = {
        **about(model, settings),
        "statistics": {name: STATISTICS[name] for name in wanted},
        "source": rows[0].source.label if FROM_SOURCE & set(wanted) else None,
        "pos": pos if isinstance(pos, str | int) else list(pos),
        "module_order": [row.module for row in rows],
        "compare_to": None if other is None else describe(other),
        "versions": versions(),
        "dropped": dropped,
    }
    return warn_left_out(build(found, metadata))


def _wanted(statistics: str | Sequence[str], compared: bool) -> list[str]:
    """The statistics asked for, in the order of `STATISTICS`; a change needs two checkpoints."""
    given = [statistics] if isinstance(statistics, str) else list(statistics)
    for name in set(given) - set(STATISTICS):
        raise unknown("statistic", name, STATISTICS)
    if tuple(given) == ALL and not compared:
        given.remove("weight_change")
    if not given:
        raise InputError("no statistics given; name at least one, such as 'act_norm'")
    if "weight_change" in given and not compared:
        raise InputError("'weight_change' needs a second checkpoint; give compare_to=, or omit it")
    return [name for name in STATISTICS if name in given]


def gradients(
    model: TransformerBridge, runs: Sequence[Run], sites: Sequence[Site]
) -> Mapping[Site, Tensor]:
    """By site, d log p(clean argmax after the prompt) / d activation, `[batch, pos, ...]`, in nats.

    The runs are equally long and hold prompts only. Derivatives are taken of activations, never of
    parameters: the model's own `requires_grad` is neither asked nor changed.
    """
    kept: dict[Site, Tensor] = {}
    hooks: Hooks = [(hook_name(model, "embed"), _rooted)]
    for site in sites:

        def keep(activation: Tensor, hook: Any, site: Site = site) -> Tensor:
            # The copy is what a patch would replace: only what is computed from it counts, and
            # later in-place arithmetic of the model does not reach what is kept here.
            kept[site] = activation.clone()
            return kept[site].clone()

        hooks.append((hook_name(model, *site), keep))
    hooks.append(("unembed.hook_in", keep_measured(slice(-1, None))))
    chosen = torch.stack([run.logits[0].argmax() for run in runs])
    with torch.enable_grad():
        logits = run_hooked(model, torch.stack([run.ids for run in runs]), hooks)[:, -1]
        logp = logits.to("cpu", torch.float64).log_softmax(-1)
        total = logp[torch.arange(len(runs)), chosen.cpu()].sum()  # rows are apart
        reached = [site for site in sites if site in kept and kept[site].requires_grad]
        acts = [kept[site] for site in reached] if total.requires_grad else []
        found = torch.autograd.grad(total, acts, allow_unused=True) if acts else ()
    grads = {site: g for site, g in zip(reached, found, strict=False) if g is not None}
    for act_name, layer in sites:
        if (act_name, layer) not in grads:
            raise InputError(
                f"no gradient reaches {act_name!r} at layer {layer} of {model.cfg.architecture}; "
                "leave that module out with modules=, or ask for statistics without gradients"
            )
    return grads


def _rooted(activation: Tensor, hook: Any) -> Tensor:
    """The embeddings as the root of the graph, so that frozen parameters make no difference."""
    return activation.detach().clone().requires_grad_()


def weight_of(model: TransformerBridge, module: str, layer: int) -> Tensor | None:
    """A module's matrix, in the orientation the model keeps it in; None where it has no single one.

    A mixture of experts has one `mlp. down` for each expert, so it has none in this sense.
    """
    found: torch.nn.Module | None = model.blocks[layer]
    for name in PARTS[module].split("."):
        found = getattr(found, "_modules", {}).get(name)
    weight = getattr(found, "weight", None)
    return weight.detach() if isinstance(weight, Tensor) and weight.dim() == 2 else None


def _weights(
    model: TransformerBridge, other: TransformerBridge | None, places: Iterable[tuple[str, int]]
) -> Weights:
    """The statistics of every matrix there is, by module and layer."""
    found: dict[tuple[str, int], dict[str, float]] = {}
    for place in places:
        weight, theirs = (None if one is None else weight_of(one, *place) for one in (model, other))
        if weight is not None:
            norm = float(exact(weight).norm())
            found[place] = {"weight_norm": norm}
            if theirs is not None:
                change = float((exact(theirs) - exact(weight)).norm())
                found[place]["weight_change"] = change / norm
    return found


def _check_comparable(model: TransformerBridge, other: TransformerBridge) -> None:
    """Refuse a second checkpoint of another architecture, number of layers or shape of a matrix."""
    for mine, theirs in zip(_shapes(model), _shapes(other), strict=False):
        if mine != theirs:
            raise InputError(
                f"compare_to has {theirs}, and the model has {mine}; give two checkpoints of one "
                "architecture, such as a model and its fine-tuned version"
            )


def _shapes(model: TransformerBridge) -> Iterator[str]:
    yield f"{model.cfg.architecture} with {n_layers(model)} layers"
    for layer in range(n_layers(model)):
        for module in PARTS:
            weight = weight_of(model, module, layer)
            shape = None if weight is None else tuple(weight.shape)
            yield f"{module} of shape {shape} at layer {layer}"


def _rows(
    model: TransformerBridge,
    bound: Bound,
    settings: Settings,
    grads: Mapping[Site, Tensor],
    weights: Weights,
    wanted: Sequence[str],
) -> Iterator[Row]:
    """One row per prompt, module and layer."""
    edits = {(one.prompt, one.intervention.name, one.layer): one.samples[0] for one in bound.cells}
    for index, run in enumerate(bound.clean):
        text = token_texts(model.tokenizer, run.generated)[0]
        for one in settings.interventions:
            assert isinstance(one, Patch)
            pos, why = positions_in(run, one.pos), bound.dropped.get((index, one.name))
            for layer in settings.layers:
                site, weight = (one.act_name, layer), weights.get((str(one.module), layer), {})
                act = taken(run.acts[site], pos)
                grad = taken(grads[site][index], pos) if site in grads else None
                (edit,) = edits.get((index, one.name, layer), (None,))
                values = {**weight, **_values(act, grad, edit)}
                # reasons do not begin with NA, for the row's other numbers stand
                reasons = [] if why is None else [f"no source: {why}"]
                if FROM_WEIGHTS & set(wanted) and not weight:
                    reasons.append(NO_MATRIX)
                yield {
                    "prompt": run.prompt.id,
                    "group": run.prompt.group,
                    "intervention": one.name,
                    "layer": layer,
                    "layers": str(layer),
                    "module": one.module,
                    "alpha": one.alpha,
                    "token_text": text,
                    **{name: values.get(name) for name in wanted},
                    "status": "; ".join(reasons) or "ok",
                }


def _values(act: Tensor, grad: Tensor | None, edit: Edit | None) -> dict[str, float]:
    """The statistics of one output `[pos, ...]`: those that need a source or a gradient if any."""
    act = exact(act).flatten(1)
    found = {"act_norm": float(act.norm(dim=1).mean())}
    if grad is not None:
        grad = exact(grad).flatten(1)
        found["grad_norm"] = float(grad.norm())
    if edit is not None and edit.value is not None:
        delta = formula(act, exact(edit.value).flatten(1), edit.alpha, edit.add) - act
        found["act_shift"] = float(delta.norm() / act.norm())
        if grad is not None:
            found["attribution"] = float((delta * grad).sum())
            found["attribution_size"] = abs(found["attribution"])
    return found
