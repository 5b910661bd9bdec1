"""The two sides of a comparison: interventions, groups or tables, on the same cells."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from knockgrid.errors import InputError, some_of, unknown
from knockgrid.table.by_prompt import ByPrompt, by_prompt
from knockgrid.table.metadata import check_same_scale
from knockgrid.table.table import metadata_of

Tables = pd.DataFrame | Mapping[str, pd.DataFrame]
KINDS = ("intervention", "group", "table")


class Sides(NamedTuple):
    """Values `[prompt, cell]` of both sides on the same cells, and the table with their prompts."""

    kind: str
    table: pd.DataFrame
    cells: pd.DataFrame
    one: ByPrompt
    other: ByPrompt


def sides(tables: Tables, one: str, other: object, metric: str, of: str | None) -> Sides:
    """Both sides of a comparison, cut to the cells, and checked."""
    if not isinstance(other, str) or other.strip() in ("0", "0.0", ""):
        raise InputError(
            f"a test of {metric!r} against {other!r} is refused: a divergence is never negative, "
            "so its mean lies above 0 whatever was edited, by rounding alone, and rejecting 0 says "
            "nothing; give a control, such as a knockout of tokens outside the subject"
        )
    kind = of or _kind(tables, one, other)
    if kind not in KINDS:
        raise unknown("of", kind, KINDS)
    if one == other:
        raise InputError(f"both sides are {one!r}; give two different ones")
    parts = [_part(tables, str(name), kind) for name in (one, other)]
    check_same_scale(metadata_of(part) for part in parts)
    found = [by_prompt(part, metric) for part in parts]
    # Interventions at one layer edit other sets of layers, and are compared all the same.
    apart = ["layers", *(_own(found) if kind == "intervention" else [])]
    keys = [made.cells.drop(columns=apart, errors="ignore") for made in found]
    return Sides(kind, parts[0], keys[0].dropna(axis=1, how="all"), *_aligned(found, keys))


def _own(found: list[ByPrompt]) -> list[str]:
    """Labels that belong to the interventions, not to their cells: a patch's dose, one head."""
    one, other = (
        {str(n): str(c.iloc[0]) for n, c in made.cells.items() if c.nunique(dropna=False) == 1}
        for made in found
    )
    shared = set(one) & set(other) - {"layer", "token"}
    return [name for name in shared if one[name] != other[name]]


def _aligned(found: list[ByPrompt], keys: list[pd.DataFrame]) -> tuple[ByPrompt, ByPrompt]:
    listed = [[tuple(map(str, row)) for row in key.itertuples(index=False)] for key in keys]
    if any(len(set(cells)) < len(cells) for cells in listed):
        raise InputError("a layer stands for several layer sets; keep one with a filter")
    differ = set(listed[0]) ^ set(listed[1])
    if differ:
        first = next(cell for cell in [*listed[0], *listed[1]] if cell in differ)
        labels = zip(keys[0], first, strict=True)
        told = ", ".join(f"{n} {v}" for n, v in labels if v not in ("None", "nan"))
        raise InputError(
            f"{len(differ)} cells are on one side only (first {told}); sweep the same cells on "
            "both sides, or filter the table"
        )
    order = [listed[1].index(cell) for cell in listed[0]]
    second = found[1]
    moved = ByPrompt(second.prompts, second.cells.iloc[order], second.values[:, order])
    return found[0], moved


def _kind(tables: Tables, one: str, other: object) -> str:
    if isinstance(tables, Mapping):
        return "table"
    names = {kind: set(tables[kind].dropna()) for kind in ("intervention", "group")}
    fits = [kind for kind, known in names.items() if {one, other} <= known]
    if len(fits) == 2:
        raise InputError(f"{one!r} and {other!r} are interventions and groups; say which in `of`")
    return fits[0] if fits else ("group" if names["group"] & {one, other} else "intervention")


def _part(tables: Tables, name: str, kind: str) -> pd.DataFrame:
    if isinstance(tables, Mapping):
        if kind != "table" or name not in tables:
            raise unknown("table", name, tables)
        return tables[name]
    if kind == "table":
        raise InputError("to compare two tables, give a mapping from name to table")
    known = [str(one) for one in tables[kind].dropna().unique()]
    if name not in known:
        raise unknown(kind, name, known)
    return tables[(tables[kind] == name).fillna(False).to_numpy(bool)]


def differences(made: Sides) -> np.ndarray:
    """One minus the other, prompt by prompt, `[prompt, cell]`."""
    for given, lacks, side in (
        (made.one.prompts, "other", made.other),
        (made.other.prompts, "first", made.one),
    ):
        absent = [p for p in given if p not in set(side.prompts)]
        if absent:
            raise InputError(
                f"a paired test needs the same prompts on both sides; the {lacks} side lacks "
                f"{len(absent)}: {some_of(absent)}; filter them out of both, and say how many were "
                "left out"
            )
    place = {prompt: i for i, prompt in enumerate(made.other.prompts)}
    return made.one.values - made.other.values[[place[prompt] for prompt in made.one.prompts]]
