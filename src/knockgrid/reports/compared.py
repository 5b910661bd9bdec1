"""compared: two runs on one page, and in which settings they differ."""

from typing import Any

import pandas as pd

from knockgrid.errors import InputError
from knockgrid.figures import side_by_side
from knockgrid.figures.words import metric_label
from knockgrid.reports import told
from knockgrid.reports.cells import told_metrics
from knockgrid.reports.opened import Opened
from knockgrid.reports.payload import payload
from knockgrid.reports.pictures import Picture, inline
from knockgrid.reports.shared import Shared, other_edits, shared_prompts

OWN = ("started", "begun_by", "finished", "config_digest", "run_digest", "rows", "compact")
"""Entries of the section Run that differ between any two runs."""
SAME = ("unit", "direction", "mode")
"""Settings without which numbers do not measure one thing."""


def compared(one: Opened, other: Opened) -> dict[str, Any]:
    """What the page that compares two runs shows."""
    runs = [one, other]
    prompts = shared_prompts(one.prompts, other.prompts)
    empty = one.table is None or other.table is None
    refused = "" if empty else _refused(one, other, prompts)
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
            for letter, run in zip("AB", runs, strict=True)
        ],
        "notes": _notes(one, other, prompts),
        "differing": differing(one, other),
        "pictures": [] if empty else [_picture(one, other, prompts, refused)],
        "data": {
            "runs": [None if run.table is None else payload(run, prompts=False) for run in runs],
            "refused": refused,
        },
    }


def _refused(one: Opened, other: Opened, prompts: Shared) -> str:
    """Why numbers of the two cannot be subtracted; empty where they can."""
    differ = [key for key in SAME if one.metadata.get(key) != other.metadata.get(key)]
    if differ:
        return f"The runs differ in {' and '.join(differ)}, so nothing is subtracted."
    if not prompts.both:
        return "The runs share no prompt, so nothing is subtracted."
    if not _metrics(one, other):
        return "The runs share no metric, so nothing is subtracted."
    return ""


def _metrics(one: Opened, other: Opened) -> list[str]:
    """The metrics of both, in the order of the first."""
    if one.table is None or other.table is None:
        return []
    theirs = told_metrics(other.table)
    return [name for name in told_metrics(one.table) if name in theirs]


def _notes(one: Opened, other: Opened, prompts: Shared) -> list[str]:
    """What makes the difference of means mean less."""
    if one.table is None or other.table is None:
        return ["One of the runs has no rows, so there is nothing to compare."]
    found = []
    if prompts.differ:
        found.append(
            f"The prompts differ: A has {len(one.prompts)}, B {len(other.prompts)}, and "
            f"{len(prompts.both)} {'is' if len(prompts.both) == 1 else 'are'} in both. "
            "Means are over each run's own prompts."
        )
    if prompts.changed:
        n, some = len(prompts.changed), ", ".join(prompts.changed[:4])
        found.append(
            f"Of these, {n} {'has' if n == 1 else 'have'} the same id but another text or other "
            f"spans ({some}{', …' if n > 4 else ''}) and {'is' if n == 1 else 'are'} not in both."
        )
    for key in SAME:
        a, b = one.metadata.get(key), other.metadata.get(key)
        if a != b:
            found.append(f"The {key} differs ({a} and {b}); the numbers cannot be subtracted.")
    edits = other_edits(one.metadata, other.metadata)
    if edits:
        told_edits = ", ".join(edits[: told.LONGEST])
        found.append(
            f"Rows of one name are other edits: {told_edits}. Their numbers are not of "
            "one measurement."
        )
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


def _picture(one: Opened, other: Opened, prompts: Shared, refused: str) -> Picture:
    """Both runs and their difference, which is paired by prompts that are the same in both."""
    title = "Both runs and their difference"
    if refused or one.table is None or other.table is None:
        return Picture(title, "", refused)
    metric = _metrics(one, other)[0]
    title = f"{title}: {metric_label(one.table, metric).removeprefix('Avg. ')}"
    if any(run.metadata.get("n_tokens", 1) > 1 for run in (one, other)):
        title += ", at the first token after the prompt"
    tables = {
        letter: _first_token(_own_ids(table, prompts, letter))
        for letter, table in (("A", one.table), ("B", other.table))
    }
    try:
        drawn = side_by_side(tables, metric=metric)
    except InputError as error:
        return Picture(title, "", str(error))
    return Picture(title, inline(drawn, title, "both"), "")


def _first_token(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the first token; those of positions of the answer are at tokens of their own."""
    return table[(table["token"] == 0) | table["position"].notna()]


def _own_ids(table: pd.DataFrame, prompts: Shared, letter: str) -> pd.DataFrame:
    """Prompts of the same id that are not the same get ids that pair with none."""
    if not prompts.changed:
        return table
    ids = table["prompt"].astype(object)
    own = ids.where(~ids.isin(prompts.changed), ids + f" ({letter})")
    made = table.assign(prompt=own.astype(table["prompt"].dtype))
    made.attrs = {**table.attrs}
    return made
