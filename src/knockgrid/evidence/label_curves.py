"""Companion curves: one number per prompt and layer, with a row and a panel per label."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch
from einops import einsum, rearrange, repeat
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.edits.layers import layer_list
from knockgrid.engine.setup import versions
from knockgrid.errors import InputError
from knockgrid.evidence.checked import exact
from knockgrid.evidence.frames import described, need_columns
from knockgrid.evidence.labels import LABELS, check_labelled
from knockgrid.host.bridge import check_ready, describe, load, n_layers
from knockgrid.host.hooks import act_name_of
from knockgrid.passes.prepared import batches, default_bos, ids_of, prepare
from knockgrid.passes.run import Site, record
from knockgrid.prompts.positions import resolve
from knockgrid.prompts.prompt import Prompt
from knockgrid.table.table import build, metadata_of

Acts = dict[Site, Tensor]
Measure = Callable[[Acts, int, Sequence[int]], Tensor]
"""From a prompt's activations, a layer and the tokens of a place to a number, or to a state."""
ALONE = "NA: the only prompt of its label has nothing to be compared with"


def subject_norm(
    model: str | Path | TransformerBridge,
    prompts: Sequence[Prompt],
    frame: pd.DataFrame,
    *,
    layers: str | int | Sequence[int] = "all",
    act_name: str = "resid_post",
    prepend_bos: bool | None = None,
) -> pd.DataFrame:
    """The mean L2 norm of the states of the subject's tokens, one row per prompt and layer.

    Example:
        >>> import knockgrid as kg
        >>> prompts = kg.facts("us_state_capital")[:4]
        >>> frame = kg.evidence.labels(kg.evidence.reliance("demo", prompts, progress=False), 0.42)
        >>> table = kg.evidence.subject_norm("demo", prompts, frame, layers=[0, 29])
        >>> bool((table.subject_norm > 0).all()), len(table)
        (True, 8)

    `frame` comes from `labels`. The label is the row (`intervention`) and the panel (`group`), so
    `layer_curve(table, "subject_norm")` draws a line per label; `norm_ratio` divides by the FAs.

    Raises:
        InputError: a frame without labels, or a prompt without a subject.

    Source: Cheang et al. 2025 (arXiv 2510.09033). Limit: norms differ between relations and
    between tokens (one at the start of the text above all), so compare labels within relations.
    """
    act_name = act_name_of(act_name)

    def norm(acts: Acts, layer: int, pos: Sequence[int]) -> Tensor:
        return exact(acts[act_name, layer][list(pos)]).flatten(1).norm(dim=1).mean()

    told = {"subject_norm": "L2 norm of the subject's states"}
    return curve(model, prompts, frame, layers, prepend_bos, told, [act_name], norm)


def norm_ratio(table: pd.DataFrame) -> pd.DataFrame:
    """The subject norms of AH and of UH, each as a ratio to the mean of the FAs at its layer.

    Example:
        >>> from knockgrid.table.table import build
        >>> rows = [
        ...     {"prompt": g, "group": g, "intervention": g, "layer": 0, "subject_norm": norm}
        ...     for g, norm in [("FA-high", 2.0), ("FA-low", 4.0), ("AH", 6.0)]
        ... ]
        >>> norm_ratio(build(rows, {}))[["intervention", "norm_ratio"]].values
        array([['AH/FA', 2.0]], dtype=object)

    One row per prompt of AH and UH: the mean over them is the ratio of the groups' means.

    Raises:
        InputError: not a table of `subject_norm`, or one without FAs, or with nothing else.

    Source: Cheang et al. 2025 (arXiv 2510.09033). Limit: bands over prompts take the mean of the
    FAs as known.
    """
    need_columns(table, ["subject_norm"], "subject_norm()")
    fa = table[table["group"].isin(["FA-high", "FA-low"])]
    if fa.empty:
        raise InputError("no prompt is FA-high or FA-low, so there is nothing to divide by")
    wrong = table[table["group"].isin(["AH", "UH"])].reset_index(drop=True)
    if wrong.empty:
        raise InputError("no prompt is AH or UH, so there is nothing to compare with the FAs")
    below = wrong["layer"].map(fa.groupby("layer")["subject_norm"].mean()).astype(float)
    counts = wrong.groupby("group")["prompt"].nunique()
    names = {label: f"{label}/FA" for label in counts.index}
    made = wrong.drop(columns="subject_norm").assign(
        norm_ratio=wrong["subject_norm"] / below,
        intervention=wrong["group"].map(names).astype("string"),
    )
    return described(
        made,
        table,
        statistics={"norm_ratio": "subject norm / mean of FA"},
        intervention_order=list(names.values()),
        labels={told: f"{told} (n = {counts[label]})" for label, told in names.items()},
    )


