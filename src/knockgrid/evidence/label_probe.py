"""label_probe: how well a linear probe tells two labels apart, by representation and layer."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.edits import patch, per_position
from knockgrid.edits.layers import layer_list
from knockgrid.edits.patch import Patch
from knockgrid.engine.checks import check_edits, check_places
from knockgrid.engine.record import record_clean
from knockgrid.engine.setup import settings_of, versions
from knockgrid.errors import InputError
from knockgrid.evidence.label_curves import labelled_prompts
from knockgrid.evidence.matched import SIDES, check_sides
from knockgrid.evidence.out_of_fold import need_sklearn
from knockgrid.evidence.probes import Example, activations, check_counts, probe_rows
from knockgrid.host.bridge import check_ready, describe, load, n_layers
from knockgrid.passes.prepared import batches, default_bos, prepare
from knockgrid.prompts.positions import Position
from knockgrid.prompts.prompt import Prompt
from knockgrid.sources import zero
from knockgrid.spec import Spec
from knockgrid.table.table import build, metadata_of


def label_probe(
    model: str | Path | TransformerBridge,
    prompts: Sequence[Prompt],
    frame: pd.DataFrame,
    *,
    between: Sequence[str] = ("FA", "wrong"),
    positions: Sequence[Position] = ("last", "subject"),
    layers: str | int | Sequence[int] = "all",
    act_name: str = "resid_post",
    seeds: int = 5,
    folds: int = 5,
    prepend_bos: bool | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Detection AUROC: how well a probe on a representation tells one label from another.

    Example:
        >>> import knockgrid as kg
        >>> prompts = kg.facts("us_state_capital")[:10]
        >>> frame = kg.evidence.labels(kg.evidence.reliance("demo", prompts, progress=False), 0.3)
        >>> few = {"layers": [29], "seeds": 1, "folds": 2, "progress": False}
        >>> kg.evidence.label_probe("demo", prompts, frame, **few).position.tolist()
        ['last', 'subject']

    `between` names two of FA (both of its labels), FA-high, FA-low, wrong, AH and UH; the second is
    the positive class, as "incorrect" is in `probe_auc`, whose columns, options, folds (no subject
    is both fitted and scored) and control these are. A position of several tokens stands for their
    mean. `frame` comes from `labels`.

    Raises:
        InputError: no scikit-learn, bad input, a frame without labels, or sides that share labels.

    Source: Cheang et al. 2025 (arXiv 2510.09033).

    Limit: where the sides have other relations, a probe that reads the relation does as well; give
    the prompts of `matched` pairs to compare within relations.
    """
    need_sklearn()
    check_sides(between)
    model = load(model)
    check_ready(model)
    check_counts(1, seeds, folds)
    chosen = layer_list(layers, n_layers(model))
    columns = per_position(patch(act_name, "last", zero()), positions)
    check_edits(model, columns, chosen)
    bos = default_bos(model, prepend_bos)
    label = {str(prompt.id): name for prompt, name in labelled_prompts(prompts, frame)}
    sides = [SIDES[name] for name in between]
    ready = [
        one
        for one in prepare(model, prompts, bos, 1)
        if label.get(str(one.prompt.id)) in (*sides[0], *sides[1])
    ]
    if not ready:
        raise InputError(f"no prompt is {between[0]!r} or {between[1]!r}, so nothing can be learnt")
    check_places(ready, columns, 1)
    settings = settings_of(Spec(top=0), columns, chosen, bos)
    found: dict[str, Example] = {}
    for batch in batches(ready):
        for run in record_clean(model, batch, settings):
            kept = [one for one in columns if isinstance(one, Patch)]
            positive = label[str(run.prompt.id)] in sides[1]
            acts = dict(activations(run, kept, chosen))
            found[str(run.prompt.id)] = Example(run.prompt, positive, acts)
    examples = [found[str(one.prompt.id)] for one in ready]
    n_positive = sum(one.incorrect for one in examples)
    rows = list(probe_rows(examples, columns, chosen, seeds, folds, progress))
    return build(
        rows,
        {
            "act_name": columns[0].act_name,
            "layer_order": list(chosen),
            "position_order": [one.position for one in columns],
            "labels": {"probe": "Probe"},
            "statistics": {
                "auc": f"AUC ({between[1]} = positive, {between[0]} = negative)",
                "auc_shuffled": "AUC, labels shuffled",
            },
            "positive_class": between[1],
            "negative_class": between[0],
            "n_positive": n_positive,
            "n_negative": len(examples) - n_positive,
            "seeds": list(range(seeds)),
            "folds": folds,
            "threshold": metadata_of(frame).get("threshold"),
            "prepend_bos": bos,
            "model": describe(model),
            "versions": versions(),
        },
    )
