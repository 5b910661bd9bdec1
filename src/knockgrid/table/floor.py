"""The noise floor that a table carries, cell by cell of a grid."""

from typing import Any

import numpy as np
import pandas as pd

from knockgrid.table.table import metadata_of


def floor_of(table: pd.DataFrame, metric: str) -> np.ndarray | None:
    """The noise floor `[row]` of every row of a table, NaN where it has none; None for no floor.

    The metadata key `noise_floor` is one number (of JS), one per metric, or per metric one per
    intervention and layer under `cells`, with `overall` for those that are not named.
    """
    given: Any = metadata_of(table).get("noise_floor")
    if isinstance(given, dict):
        given = given.get(metric)
    elif metric != "js":
        return None  # a bare number is measured in JS
    if not isinstance(given, dict):
        return None if given is None else np.full(len(table), float(given))
    named, overall = given.get("cells", {}), given.get("overall", np.nan)
    places = zip(table["intervention"], table["layer"], strict=True)
    found = [named.get(str(name), {}).get(str(layer), overall) for name, layer in places]
    return None if np.isnan(found).all() else np.array(found, dtype=float)


def highest_floors(table: pd.DataFrame, metric: str) -> dict[str, float]:
    """The highest floor of every intervention that has one."""
    if (floors := floor_of(table, metric)) is None:
        return {}
    found = pd.Series(floors).groupby(table["intervention"].to_numpy(object)).max().dropna()
    return {str(name): float(floor) for name, floor in found.items()}


def floor_grid(
    table: pd.DataFrame, metric: str, values: pd.DataFrame, parts: pd.DataFrame
) -> pd.DataFrame | None:
    """The floor in the form of a grid: the highest one of the rows that a cell is made of."""
    floor = floor_of(table, metric)
    if floor is None:
        return None
    highest = parts.assign(floor=floor).groupby(["row", "column"])["floor"].max()
    return pd.DataFrame(highest.unstack("column")).reindex(
        index=values.index, columns=values.columns
    )


def floor_text(floors: np.ndarray) -> str:
    """What the legend says of the floors that are marked."""
    ends = dict.fromkeys(f"{edge:.1g}" for edge in (np.nanmin(floors), np.nanmax(floors)))
    return f"below the noise floor ({' to '.join(ends)})"
