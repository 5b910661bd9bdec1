"""Summary: what a table is, in a glance: model, prompts, rows, layers, unit, what is missing."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd

from knockgrid.display.listing import listing
from knockgrid.errors import InputError
from knockgrid.table.floor import floor_of
from knockgrid.table.table import COLUMNS, REQUIRED, metadata_of, metrics

FEW = 6


@dataclass(frozen=True)
class Summary:
    """What a table says of itself; it shows itself as text and in a notebook."""

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
    told = {**_of_model(table), **_of_rows(table), **_of_what_is_missing(table), **_of_trust(table)}
    return Summary(tuple((name, value) for name, value in told.items() if value))


def _of_model(table: pd.DataFrame) -> dict[str, str]:
    model = metadata_of(table).get("model") or {}
    about = [str(model[k]) for k in ("architecture", "dtype", "device") if k in model]
    size = [f"{model['n_layers']} layers"] if "n_layers" in model else []
    name = str(model.get("name", ""))
    return {"model": f"{name} ({', '.join([*size, *about])})" if name else ""}


def _of_rows(table: pd.DataFrame) -> dict[str, str]:
    names = [str(name) for name in table["intervention"].dropna().unique()]
    layers = sorted(int(layer) for layer in table["layer"].dropna().unique())
    valued = int((_status(table) == "ok").sum())
    described = metadata_of(table).get("interventions") or []
    there = [one for one in described if one["name"] in names and one["source"] is not None]
    tokens = table["token"].nunique() if "token" in table else 1
    return {
        "prompts": f"{table['prompt'].nunique()}",
        "rows": f"{len(names)}: {_some(names)}",
        "layers": f"{len(layers)}: {_some(_ranges(layers))}",
        "tokens": f"{tokens}" if tokens > 1 else "",
        "sources": _some(list(dict.fromkeys(str(one["source"]) for one in there))),
        "values": f"{valued}: {'; '.join(_units(table))}",
    }


def _of_what_is_missing(table: pd.DataFrame) -> dict[str, str]:
    metadata = metadata_of(table)
    reasons = Counter(str(one) for one in _status(table) if one != "ok")
    # rows that a filter took away are not told of; those that no prompt could enter are
    there, n = set(table["intervention"]), len(metadata.get("prompts", ()))
    given = (metadata.get("dropped") or {}).items()
    lost = {name: some for name, some in given if some and (name in there or len(some) == n)}
    dropped = {str(p) for some in lost.values() for p in some}
    why = {why for some in lost.values() for why in some.values()}
    failed, unfinished = metadata.get("failed") or {}, metadata.get("unfinished") or {}
    done = "{finished} of {shards} shards are there".format(**unfinished) if unfinished else ""
    return {
        "without a value": _some([f"{n} ({reason})" for reason, n in reasons.items()]),
        "dropped": f"{_prompts(dropped)}, from {_some(list(lost))} ({_some(sorted(map(str, why)))})"
        if dropped
        else "",
        "failed": f"{_prompts(failed)}: {_some(list(map(str, failed)))}" if failed else "",
        "unfinished": done,
    }


def _of_trust(table: pd.DataFrame) -> dict[str, str]:
    floor = floor_of(table, "js")
    receipt = metadata_of(table).get("receipt") or {}
    return {
        "noise floor": "" if floor is None else f"JS {_span(floor)} {_unit(table)}",
        "executor": str(receipt.get("executor", "")),
    }


def _units(table: pd.DataFrame) -> list[str]:
    """The measures with the unit of each: only some have that of the table.

    Example:
        >>> _units(pd.DataFrame({"js": [0.1], "tv": [0.1], "rank_clean": [0.0]}))
        ['js in an unknown unit', 'tv as fractions', 'rank_clean as ranks']
    """
    units = {column.name: column.unit for column in COLUMNS}
    said = {"information": f" in {_unit(table)}", "fraction": " as fractions", "rank": " as ranks"}
    kinds: dict[str, list[str]] = {}
    for name in metrics(table):
        kinds.setdefault(said.get(units.get(name, ""), ""), []).append(name)
    return [f"{', '.join(names)}{unit}" for unit, names in kinds.items()]


def _unit(table: pd.DataFrame) -> str:
    return metadata_of(table).get("unit", "an unknown unit")


def _span(values: np.ndarray) -> str:
    """The smallest and the largest number, to two digits.

    Example:
        >>> _span(np.array([0.25, np.nan, 0.31])), _span(np.array([0.25]))
        ('0.25 to 0.31', '0.25')
    """
    ends = [f"{end:.2g}" for end in (np.nanmin(values), np.nanmax(values))]
    return " to ".join(dict.fromkeys(ends))


def _status(table: pd.DataFrame) -> pd.Series:
    if "status" not in table:
        return pd.Series("ok", index=table.index)
    return table["status"].fillna("ok")


def _prompts(some: Collection[str]) -> str:
    return f"{len(some)} prompt{'s' * (len(some) != 1)}"


def _some(names: list[str]) -> str:
    """The first of some names, and how many there are besides.

    Example:
        >>> _some(list("abcdefgh"))
        'a, b, c, d, e, f and 2 more'
    """
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return ", ".join(names[:FEW]) + more


def _ranges(numbers: list[int]) -> list[str]:
    """Ascending numbers, those that follow each other as one.

    Example:
        >>> _ranges([0, 1, 2, 5, 7, 8])
        ['0-2', '5', '7-8']
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return [str(one[0]) if len(one) == 1 else f"{one[0]}-{one[-1]}" for one in runs]
