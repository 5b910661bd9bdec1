"""subject_norm: how long the subject's states are, by label, and against those of the FAs."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from knockgrid._errors import InputError
from knockgrid._prompt import Prompt
from knockgrid._table import build, metadata_of
from knockgrid.analysis._label_curves import Acts, curves, exact, ratios


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
        >>> frame = kg.labels(kg.reliance("demo", prompts, progress=False), 0.42)
        >>> table = kg.subject_norm("demo", prompts, frame, layers=[0, 29])
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

    told = f"L2 norm of {act_name} over the subject's tokens (activation units)"
    return curves(
        model, prompts, frame, "subject_norm", told, [act_name], norm, layers, prepend_bos
    )


def norm_ratio(table: pd.DataFrame) -> pd.DataFrame:
    """The mean subject norm of AH and of UH, each as a ratio to that of the FAs, per layer.

    Example:
        >>> from knockgrid._table import build
        >>> rows = [
        ...     {"prompt": g, "group": g, "intervention": g, "layer": 0, "subject_norm": norm}
        ...     for g, norm in [("FA-high", 2.0), ("FA-low", 4.0), ("AH", 6.0)]
        ... ]
        >>> norm_ratio(build(rows, {"layer_order": [0]}))[["intervention", "norm_ratio"]].values
        array([['AH/FA', 2.0]], dtype=object)

    FA is FA-high and FA-low together; a label without prompts has no ratio.

    Raises:
        InputError: not a table of `subject_norm`, or one without FAs.

    Source: Cheang et al. 2025 (arXiv 2510.09033).
    """
    if "subject_norm" not in table:
        raise InputError("this is no table of subject_norm: it has no column 'subject_norm'")
    have = set(table["group"])
    if not have & {"FA-high", "FA-low"}:
        raise InputError("no prompt is FA-high or FA-low, so there is nothing to divide by")
    metadata = metadata_of(table)
    rows = [
        {"prompt": "group means", "intervention": f"{label}/FA", "layer": layer, "norm_ratio": v}
        for label in ("AH", "UH")
        if label in have
        for layer, v in zip(
            metadata["layer_order"], ratios(table, "subject_norm", label), strict=True
        )
    ]
    if not rows:
        raise InputError("no prompt is AH or UH, so there is nothing to compare with the FAs")
    names = list(dict.fromkeys(row["intervention"] for row in rows))
    kept = {k: v for k, v in metadata.items() if k not in ("labels", "group_order")}
    told = {"statistics": {"norm_ratio": "subject norm as a ratio to FA"}}
    return build(rows, {**kept, **told, "intervention_order": names})
