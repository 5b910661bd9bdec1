"""Metadata of tables: neither copied at every step of pandas nor dropped when it joins tables.

A deep copy of an entry per prompt, at each filter or indexed row, took two thirds of the time of
intervals and tests. Lists and dicts are therefore handed on as they are: they are written once,
when a table is built or read, and never changed.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from knockgrid.errors import InputError

KEY = "knockgrid"  # of the metadata, in DataFrame.attrs and in the Parquet schema
LABELLED = ("mode", "direction")
"""Entries that tables may differ in only where a column says which row is of which."""


class Shared:
    """What a deep copy hands on."""

    def __deepcopy__(self, memo: dict) -> Any:
        return self


class SharedList(Shared, list):
    """A list that a deep copy hands on."""


class SharedDict(Shared, dict):
    """A dict that a deep copy hands on."""


def shared(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata whose lists and dicts are handed on when pandas copies the table."""
    kinds = {list: SharedList, dict: SharedDict}
    return {key: kinds.get(type(value), lambda v: v)(value) for key, value in metadata.items()}


def exact_counts(by: Iterable[str | None]) -> dict[str, Any]:
    """Whose exact answers those of some prompts are, and how many prompts have none."""
    every = list(by)
    found = Counter(one for one in every if one is not None)
    said = ", ".join(f"{name} {n}" for name, n in found.most_common())
    return {"exact_from": said, "exact_empty": len(every) - found.total()}


class Table(pd.DataFrame):
    """A data frame that keeps its metadata when pandas puts several together.

    What the tables agree in is kept, lists and orders are joined, the rest is left out. The unit
    must be the same, and so must mode and direction unless they are columns.
    """

    @property
    def _constructor(self) -> Callable[..., "Table"]:
        return Table

    def __finalize__(self, other: Any, method: str | None = None, **more: Any) -> "Table":
        parent: Any = super()
        made = parent.__finalize__(other, method=method, **more)
        tables = _put_together(other, method)
        if tables:
            below = method == "concat" and len(self.columns) < sum(len(t.columns) for t in tables)
            whole = _joined([t.attrs[KEY] for t in tables], self.columns if below else LABELLED)
            made.attrs = {**tables[0].attrs, KEY: shared(whole)}
        return made


def _put_together(other: Any, method: str | None) -> list[pd.DataFrame]:
    """The tables with metadata that pandas puts together; pandas 2 has other names for them."""
    if isinstance(other, pd.DataFrame | pd.Series):  # which may have columns of these names
        return []
    given = getattr(other, "input_objs", None) or getattr(other, "objs", None)
    if given is None and method and "merge" in method:
        given = [other.left, other.right]
    given = list(given.values()) if isinstance(given, Mapping) else given
    return [one for one in given or () if KEY in getattr(one, "attrs", {})]


def _joined(several: Sequence[Mapping[str, Any]], columns: Collection[str]) -> dict[str, Any]:
    """The metadata of tables that were put together, whose rows these columns tell apart."""
    first, *rest = several
    if all(one is first or one == first for one in rest):
        return dict(first)
    check_same_scale([one for one in several if "unit" in one])
    for name in LABELLED:
        found = list(dict.fromkeys(str(one[name]) for one in several if name in one))
        if len(found) > 1 and name not in columns:
            raise InputError(
                f"the tables differ in {name} ({', '.join(found)}); say which row is of which "
                f"first, as in table.assign({name}={found[0]!r})"
            )
    return _agreed(several)


def scale_of(metadata: Mapping[str, Any]) -> str:
    """The unit of measured values and the temperature that they were taken at."""
    return f"{metadata.get('unit', 'an unknown unit')}{at_temperature(metadata)}"


def at_temperature(metadata: Mapping[str, Any]) -> str:
    """The temperature of the measured distributions, where it is not the model's own."""
    temperature = metadata.get("temperature", 1.0)
    return "" if temperature == 1 else f" at T = {temperature:g}"


def check_same_scale(several: Iterable[Mapping[str, Any]]) -> None:
    """Refuse tables whose values are not of one unit and one temperature."""
    scales = list(dict.fromkeys(map(scale_of, several)))
    if len(scales) > 1:
        raise InputError(
            f"the tables are in {' and '.join(scales)}; sweep both in one unit and at one "
            "temperature"
        )


def _agreed(several: Sequence[Mapping[str, Any]], highest: bool = False) -> dict[str, Any]:
    """What dicts agree in; their lists are joined, and of noise floors the highest counts."""
    found: dict[str, Any] = {}
    for key in dict.fromkeys(key for one in several for key in one):
        values = [one[key] for one in several if key in one]
        if all(value is values[0] or value == values[0] for value in values[1:]):
            found[key] = values[0]
        elif all(isinstance(value, Mapping) for value in values):
            found[key] = _agreed(values, highest or key == "noise_floor")
        elif all(isinstance(value, list) for value in values):
            known: dict[Any, Any] = {}
            for entry in (entry for value in values for entry in value):
                known.setdefault(_name(entry), entry)
            found[key] = list(known.values())
        elif (highest or key == "noise_floor") and all(isinstance(v, float | int) for v in values):
            found[key] = max(values)
    return found


def _name(entry: Any) -> Any:
    """What an entry of a list is known by."""
    if isinstance(entry, Mapping):
        return entry.get("id"), entry.get("name")
    return entry if isinstance(entry, str | int | float) else str(entry)
