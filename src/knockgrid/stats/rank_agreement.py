"""rank_agreement: whether a cheap statistic ranks modules as the measured divergence does."""

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from knockgrid.errors import InputError
from knockgrid.table.table import grid

FEWEST = 3  # two cells always agree or disagree completely


def rank_agreement(
    statistics: pd.DataFrame,
    table: pd.DataFrame,
    statistic: str = "attribution_size",
    metric: str = "js",
) -> float:
    """Spearman's rank correlation of a module statistic with the divergence that was measured.

    Example:
        >>> from knockgrid.table.table import build
        >>> cells = [("mlp. up", 0, 0.1), ("mlp. up", 1, 0.2), ("mlp. down", 0, 0.9)]
        >>> rows = [
        ...     {"prompt": "a", "intervention": m, "module": m, "layer": layer, "js": js}
        ...     for m, layer, js in cells
        ... ]
        >>> table = build(rows, {})
        >>> rank_agreement(table.rename(columns={"js": "act_norm"}), table, "act_norm")
        1.0

    `statistics` is what `module_statistics` made, `table` a sweep over `per_module`, both with the
    same prompts, place and source. Each (layer, module) that both have is one cell, with the mean
    over its prompts; the result has no unit and lies between -1 and 1.

    Raises:
        InputError: fewer than three shared cells, or the same number in all of them; and as `grid`.

    Source: Spearman 1904, "The proof and measurement of association between two things".
    Limit: it says nothing about the size of an effect, and cells of one layer are not independent,
    so no p-value is given.
    """
    wide = [grid(statistics, statistic, "layer", "module"), grid(table, metric, "layer", "module")]
    mine, exact = (one.stack().dropna() for one in wide)
    shared = mine.index.intersection(exact.index)
    if len(shared) < FEWEST:
        raise InputError(
            f"the two tables share {len(shared)} (layer, module) cells, and a rank correlation "
            f"needs at least {FEWEST}; give both the same layers and modules"
        )
    pair = np.stack([mine[shared].to_numpy(float), exact[shared].to_numpy(float)])
    for name, values in zip((statistic, metric), pair, strict=True):
        if (values == values[0]).all():
            raise InputError(
                f"{name!r} is {values[0]:.3g} in all {len(shared)} cells, so it ranks nothing; "
                "give another statistic, metric or place"
            )
    return float(np.asarray(spearmanr(*pair))[0])  # its correlation, then its p-value
