"""compared: two runs on one page, and in which settings they differ."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import pandas as pd

from knockgrid.figures import side_by_side
from knockgrid.figures.words import metric_label
from knockgrid.reports.cells import told_metrics
from knockgrid.reports.draw import Picture, picture
from knockgrid.reports.opened import Opened
from knockgrid.reports.page_text import LONGEST, headline, settings, warnings_of
from knockgrid.reports.payload import payload

OWN = ("started", "begun_by", "finished", "config_digest", "run_digest", "rows", "compact")
"""Entries of the section Run that differ between any two runs."""
SAME = ("unit", "temperature", "direction", "mode")
"""Settings without which numbers do not measure one thing."""


def compared(one: Opened, other: Opened) -> dict[str, Any]:
    """What the page that compares two runs shows."""
    runs = dict(zip("AB", (one, other), strict=True))
    tables = {letter: run.table for letter, run in runs.items() if run.table is not None}
    refused, drawn = "", []
    notes = ["One of the runs has no rows, so there is nothing to compare."]
    if len(tables) == 2:
        prompts = shared_prompts(one.prompts, other.prompts)
        metrics = [m for m in told_metrics(tables["A"]) if m in told_metrics(tables["B"])]
        refused, notes = _refused(one, other, prompts, metrics), _notes(one, other, prompts)
        title = "Both runs and their difference"
        drawn = [Picture(title, "", refused)]
        if not refused:
            title += f": {metric_label(tables['A'], metrics[0]).removeprefix('Avg. ')}"
            if any(one["token"].nunique() > 1 for one in tables.values()):
                title += ", at the first token after the prompt"
            parts = {letter: _comparable(t, prompts, letter) for letter, t in tables.items()}
            drawn = [picture(title, "both", partial(side_by_side, parts, metric=metrics[0]))]
    return {
        "title": f"{one.name} and {other.name} – knockgrid report",
        "runs": [
            {
                "letter": letter,
                "name": run.name,
                "headline": headline(run),
                "warnings": list(warnings_of(run)),
                "has_rows": letter in tables,
            }
            for letter, run in runs.items()
        ],
        "notes": notes,
        "differing": differing(one, other),
        "pictures": drawn,
        "data": {
            "runs": [payload(runs[k], prompts=False) if k in tables else None for k in runs],
            "refused": refused,
        },
    }


class Shared(NamedTuple):
    """The ids of prompts that are the same in both runs, and of those that share the id only."""

    both: list[str]
    changed: list[str]
    differ: bool


def shared_prompts(one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> Shared:
    """Prompts are the same when id, text and spans are."""
    mine, theirs = (
        {
            str(side["id"]): (str(side.get("text")), json.dumps(side.get("spans"), sort_keys=True))
            for side in sides
        }
        for sides in (one, other)
    )
    ids = [id for id in mine if id in theirs]
    both = [id for id in ids if mine[id] == theirs[id]]
    return Shared(both, [id for id in ids if id not in both], mine != theirs)


def _refused(one: Opened, other: Opened, prompts: Shared, metrics: Sequence[str]) -> str:
    """Why numbers of the two cannot be subtracted; empty where they can."""
    differ = [key for key in SAME if one.metadata.get(key) != other.metadata.get(key)]
    if differ:
        return f"The runs differ in {' and '.join(differ)}, so nothing is subtracted."
    if not prompts.both:
        return "The runs share no prompt, so nothing is subtracted."
    return "" if metrics else "The runs share no metric, so nothing is subtracted."


def _notes(one: Opened, other: Opened, prompts: Shared) -> list[str]:
    """What makes the difference of means mean less."""
    found = []
    if prompts.differ:
        n = len(prompts.both)
        found.append(
            f"The prompts differ: A has {len(one.prompts)}, B {len(other.prompts)}, and {n} "
            f"{'is' if n == 1 else 'are'} in both. Means are over each run's own prompts."
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
    edits = _other_edits(one.metadata, other.metadata)
    if edits:
        found.append(
            f"Rows of one name are other edits: {', '.join(edits[:LONGEST])}. Their numbers are "
            "not of one measurement."
        )
    return found


def _other_edits(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Rows that have a name in common and are not the same edit, and in what they differ."""
    theirs = {row["name"]: _edit(row, other) for row in other.get("interventions", [])}
    found = []
    for row in one.get("interventions", []):
        mine, yours = _edit(row, one), theirs.get(row["name"])
        if yours is not None and mine != yours:
            what = [f"{k}: {mine[k]} and {yours[k]}" for k in mine if mine[k] != yours[k]]
            found.append(f"{row['name']} ({'; '.join(what)})")
    return found


def _edit(row: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, str]:
    """What a row does; noise is as strong as the run's embeddings make it."""
    sigma = [f"{name} {value:.4g}" for name, value in (metadata.get("sigma") or {}).items()]
    told = {key: row.get(key) for key in ("kind", "window", "source")}
    told["noise"] = ", ".join(sigma) or None if "noise" in str(row.get("source")) else None
    return {key: "none" if value is None else str(value) for key, value in told.items()}


def differing(one: Opened, other: Opened) -> list[tuple[str, str, str]]:
    """The settings that are not the same, with both values."""
    first, second = (
        {
            name if section == "Run" else f"{section}.{name}": value
            for section, entries in settings(run)
            for name, value in entries
            if not (section == "Run" and name in OWN)
        }
        for run in (one, other)
    )
    return [
        (name, first.get(name, "–"), second.get(name, "–"))
        for name in {**first, **second}
        if first.get(name) != second.get(name)
    ]


def _comparable(table: pd.DataFrame, prompts: Shared, letter: str) -> pd.DataFrame:
    """The rows of the first token, of which only prompts that are the same in both runs pair.

    Positions of the answer are measured at tokens of their own. Prompts of the same id that are
    not the same get ids that pair with none.
    """
    ids = table["prompt"].astype(object)
    own = ids.where(~ids.isin(prompts.changed), ids + f" ({letter})")
    made = table.assign(prompt=own.astype(table["prompt"].dtype))
    made.attrs = {**table.attrs}
    return made[(made["token"] == 0) | made["position"].notna()]
