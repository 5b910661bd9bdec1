"""The tidy table: its columns and units, and the pivot to a grid."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from knockgrid.errors import InputError, some_of, unknown
from knockgrid.table.measures import (
    DISTANCES,
    MEASURES,
    as_metadata,
    log_name,
    log_of,
    logarithm,
    measure_of,
)
from knockgrid.table.metadata import KEY, Table, shared


class Column(NamedTuple):
    """One column of the table; `unit` is label, index, information, fraction, rank or text.

    The unit "information" stands for the table's own unit, nats or bits (metadata key `unit`).
    """

    name: str
    dtype: str
    description: str
    unit: str


COLUMNS = (
    Column("prompt", "string", "id of the prompt", "label"),
    Column("group", "string", "group of the prompt, the panel of a figure", "label"),
    Column("relation", "string", "relation of the prompt", "label"),
    Column("subject", "string", "text of the prompt's subject", "label"),
    Column("intervention", "string", "name of the intervention", "label"),
    Column("row", "string", "what figures call its row, such as 'subject'", "label"),
    Column("kind", "string", "kind of edit, such as 'patch resid_post'", "label"),
    Column("source", "string", "where its values come from, NA where it needs none", "label"),
    Column("source_layer", "Int64", "layer its values come from, NA: the edited one", "index"),
    Column("place", "string", "where it edits, such as 'subject' or 'last <- subject'", "label"),
    Column("layer", "Int64", "layer the cell stands for, NA: it has its own layers", "index"),
    Column("layers", "string", "exact set of edited layers, as '3,4,5'", "label"),
    Column("head", "Int64", "edited attention head, NA for all", "index"),
    Column("module", "string", "edited module, NA where the kind has none", "label"),
    Column("position", "string", "edited position by name, NA where the kind fixes it", "label"),
    Column("span", "string", "edited span by name, NA where the kind fixes it", "label"),
    Column("alpha", "Float64", "share of the way to the source, NA where none", "index"),
    Column("measured", "string", "measured span by name, NA where tokens are measured", "label"),
    Column("token", "Int64", "measured token, 0 = first after the prompt", "index"),
    Column("token_text", "string", "text of the clean run's token there", "label"),
    *(
        Column(one.name, "Float64" if one.unit == "rank" else "float64", one.label, one.unit)
        for one in MEASURES.values()
    ),
    Column("diverged", "Int64", "first token that free_run wrote differently, NA: none", "index"),
    Column("written", "string", "text that free_run wrote, on the cell's first row", "text"),
    Column("exact_from", "string", "whose exact answer the position is at, NA: none", "text"),
    Column("samples", "Int64", "number of samples behind the row", "index"),
    Column("status", "string", "'ok', or the reason why there is no value", "label"),
)
LISTS = ("top_tokens", "top_logp")
"""Columns of run folders that no table has unless it is asked for them."""
LABELS = ("label", "index")  # units of columns that say where a row belongs
REQUIRED = ("prompt", "intervention", "layer")
DEFAULTS = {"token": 0, "samples": 1, "status": "ok"}
CELL = (
    *("intervention", "source_layer", "layer", "layers", "head", "module", "position", "span"),
    *("alpha", "measured", "token", "samples", "mode", "direction"),
)
STATISTICS = ("mean", "median", "min", "max")
MEANS = ("plain", "log")


def build(rows: Sequence[Mapping], metadata: Mapping, also: Sequence[str] = ()) -> pd.DataFrame:
    """The tidy table of `rows`, with typed columns in schema order and `metadata` in its attrs.

    Label columns that no row gives are NA (`token` 0, `samples` 1, `status` "ok"); a divergence
    that no row gives has no column, unless `also` names it. Other keys become columns of their own,
    after the schema's.
    Metadata becomes plain JSON: tuples turn into lists, non-finite numbers into their names.
    """
    if not rows:
        raise InputError("a table needs at least one row; got none")
    given = dict.fromkeys([*(key for row in rows for key in row), *also])
    absent = [name for name in REQUIRED if name not in given]
    if absent:
        raise InputError(f"the rows have no {absent[0]!r}; every row names {', '.join(REQUIRED)}")
    known = {column.name: column for column in COLUMNS}
    series = {n: _typed(c, rows) for n, c in known.items() if n in given or c.unit in LABELS}
    series |= {name: _inferred(name, rows) for name in given if name not in known}
    floats = [name for name in also if name not in known and name not in LISTS]
    series |= {name: series[name].astype("float64") for name in floats}
    table = Table(series)
    table.attrs = {KEY: shared({str(k): plain(v, f"metadata[{k!r}]") for k, v in metadata.items()})}
    return table


def _typed(column: Column, rows: Sequence[Mapping]) -> pd.Series:
    values = [row.get(column.name, DEFAULTS.get(column.name)) for row in rows]
    try:
        if column.dtype == "string":
            return pd.Series([_text(value) for value in values], dtype="string")
        if column.dtype == "float64":  # by way of Float64, which takes None and NA as well
            return pd.Series(pd.array(values, dtype="Float64").to_numpy(float, na_value=np.nan))
        return pd.Series(values, dtype=column.dtype)  # type: ignore[call-overload]
    except (TypeError, ValueError) as error:
        raise InputError(f"column {column.name!r} holds {column.dtype} values: {error}") from error


def _inferred(name: str, rows: Sequence[Mapping]) -> pd.Series:
    series = pd.Series([row.get(name) for row in rows])
    return series if pd.api.types.is_float_dtype(series.dtype) else series.convert_dtypes()


def _text(value: object) -> str | None:
    if isinstance(value, tuple | list | range):
        return ",".join(map(str, value))
    # `pd.isna` would do, but costs a microsecond for each of the table's many labels
    return None if value is None or value is pd.NA or value != value else str(value)


def plain(value: object, place: str) -> object:
    """`value` as JSON can hold it: dict, list, str, int, float, bool or None."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{place}[{key!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{place}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, str | int | float):
        return value
    raise InputError(f"{place} is a {type(value).__name__}; give numbers, text, lists and dicts")


