"""Contrasts of tables: the difference of two, and the interval of one, cell by cell."""

import pandas as pd

from knockgrid.errors import InputError, unknown
from knockgrid.stats.mean_interval import check_level, mean_interval
from knockgrid.table.by_prompt import CELL, cell_labels
from knockgrid.table.metadata import check_same_scale
from knockgrid.table.table import build, metadata_of, metrics, numbers

LABELS = ("prompt", "group", "relation", "subject", "layer", "layers", "token")


def _cells(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The rows that have a value: their cell as one key, prompt and value."""
    if metric not in metrics(table):
        raise unknown("metric", metric, metrics(table))
    kept = table.assign(value=numbers(table, metric)).dropna(subset="value")
    keys = list(cell_labels(kept).itertuples(index=False, name=None))
    return kept[["prompt", "value"]].assign(cell=pd.Series(keys, kept.index, dtype=object))


def difference(one: pd.DataFrame, other: pd.DataFrame, metric: str = "js") -> pd.DataFrame:
    """A table with `other` minus `one`, cell by cell: means over the prompts that both have.

    Example:
        >>> row = {"prompt": "rome", "intervention": "last", "layer": 0}
        >>> one, other = (build([{**row, "js": js}], {"unit": "nats"}) for js in (0.1, 0.4))
        >>> difference(one, other).js.round(3).tolist()
        [0.3]

    Where they share no prompt at all (two groups), the means over each one's own prompts are
    subtracted; the metadata key `paired` says which it was.

    Raises:
        InputError: tables in different units, an unknown metric, or no cell in common.
    """
    check_same_scale(metadata_of(table) for table in (one, other))
    names = [name for name in CELL if name in one]
    left, right = _cells(one, metric), _cells(other, metric)
    paired = not set(left["prompt"]).isdisjoint(right["prompt"])
    by = ["cell", "prompt"] if paired else ["cell"]
    values = [part.groupby(by, sort=False)["value"].mean() for part in (left, right)]
    apart = (values[1] - values[0]).dropna().groupby("cell", sort=False).mean()
    if apart.empty:
        raise InputError("the tables have no cell in common; sweep the same interventions")
    values_of = dict(zip(apart.index.tolist(), apart.tolist(), strict=True))
    rows = [
        {"prompt": "difference", metric: values_of[cell], **dict(zip(names, cell, strict=True))}
        for cell in dict.fromkeys(left["cell"])
        if cell in values_of
    ]
    return build(rows, {**metadata_of(one), "paired": paired})


def interval_ends(
    table: pd.DataFrame, metric: str = "js", level: float = 0.95, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables with the lower and upper end of every cell's interval, which knows the clusters.

    Example:
        >>> row = {"intervention": "last", "layer": 0}
        >>> rows = [{**row, "prompt": f"{p}", "js": p / 30} for p in range(12)]
        >>> low, high = interval_ends(build(rows, {}))
        >>> low.js.round(2).tolist(), high.js.round(2).tolist()
        ([0.11], [0.26])

    The ends are those of `mean_interval`, each for its cell alone. A cell with fewer than six
    clusters is NA in both tables, and its status says why.

    Raises:
        InputError: as `mean_interval`, or fewer than two prompts.
    """
    check_level(level)
    if table["prompt"].nunique() < 2:
        raise InputError("an interval needs two prompts or more; this table has one")
    found = mean_interval(table, metric, level=level, seed=seed)
    rows = [
        {
            **{name: row[name] for name in CELL if name in row},
            "prompt": "interval",
            "status": "ok" if row["low"] == row["low"] else f"NA: {row['note'] or 'no value'}",
        }
        for row in found.to_dict("records")
    ]
    low, high = (
        [{**row, metric: end} for row, end in zip(rows, found[name], strict=True)]
        for name in ("low", "high")
    )
    return build(low, metadata_of(table)), build(high, metadata_of(table))


def redundancy(table: pd.DataFrame, singles: str, joint: str, metric: str = "js") -> pd.DataFrame:
    """Sum of the single layers' effects minus the effect of the whole set, per prompt and cell.

    Example:
        >>> cells = [("only", 0, "0", 0.1), ("only", 1, "1", 0.2), ("from", 0, "0,1", 0.7)]
        >>> names = ["intervention", "layer", "layers", "js"]
        >>> rows = [{"prompt": "a", **dict(zip(names, cell))} for cell in cells]
        >>> redundancy(build(rows, {"unit": "nats"}), "only", "from").js.round(3).tolist()
        [-0.4]

    `singles` is an intervention with one layer per cell, `joint` one with sets (`per_window`); the
    column `layers` says which singles belong to a cell. Negative: the set does more than its
    layers one by one, so each of them is covered by the others (a spare path). Positive: the
    layers do the same thing one after another, or the measure saturates.

    Raises:
        InputError: an unknown intervention, or a set with a layer that has no single cell.
    """
    table = table.assign(value=numbers(table, metric))
    parts = {name: table[table["intervention"] == name] for name in (singles, joint)}
    for name, part in parts.items():
        if part.empty:
            raise unknown("intervention", name, table["intervention"].unique())
    keys = ["prompt", "token", "layers"]
    if parts[singles].duplicated(keys).any():
        raise InputError(
            f"{singles!r} has several cells for one layer and token (heads, positions?); keep one"
        )
    single = parts[singles].set_index(keys)["value"].to_dict()
    rows = []
    for row in parts[joint].to_dict("records"):
        layers = [layer for layer in str(row["layers"]).split(",") if layer]
        wanted = [(row["prompt"], row["token"], layer) for layer in layers]
        absent = [key[-1] for key in wanted if key not in single]
        if absent:
            raise InputError(
                f"layer {absent[0]} of the set at layer {row['layer']} has no cell of {singles!r}; "
                "sweep layers='all'"
            )
        labels = {name: row[name] for name in LABELS if name in row}
        value = sum(single[key] for key in wanted) - row["value"]
        status = "ok" if value == value else "NA: a layer of the set, or the set, has no value"
        name = f"redundancy {joint}"
        rows.append({**labels, "intervention": name, metric: value, "status": status})
    return build(rows, metadata_of(table))
