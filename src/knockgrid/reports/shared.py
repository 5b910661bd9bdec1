"""shared: what two runs have in common, by what it is and not by its name alone."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

WHAT = ("kind", "window", "source")


class Shared(NamedTuple):
    """The ids of prompts that are the same in both runs, and of those that share the id only."""

    both: list[str]
    changed: list[str]
    differ: bool


def shared_prompts(one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> Shared:
    """Prompts are the same when id, text and spans are.

    Example:
        >>> a, b = ({"id": id, "text": "Rome", "spans": {}} for id in "ab")
        >>> shared_prompts([a, b], [a, {**b, "text": "Lima"}])
        Shared(both=['a'], changed=['b'], differ=True)
    """
    mine, theirs = ({str(side["id"]): _of(side) for side in sides} for sides in (one, other))
    ids = [id for id in mine if id in theirs]
    both = [id for id in ids if mine[id] == theirs[id]]
    changed = [id for id in ids if mine[id] != theirs[id]]
    return Shared(both, changed, mine != theirs)


def _of(side: Mapping[str, Any]) -> tuple[str, str]:
    return str(side.get("text")), json.dumps(side.get("spans"), sort_keys=True)


def other_edits(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Rows that have a name in common and are not the same edit, and in what they differ.

    Example:
        >>> row = {"name": "last", "kind": "knockout", "window": 1, "source": None}
        >>> other_edits({"interventions": [row]}, {"interventions": [{**row, "window": 5}]})
        ['last (window: 1 and 5)']
    """
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
    noise = "noise" in str(row.get("source") or "")
    sigma = [f"{name} {value:.4g}" for name, value in (metadata.get("sigma") or {}).items()]
    told = {name: "none" if row.get(name) is None else str(row[name]) for name in WHAT}
    return {**told, "noise": ", ".join(sigma) if noise and sigma else "none"}