def last_similarity(
    model: str | Path | TransformerBridge,
    prompts: Sequence[Prompt],
    frame: pd.DataFrame,
    *,
    layers: str | int | Sequence[int] = "all",
    act_name: str = "resid_post",
    prepend_bos: bool | None = None,
) -> pd.DataFrame:
    """The mean cosine similarity of each prompt's last-token state to the others of its label.

    Example:
        >>> import knockgrid as kg
        >>> prompts = kg.facts("us_state_capital")[:4]
        >>> frame = kg.evidence.labels(kg.evidence.reliance("demo", prompts, progress=False), 0.42)
        >>> table = kg.evidence.last_similarity("demo", prompts, frame, layers=[0, 29])
        >>> bool(table.last_similarity.dropna().between(-1, 1).all())
        True

    Rows and `frame` are as in `subject_norm`; the mean over the prompts of a label is the mean over
    its pairs. A prompt alone under its label is NA.

    Raises:
        InputError: a frame without labels.

    Source: Cheang et al. 2025 (arXiv 2510.09033).

    Limits: a label that is mostly one relation has similar prompts for that reason alone. Pairs
    share prompts, so a bootstrap band over prompts is too narrow.
    """
    act_name = act_name_of(act_name)

    def state(acts: Acts, layer: int, pos: Sequence[int]) -> Tensor:
        return exact(acts[act_name, layer][list(pos)]).flatten()

    def to_others(states: Tensor) -> list[float]:
        unit = states / states.norm(dim=1, keepdim=True)
        cosines = unit @ unit.T
        return ((cosines.sum(1) - cosines.diagonal()) / (len(states) - 1)).tolist()

    told = {"last_similarity": "cosine similarity within label"}
    given = (model, prompts, frame, layers, prepend_bos, told, [act_name], state)
    return curve(*given, at="last", among=to_others, alone=ALONE)


def subject_attention(
    model: str | Path | TransformerBridge,
    prompts: Sequence[Prompt],
    frame: pd.DataFrame,
    *,
    layers: str | int | Sequence[int] = "all",
    prepend_bos: bool | None = None,
) -> pd.DataFrame:
    """The norm of what the last token receives from the subject's tokens through attention.

    Example:
        >>> import knockgrid as kg
        >>> prompts = kg.facts("us_state_capital")[:4]
        >>> frame = kg.evidence.labels(kg.evidence.reliance("demo", prompts, progress=False), 0.42)
        >>> table = kg.evidence.subject_attention("demo", prompts, frame, layers=[0, 29])
        >>> bool((table.subject_attention > 0).all()), len(table)
        (True, 8)

    Per prompt and layer ‖Σ_k Σ_h A_h[last, s_k] v_h(s_k) W_O‖ (activation units), over the
    subject's tokens s_k and the query heads h. Weights A (after the softmax) and values v (after
    the norm before W_V, with their bias) are the model's own; a value head serves all query heads
    of its group; the output bias is left out. Rows and `frame` are as in `subject_norm`.

    Raises:
        InputError: a frame without labels, a prompt without a subject, or a layer whose attention
            is not a weighted sum of values (another mechanism, or a gate behind it).

    Source: Cheang et al. 2025 (arXiv 2510.09033); the decomposition is that of Kobayashi et al.
    2020 (arXiv 2004.10102).

    Limit: the norm says how much is brought, not whether it is used; for that, `knockout`.
    """
    bridge = load(model)

    def norm(acts: Acts, layer: int, pos: Sequence[int]) -> Tensor:
        return contribution(bridge, acts, layer, pos).double().norm()

    told = {"subject_attention": "attention from subject (L2 norm)"}
    return curve(bridge, prompts, frame, layers, prepend_bos, told, ["pattern", "v", "z"], norm)


