"""What probes can read: with an interval over seeds, and beside what the model uses."""

import numpy as np
import pandas as pd
from scipy.stats import t as student

from knockgrid.errors import InputError, unknown
from knockgrid.evidence.frames import described, need_columns, refuse_denoising
from knockgrid.table.measures import DISTANCES
from knockgrid.table.table import grid, metadata_of

AUCS = {"": "auc", "shuffled_": "auc_shuffled"}
NEEDED = ("layer", "position", *AUCS.values())


def auc_interval(table: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """The mean AUC of `probe_auc` over its seeds, per layer and position, with a t interval.

    Example:
        >>> from knockgrid.table.table import build
        >>> place = {"intervention": "probe", "layer": 3, "position": "last_q"}
        >>> rows = [
        ...     {"prompt": f"seed {seed}", **place, "auc": auc, "auc_shuffled": 0.5}
        ...     for seed, auc in enumerate([0.7, 0.8])
        ... ]
        >>> auc_interval(build(rows, {}), level=0.5)[["mean", "low", "high"]].round(2).values
        array([[0.75, 0.7 , 0.8 ]])

    Columns are `layer`, `position`, `mean`, `low`, `high`, the same for the shuffled labels
    (`shuffled_mean`, ...), and `seeds`, the number behind them. Bounds are cut to 0 and 1. A place
    that is NA, and the bounds of a single seed, are NaN.

    Raises:
        InputError: not a table of `probe_auc`, or a level outside 0 to 1.

    Limit: the interval shows how much the split into folds matters, and is too narrow for other
    prompts, as all seeds share theirs.
    """
    if not 0 < level < 1:
        raise InputError(f"level is {level!r}; give a share between 0 and 1, such as 0.95")
    need_columns(table, NEEDED, "probe_auc()")
    places = table.groupby(["layer", "position"], sort=False)
    seeds = places["auc"].count().rename("seeds")
    factor = student.ppf((1 + level) / 2, (seeds - 1).where(seeds > 1)) / np.sqrt(seeds)
    found = pd.DataFrame(index=seeds.index)
    for prefix, column in AUCS.items():
        mean, half = places[column].mean(), factor * places[column].std()
        found[f"{prefix}mean"] = mean
        found[f"{prefix}low"] = (mean - half).clip(lower=0)
        found[f"{prefix}high"] = (mean + half).clip(upper=1)
    found = found.join(seeds).reset_index()
    return described(found, table, level=level)


def readable_not_used(
    probes: pd.DataFrame, table: pd.DataFrame, metric: str = "js"
) -> pd.DataFrame:
    """What a probe can read at each layer × position, minus what the model uses there.

    Example:
        >>> from knockgrid.table.table import build
        >>> def at(layer, **measured):
        ...     place = {"prompt": "a", "intervention": "one", "position": "last_q"}
        ...     return {**place, "layer": layer, **measured}
        >>> aucs = [at(0, auc=0.5, auc_shuffled=0.5), at(1, auc=0.9, auc_shuffled=0.5)]
        >>> probes = build(aucs, {})
        >>> table = build([at(0, js=0.2), at(1, js=0.1)], {"unit": "nats"})
        >>> readable_not_used(probes, table)["last_q"].round(2).tolist()
        [-1.0, 0.3]

    Readable is 2 · AUC - 1, not below 0, with the AUC averaged over seeds; used is the divergence
    averaged over prompts, as a share of its largest mean in the grid. The difference runs from -1
    (used, and no probe can read it) to 1 (readable, and without effect), without a unit. `probes`
    comes from `probe_auc`, `table` from a sweep over `per_position` of the same positions and
    layers; rows and columns are in the order of `probes`. A cell that is NA in either is NaN.

    Raises:
        InputError: axes that differ, a metric that is no divergence, a sweep in the direction
            "denoising", or one that moved nothing.

    Source: ours; the grid of Orgad et al., arXiv 2410.02707, beside activation patching.
    Limit: the two shares are scaled differently, so their sign is a hint and no test. `used` tells
    of the whole next-token distribution, `readable` of whether the answer is wrong.
    """
    need_columns(probes, NEEDED, "probe_auc()")
    if metric not in DISTANCES:
        raise unknown("divergence", metric, DISTANCES)
    refuse_denoising(table)
    lengths = [metadata_of(one).get("n_tokens") for one in (probes, table)]
    if None not in lengths and lengths[0] != lengths[1]:
        raise InputError(
            f"the probes found positions with n_tokens={lengths[0]} and the sweep with "
            f"{lengths[1]}, so that '-1' means different tokens; give both the same n_tokens"
        )
    rules = [metadata_of(one).get("exact_answer") for one in (probes, table)]
    if None not in rules and rules[0] != rules[1]:
        raise InputError(
            f"the probes found exact answers by exact_answer={rules[0]!r} and the sweep by "
            f"{rules[1]!r}, so that exact_answer_* means different tokens; give both the same"
        )
    readable = (2 * grid(probes, "auc", "layer", "position") - 1).clip(lower=0)
    moved = grid(table, metric, "layer", "position")
    _check_axes(readable, moved)
    most = float(np.nanmax(moved.to_numpy(float), initial=-np.inf))
    if not np.isfinite(most) or most <= 0:
        raise InputError(
            f"the largest mean {metric!r} of the sweep is {most}, which nothing can be a share of; "
            "give a sweep that moves the output by a finite amount, or another metric"
        )
    difference = readable - moved.reindex_like(readable) / most
    return described(difference, table, **metadata_of(probes) | {"metric": metric})


def _check_axes(readable: pd.DataFrame, moved: pd.DataFrame) -> None:
    """Refuse two grids that do not have the same layers and positions."""
    for what, ours, theirs in (
        ("layers", readable.index, moved.index),
        ("positions", readable.columns, moved.columns),
    ):
        lacks = {"cells of the sweep": ours.difference(theirs), "probes": theirs.difference(ours)}
        for where, lacking in lacks.items():
            if len(lacking):
                raise InputError(
                    f"the {where} lack the {what} {', '.join(map(str, lacking))}; give probe_auc() "
                    "and sweep() the same layers and positions"
                )
