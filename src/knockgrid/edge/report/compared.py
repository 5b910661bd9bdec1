"""compared: two runs on one page, and in which settings they differ."""

from typing import Any

from knockgrid._errors import InputError
from knockgrid._table import metadata_of
from knockgrid.edge.report import told
from knockgrid.edge.report.opened import Opened
from knockgrid.edge.report.payload import payload
from knockgrid.edge.report.pictures import Picture, inline
from knockgrid.figures import side_by_side

OWN = ("started", "begun_by", "finished", "config_digest", "run_digest", "rows", "compact")
"""Entries of the section Run that differ between any two runs."""


def compared(one: Opened, other: Opened) -> dict[str, Any]:
    """What the page that compares two runs shows."""
    runs = [one, other]
    names = ["A", "B"]
    notes = _notes(one, other)
    data = [None if run.table is None else payload(run, prompts=False) for run in runs]
    return {
        "title": f"{one.name} and {other.name} – knockgrid report",
        "runs": [
            {
                "letter": letter,
                "name": run.name,
                "headline": told.headline(run),
                "warnings": list(told.warnings_of(run)),
                "has_rows": run.table is not None,
            }
            for letter, run in zip(names, runs, strict=True)
        ],
        "notes": notes,
        "differing": differing(one, other),
        "pictures": _pictures(one, other),
        "data": {"runs": data, "comparable": not any("subtracted" in one for one in notes)},
    }


def _notes(one: Opened, other: Opened) -> list[str]:
    """What makes the difference of means mean less."""
    if one.table is None or other.table is None:
        return ["One of the runs has no rows, so there is nothing to compare."]
    found = []
    mine, theirs = ({str(side["id"]) for side in run.prompts} for run in (one, other))
    shared = len(mine & theirs)
    if mine != theirs:
        found.append(
            f"The prompts differ: A has {len(mine)}, B {len(theirs)}, and {shared} are in both. "
            "Means are over each run's own prompts."
        )
    for key in ("unit", "direction", "mode"):
        a, b = metadata_of(one.table).get(key), metadata_of(other.table).get(key)
        if a != b:
            found.append(f"The {key} differs ({a} and {b}); the numbers cannot be subtracted.")
    return found


def differing(one: Opened, other: Opened) -> list[tuple[str, str, str]]:
    """The settings that are not the same, with both values."""
    both = []
    for run in (one, other):
        sections = told.settings(run)
        both.append(
            {
                name if section == "Run" else f"{section}.{name}": value
                for section, entries in sections
                for name, value in entries
                if not (section == "Run" and name in OWN)
            }
        )
    first, second = both
    return [
        (name, first.get(name, "–"), second.get(name, "–"))
        for name in {**first, **second}
        if first.get(name) != second.get(name)
    ]


def _pictures(one: Opened, other: Opened) -> list[Picture]:
    if one.table is None or other.table is None:
        return []
    title = "Both runs and their difference"
    try:
        drawn = side_by_side({"A": one.table, "B": other.table})
    except InputError as error:
        return [Picture(title, "", str(error))]
    return [Picture(title, inline(drawn, title, "both"), "")]
