"""Summary: what a table is, in a glance: model, prompts, rows, layers, unit, what is missing."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from knockgrid.display.listing import listing
from knockgrid.errors import InputError, some_of
from knockgrid.table.floor import floor_of
from knockgrid.table.metadata import scale_of
from knockgrid.table.table import COLUMNS, REQUIRED, metadata_of, metrics

FEW = 6


@dataclass(frozen=True)
class Summary:
    """What a table says of itself, as text and in a notebook."""

    entries: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        column = max(len(name) for name, _ in self.entries)
        return "\n".join(f"{name:{column}}  {value}" for name, value in self.entries)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return listing("knockgrid table", self.entries)


def summary(table: pd.DataFrame) -> Summary:
    """What a table holds and what it lacks, before it is read as a figure.

    Example:
        >>> row = {"prompt": "rome", "intervention": "subject", "layer": 3, "js": 0.4}
        >>> table = pd.DataFrame([{**row, "status": "ok"}])
        >>> table.attrs = {"knockgrid": {"unit": "nats"}}
        >>> print(summary(table))
        prompts  1
        rows     1: subject
        layers   1: 3
        values   1: js in nats

    The counts are those of the rows that are there, so those of a filtered table too; model,
    executor and noise floor are those of the sweep. A dropped prompt has no row in an intervention,
    a row without a value says in `status` why, and a failed prompt is not in the table at all.

    Raises:
        InputError: no table of knockgrid's.
    """
    for name in REQUIRED:
        if name not in table:
            raise InputError(f"this is no knockgrid table: it has no column {name!r}")
    told = {**_of_rows(table), **_of_what_is_missing(table)}
    floor = floor_of(table, "js")
    if floor is not None:
        ends = dict.fromkeys(f"{end:.2g}" for end in (np.nanmin(floor), np.nanmax(floor)))
        told["noise floor"] = f"JS {' to '.join(ends)} {_unit(table)}"
    told["executor"] = str((metadata_of(table).get("receipt") or {}).get("executor", ""))
    return Summary(tuple((name, value) for name, value in told.items() if value))


def _of_rows(table: pd.DataFrame) -> dict[str, str]:
    metadata = metadata_of(table)
    model = metadata.get("model") or {}
    about = [str(model[k]) for k in ("architecture", "dtype", "device") if k in model]
    size = [f"{model['n_layers']} layers"] if "n_layers" in model else []
    names = [str(name) for name in table["intervention"].dropna().unique()]
    layers = table["layer"].dropna().unique().astype(int).tolist()
    described = metadata.get("interventions") or []
    there = [one for one in described if one["name"] in names and one["source"] is not None]
    tokens = table["token"].nunique() if "token" in table else 1
    spans = table["measured"].nunique() if "measured" in table else 0
    return {
        "model": f"{model['name']} ({', '.join([*size, *about])})" if model.get("name") else "",
        "prompts": f"{table['prompt'].nunique()}",
        "rows": f"{len(names)}: {_some(names)}",
        "layers": f"{len(layers)}: {_some(ranges(layers, '-').split(', '))}"
        if layers
        else "their own",
        "measured": f"{spans} spans" if spans else "",
        "tokens": f"{tokens}" if tokens > 1 else "",
        "sources": _some(dict.fromkeys(str(one["source"]) for one in there)),
        "values": f"{int((_status(table) == 'ok').sum())}: {_units(table)}",
    }


def _of_what_is_missing(table: pd.DataFrame) -> dict[str, str]:
    metadata = metadata_of(table)
    reasons = Counter(str(one) for one in _status(table) if one != "ok")
    # rows that a filter took away are not told of; those that no prompt could enter are
    there, n = set(table["intervention"]), len(metadata.get("prompts", ()))
    given = (metadata.get("dropped") or {}).items()
    lost = {name: some for name, some in given if some and (name in there or len(some) == n)}
    dropped = {str(p) for some in lost.values() for p in some}
    why = _some(sorted({str(why) for some in lost.values() for why in some.values()}))
    failed, unfinished = metadata.get("failed") or {}, metadata.get("unfinished") or {}
    return {
        "without a value": _some([f"{n} ({reason})" for reason, n in reasons.items()]),
        "dropped": f"{_prompts(dropped)}, from {_some(lost)} ({why})" if dropped else "",
        "failed": f"{_prompts(failed)}: {_some(map(str, failed))}" if failed else "",
        "unfinished": "{finished} of {shards} shards are there".format(**unfinished)
        if unfinished
        else "",
    }


def _units(table: pd.DataFrame) -> str:
    """The measures with the unit of each: only some have that of the table."""
    units = {column.name: column.unit for column in COLUMNS}
    said = {"information": f" in {_unit(table)}", "fraction": " as fractions", "rank": " as ranks"}
    said["percent"] = " in percent"
    kinds: dict[str, list[str]] = {}
    for name in metrics(table):
        kinds.setdefault(said.get(units.get(name, ""), ""), []).append(name)
    return "; ".join(f"{', '.join(names)}{unit}" for unit, names in kinds.items())


def _unit(table: pd.DataFrame) -> str:
    return scale_of(metadata_of(table))


def _status(table: pd.DataFrame) -> pd.Series:
    if "status" not in table:
        return pd.Series("ok", index=table.index)
    return table["status"].fillna("ok")


def _prompts(some: Collection[str]) -> str:
    return f"{len(some)} prompt{'s' * (len(some) != 1)}"


def _some(names: Iterable[str]) -> str:
    return some_of(list(names), most=FEW)


def ranges(numbers: Iterable[int], dash: str = "–") -> str:
    """Numbers in ascending order, with runs of neighbours drawn together: 0–2, 5."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{r[0]}{dash}{r[-1]}" if len(r) > 1 else str(r[0]) for r in runs)
