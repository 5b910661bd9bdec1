"""peak: the set of layers among which the highest mean lies."""

import numpy as np
import pandas as pd

from knockgrid.stats.clusters import FEWEST, By, clusters
from knockgrid.stats.mean_interval import LEAST_OF_BAND, check_level, why_no_interval
from knockgrid.stats.resample import mean_of, resample
from knockgrid.table.by_prompt import by_prompt, missing
from knockgrid.table.table import KEY, metadata_of, with_layers

RESAMPLES = 999  # of each layer against all others


def peak(
    table: pd.DataFrame,
    metric: str = "js",
    by: By = "auto",
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> pd.DataFrame:
    """A confidence set of layers for the peak of each row: those not clearly below another one.

    Example:
        >>> from knockgrid.table.table import build
        >>> rows = [
        ...     {"prompt": f"{p}", "intervention": "last", "layer": i,
        ...      "js": js + 0.05 * ((5 * p + 3 * i) % 8 - 3.5)}
        ...     for p in range(8) for i, js in enumerate([0.1, 0.5, 0.52, 0.1])
        ... ]
        >>> peak(build(rows, {"unit": "nats"}))[["peak", "confidence_set"]].values.tolist()
        [[2, (1, 2)]]

    Columns: the row's labels, `peak`, the layer with the highest mean, `confidence_set`, a tuple of
    layers that holds the true peak with probability `level`, `n_clusters`, `cluster` and `note`. A
    layer is in the set unless the largest t of (another layer − this one) exceeds what whole
    resampled clusters give. With fewer than six clusters it is None. Raises as `mean_interval`.

    Source: Hsu 1981 (multiple comparisons with the best); Mogstad et al. 2024, "Inference for
    Ranks", for the confidence set of the best. One-sided studentised cluster bootstrap: ours.
    Limit: with strongly skewed values and few clusters its coverage is that of a bootstrap-t.
    """
    check_level(level)
    made = by_prompt(with_layers(table), metric)
    groups = clusters(table, by)
    codes, lacking = groups.codes(), missing(made.prompts, made.values)
    rows = []
    for labels, here in made.rows():
        values, layers = made.values[:, here], made.cells["layer"][here].to_numpy(int)
        known = ~np.isnan(values).all(1)
        n = min(len(set(code[known].tolist())) for code in codes)
        means = mean_of(values)
        best = int(layers[np.where(np.isnan(means), -np.inf, means).argmax()])
        kept = None
        if n >= FEWEST:
            kept = tuple(layers[peaks(values, codes, level, resamples, seed)].tolist())
        told = {"peak": best, "confidence_set": kept, "n_clusters": n, "cluster": groups.words}
        note = "; ".join(filter(None, (why_no_interval(groups, n), lacking)))
        rows.append({**labels, **told, "note": note})
    found = pd.DataFrame(rows)
    found.attrs = {KEY: {**metadata_of(table), "metric": metric, "level": level}}
    return found


def peaks(
    values: np.ndarray, codes: list[np.ndarray], level: float, resamples: int, seed: int
) -> np.ndarray:
    """Which columns of `[prompt, layer]` may be the one with the highest mean, `[layer]`.

    A layer without values is outside the set.
    """
    inside = np.zeros(values.shape[1], dtype=bool)
    some = ~np.isnan(values).all(0)
    for layer in np.flatnonzero(some):
        others = some & (np.arange(values.shape[1]) != layer)
        if not others.any():
            inside[layer] = True
            continue
        drawn = resample(values[:, others] - values[:, [layer]], codes, resamples, seed)
        least = LEAST_OF_BAND * np.nanmax(drawn.error)
        with np.errstate(invalid="ignore", divide="ignore"):
            t = np.where(drawn.mean == 0, 0.0, drawn.mean / np.maximum(drawn.error, least))
        largest = np.nanmax(np.nan_to_num(drawn.t(least=least), nan=-np.inf), axis=1)
        inside[layer] = np.nanmax(t) <= max(np.quantile(largest, level), 0.0)
    return inside