def curve(
    model: str | Path | TransformerBridge,
    prompts: Sequence[Prompt],
    frame: pd.DataFrame,
    layers: str | int | Sequence[int],
    prepend_bos: bool | None,
    told: dict[str, str],
    sites: Sequence[str],
    measure: Measure,
    at: str = "subject",
    among: Callable[[Tensor], list[float]] = Tensor.tolist,
    alone: str = "ok",
) -> pd.DataFrame:
    """The table of a companion curve, from what is measured at a place of every labelled prompt.

    `told` names the column and says what it holds; `among` turns what was measured of all prompts
    of a label at a layer into their numbers, and `alone` is the status of a label's only prompt.
    """
    model = load(model)
    check_ready(model)
    label = labels_of(prompts, frame)
    chosen = layer_list(layers, n_layers(model))
    bos = default_bos(model, prepend_bos)
    ready = prepare(model, prompts, bos, 1)
    # every place is found before anything is computed
    pos = {str(one.prompt.id): resolve(one.prompt, one.tokens, at) for one in ready}
    wanted = [(site, layer) for site in sites for layer in chosen]
    measured: dict[tuple[str, int], Tensor] = {}
    for batch in batches([one for one in ready if str(one.prompt.id) in label]):
        ids = ids_of(model, batch)
        seen = record(model, ids, measured=slice(-1, None), sites=wanted, keep_kv=False)
        for i, one in enumerate(batch):
            name, acts = str(one.prompt.id), {site: act[i] for site, act in seen.acts.items()}
            measured |= {(name, layer): measure(acts, layer, pos[name]) for layer in chosen}
    counts = Counter(label.values())
    values: dict[tuple[str, int], float] = {}
    for own in counts:
        for layer in chosen:
            members = [(name, layer) for name in label if label[name] == own]
            found = among(torch.stack([measured[one] for one in members]))
            values.update(zip(members, found, strict=True))
    rows = [
        {
            **{"prompt": name, "group": own, "intervention": own, "layer": layer},
            **{"layers": str(layer), next(iter(told)): values[name, layer]},
            "status": alone if counts[own] == 1 else "ok",
        }
        for name, own in label.items()
        for layer in chosen
    ]
    order = [name for name in LABELS if name in counts]
    named = set(frame.loc[frame["label"].notna(), "prompt"].astype(str))
    metadata = {
        "statistics": told,
        "layer_order": list(chosen),
        "intervention_order": order,
        "group_order": order,
        "labels": {name: f"{name} (n = {counts[name]})" for name in order},
        "counts": {name: counts[name] for name in order},
        "unlabelled": [str(one.prompt.id) for one in ready if str(one.prompt.id) not in named],
        "threshold": metadata_of(frame).get("threshold"),
        "prepend_bos": bos,
        "model": describe(model),
        "versions": versions(),
    }
    return build(rows, metadata)


def labels_of(prompts: Sequence[Prompt], frame: pd.DataFrame) -> dict[str, str]:
    """By id, the label of those prompts that have one."""
    check_labelled(frame)
    given = dict(zip(frame["prompt"].astype(str), frame["label"], strict=True))
    ids = [str(one.id) for one in prompts]
    found = {name: str(given[name]) for name in ids if pd.notna(given.get(name, pd.NA))}
    if not found:
        raise InputError("none of the prompts has a label; give those that were labelled")
    return found


def contribution(model: TransformerBridge, acts: Acts, layer: int, keys: Sequence[int]) -> Tensor:
    """What the last token receives from some keys, `[d_model]`, from one prompt's activations."""
    pattern = acts["pattern", layer][:, -1]  # [head, key]
    z = rearrange(acts["z", layer][-1], "... -> (...)")  # with or without an axis of heads
    n_heads = pattern.shape[0]
    flat = rearrange(acts["v", layer], "key ... -> key (...)")
    values = rearrange(flat, "key (group d_head) -> key group d_head", d_head=len(z) // n_heads)
    shared = n_heads // values.shape[1]  # heads that read one group of values
    values = repeat(values, "key group d_head -> key (group shared) d_head", shared=shared)
    weighted = einsum(pattern.to(values), values, "head key, key head d_head -> key head d_head")
    total = rearrange(weighted.sum(0), "head d_head -> (head d_head)")
    gap = float((total - z).abs().max())
    room = 1e3 * torch.finfo(z.dtype).eps * max(float(total.abs().max()), float(z.abs().max()))
    if not gap <= room:
        raise InputError(
            f"the attention of layer {layer} is not its weights times its values (they differ by "
            f"{gap:.2g}), so it cannot be split by key; leave the layer out"
        )
    part = rearrange(weighted[list(keys)].sum(0), "head d_head -> (head d_head)")
    output = getattr(getattr(model.blocks[layer], "attn", None), "o", None)
    project = getattr(output, "original_component", None)  # without the bridge's hooks around it
    if project is None:
        raise InputError(f"layer {layer} has no attention with an output matrix; leave it out")
    with torch.no_grad():
        both = project(torch.stack([part, torch.zeros_like(part)])[None])[0]
    return both[0] - both[1]  # without the output bias