def metadata_of(table: pd.DataFrame) -> dict:
    """The metadata that travels with `table`; empty where the table has lost it."""
    return table.attrs.get(KEY, {})


def metrics(table: pd.DataFrame) -> list[str]:
    """The columns that a grid can show: every number that is no label."""
    labels = {column.name for column in COLUMNS if column.unit in LABELS}
    return [
        n
        for n in table.columns
        if n not in labels and pd.api.types.is_numeric_dtype(table[n].dtype)
    ]


def grid(
    table: pd.DataFrame,
    metric: str = "js",
    rows: str = "intervention",
    columns: str = "layer",
    *,
    statistic: str = "mean",
    mean: str = "plain",
) -> pd.DataFrame:
    """The table as a grid `[rows, columns]`: one number per cell, over prompts of equal weight.

    Example:
        >>> table = build(
        ...     [
        ...         {"prompt": p, "intervention": "last", "layer": layer, "js": js}
        ...         for p, layer, js in [("a", 7, 0.1), ("b", 7, 0.3), ("a", 0, 0.5), ("b", 0, 0.5)]
        ...     ],
        ...     {"unit": "nats", "layer_order": [7, 0]},
        ... )
        >>> print(grid(table).to_csv(float_format="%.1f"), end="")
        intervention,7,0
        last,0.2,0.5

    `metric` is a number column, `rows` and `columns` are label columns, `statistic` is mean,
    median, min or max. Both axes keep the order the user gave (metadata `layer_order`,
    `intervention_order`, …), else the order of appearance; a missing label reads "none". The unit
    is that of the metric. `mean="log"` averages log(x + 1e-9) over the tokens of a measured span,
    then over prompts, as Thought Anchors does (arXiv 2506.19143); it is for distances, such as `kl`
    and `js`. A value that is missing under a status other than "ok" leaves the mean,
    and a grid cell with nothing left is NaN.

    Raises:
        InputError: an unknown name; a value that is NaN although its status is "ok"; cells that
            would mix several tokens, heads, modules, positions, sample counts or layer sets.

    Limit: where some prompts have no value, cells average different prompts.
    """
    if statistic not in STATISTICS:
        raise unknown("statistic", statistic, STATISTICS)
    table, metric = averaged(table, metric, mean)
    long = cells(table, metric, rows, columns)
    values = long.groupby(["row", "column"], sort=False)["value"].agg(statistic)
    wide = pd.DataFrame(values.unstack("column")).reindex(
        index=pd.Index(_order(table, rows, long["row"]), name=rows),
        columns=pd.Index(_order(table, columns, long["column"]), name=columns),
    )
    wide.attrs = {KEY: {**metadata_of(table), "metric": metric, "statistic": statistic}}
    return wide


def averaged(table: pd.DataFrame, metric: str, mean: str) -> tuple[pd.DataFrame, str]:
    """The table and its column with the plain or logarithmic mean of a metric over tokens."""
    if mean not in MEANS:
        raise unknown("mean", mean, MEANS)
    if mean == "plain":
        return table, metric
    check(table, metric)
    if metric not in DISTANCES:
        raise unknown("metric of a logarithmic mean", metric, [m for m in DISTANCES if m in table])
    name = log_name(metric)
    if name in table:
        return table, name
    said = as_metadata([log_of(measure_of(table, metric))])
    made = table.assign(**{name: logarithm(numbers(table, metric))})
    known = metadata_of(table)
    made.attrs = {KEY: {**known, "measures": {**known.get("measures", {}), **said}}}
    return made, name


def cells(table: pd.DataFrame, metric: str, rows: str, columns: str) -> pd.DataFrame:
    """What a grid is made of: `row, column, prompt, value, status` per prompt and cell."""
    check(table, metric)
    _check_axes(table, metric, rows, columns)
    value, status = numbers(table, metric), table["status"].fillna("ok")
    refuse_nan(table, metric, value)
    long = pd.DataFrame({"row": _axis(table, rows), "column": _axis(table, columns)})
    long = long.assign(prompt=table["prompt"], value=value, status=status)
    _refuse_mixture(table, long, (rows, columns))
    return long


