"""subject_norm: how long the subject's states are, by label, and against those of the FAs."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.errors import InputError
from knockgrid.evidence.label_curves import Acts, curves, exact
from knockgrid.host.hooks import act_name_of
from knockgrid.prompts.prompt import Prompt
from knockgrid.table.table import KEY, metadata_of


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

    def norm(model: TransformerBridge, acts: Acts, i: int, layer: int, pos: Sequence[int]) -> float:
        return float(exact(acts[act_name, layer][i, list(pos)]).flatten(1).norm(dim=1).mean())

    told = "L2 norm of the subject's states"
    return curves(
        model,
        prompts,
        frame,
        "subject_norm",
        told,
        [act_name_of(act_name)],
        norm,
        layers,
        prepend_bos,
    )


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

    FA is FA-high and FA-low together; a label without prompts has no ratio. One row per prompt of
    AH and UH, so that the mean over them is the ratio of the groups' means.

    Raises:
        InputError: not a table of `subject_norm`, or one without FAs, or with nothing else.

    Source: Cheang et al. 2025 (arXiv 2510.09033). Limit: bands over prompts take the mean of the
    FAs as known.
    """
    if "subject_norm" not in table:
        raise InputError("this is no table of subject_norm: it has no column 'subject_norm'")
    fa = table[table["group"].isin(["FA-high", "FA-low"])]
    if fa.empty:
        raise InputError("no prompt is FA-high or FA-low, so there is nothing to divide by")
    below = fa.groupby("layer")["subject_norm"].mean()
    made = table[table["group"].isin(["AH", "UH"])]
    if made.empty:
        raise InputError("no prompt is AH or UH, so there is nothing to compare with the FAs")
    ratio = made["subject_norm"] / made["layer"].map(below).astype(float)
    names = {label: f"{label}/FA" for label in ("AH", "UH") if (made["group"] == label).any()}
    made = made.drop(columns="subject_norm").assign(
        norm_ratio=ratio, intervention=made["group"].map(names).astype("string")
    )
    counts = made.groupby("group")["prompt"].nunique()
    made = made.reset_index(drop=True)
    made.attrs = {
        KEY: {
            **metadata_of(table),
            "statistics": {"norm_ratio": "subject norm / mean of FA"},
            "intervention_order": list(names.values()),
            "labels": {told: f"{told} (n = {counts[label]})" for label, told in names.items()},
        }
    }
    return made