def with_layers(table: pd.DataFrame) -> pd.DataFrame:
    """The rows that stand for a layer; those that edit layers of their own have no place on it."""
    if "layer" not in table or table["layer"].notna().all():
        return table
    if table["layer"].isna().all():
        raise InputError(
            "every row of this table edits layers of its own, so nothing differs by layer; "
            "summary() lists the rows, and grid(rows=..., columns=...) takes two other columns"
        )
    return table[table["layer"].notna()]


def numbers(table: pd.DataFrame, metric: str) -> np.ndarray:
    """The values of a metric, one per row; NaN where the status says NA.

    NA means that there is nothing to measure: a number beside it would not be an effect.
    """
    value = table[metric].astype("Float64").to_numpy(float, na_value=np.nan)
    missing = table["status"].fillna("ok").str.startswith("NA").to_numpy(bool)
    return np.where(missing, np.nan, value)


def check(table: pd.DataFrame, metric: str) -> None:
    """Refuse what is no table with a row and this metric."""
    if not isinstance(table, pd.DataFrame):
        raise InputError(f"table is a {type(table).__name__}; give what sweep or open_run returns")
    absent = [name for name in (*REQUIRED, "status") if name not in table]
    if absent:
        raise InputError(f"this is no knockgrid table: it has no column {absent[0]!r}")
    if table.empty:
        raise InputError("the table has no rows; look at the filter that made it")
    if metric not in metrics(table):
        raise unknown("metric", metric, metrics(table))


def _check_axes(table: pd.DataFrame, metric: str, rows: str, columns: str) -> None:
    measures = {column.name for column in COLUMNS if column.unit not in LABELS}
    axes = [name for name in table.columns if name not in measures | {"status", metric}]
    for name, what in ((rows, "rows"), (columns, "columns")):
        if name not in axes:
            raise unknown(what, name, axes)
    if rows == columns:
        raise InputError(f"rows and columns are both {rows!r}; give two different columns")


def _axis(table: pd.DataFrame, name: str) -> pd.Series:
    labels = table[name].astype(object)
    if labels.isna().all():
        raise InputError(f"column {name!r} is empty in this table, so it cannot be an axis")
    return labels.where(labels.notna(), "none")


def _order(table: pd.DataFrame, name: str, labels: pd.Series) -> list:
    seen = dict.fromkeys(labels)
    wanted = metadata_of(table).get(f"{name}_order", [])
    return list(dict.fromkeys([label for label in wanted if label in seen] + list(seen)))


def refuse_nan(table: pd.DataFrame, metric: str, value: np.ndarray) -> None:
    """Refuse values that are NaN although their status is "ok" and the measure has no needs."""
    bad = np.isnan(value) & (table["status"].fillna("ok") == "ok").to_numpy(bool)
    if bad.any() and not measure_of(table, metric).needs:
        raise InputError(
            f"{metric!r} is NaN in {bad.sum()} rows whose status is 'ok', first at "
            f"{place_of(table, bad)}; filter these rows out, or give them a status that starts "
            "with 'NA' and says why"
        )


def place_of(table: pd.DataFrame, chosen: np.ndarray) -> str:
    """The labels of the first of some rows, in words."""
    row = table[chosen].iloc[0]
    shown = [name for name in ("prompt", *CELL) if name in row and pd.notna(row[name])]
    return ", ".join(f"{name} {_said(row[name])}" for name in shown if name != "samples")


def _said(label: object) -> str:
    return repr(label) if isinstance(label, str) else str(label)  # not "np.int64(3)"


def _refuse_mixture(table: pd.DataFrame, long: pd.DataFrame, axes: tuple[str, str]) -> None:
    valued = long["value"].notna()  # rows without a value enter no mean, and have 0 samples
    cell = [long["row"][valued], long["column"][valued]]
    # A position of the answer is measured at the token after it, wherever that is in each prompt.
    apart = {"token"} if "position" in axes else set[str]()
    for name in (name for name in CELL if name in table and name not in apart):
        if table.loc[valued, name].groupby(cell).nunique(dropna=False).max() > 1:
            raise InputError(_mixed(table, name))
    twice = long.duplicated(["row", "column", "prompt"], keep=False).to_numpy(bool)
    if twice.any():
        row = long[twice].iloc[0]
        same = [(long[name] == row[name]).to_numpy(bool) for name in ("row", "column", "prompt")]
        part = table[np.logical_and.reduce(same)]
        differ = [
            name for name in part if len(set(part[name].astype(str))) > 1 and name not in axes
        ]
        hint = f"they differ in {', '.join(differ)}" if differ else "they are equal"
        raise InputError(
            f"prompt {row['prompt']!r} has {len(part)} rows for {axes[0]} {row['row']!r}, "
            f"{axes[1]} {row['column']!r} ({hint}); keep one of them with a filter"
        )


def _mixed(table: pd.DataFrame, name: str) -> str:
    values = list(table[name].dropna().unique())
    some = some_of(list(map(str, values)))
    return (
        f"cells of this grid would mix several values of {name!r} ({some}); filter the table, as "
        f"in table[table[{name!r}] == {_said(values[0])}], or put {name!r} on an axis"
    )
