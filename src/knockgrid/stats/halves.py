"""halves: one half of the prompts to find a claim on, the other to confirm it on."""

import hashlib

import pandas as pd

from knockgrid.errors import InputError
from knockgrid.table.table import metadata_of
from knockgrid.table.treatments import only_prompts


def halves(table: pd.DataFrame, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two tables with one half of the prompts of every relation each.

    The order within a relation is that of a digest of seed and prompt id, so that the halves do not
    depend on the order of the prompts, and a prompt stays in its half when others of another
    relation are added. Relations with an odd number give the odd one to either half in turn.

    Limit: both halves hold the same relations. What is confirmed holds for other prompts of these
    relations; whether it does for other relations, the intervals over relations say.
    """
    sides = {str(one["id"]): one.get("relation") for one in metadata_of(table).get("prompts", [])}
    relations: dict[object, list[str]] = {}
    for prompt in dict.fromkeys(table["prompt"].astype(str)):
        relations.setdefault(sides.get(prompt), []).append(prompt)
    parts: tuple[list[str], list[str]] = ([], [])
    first = 0
    for members in relations.values():
        for i, prompt in enumerate(sorted(members, key=lambda p: _key(seed, p))):
            parts[(first + i) % 2].append(prompt)
        first += len(members) % 2
    if not all(parts):
        raise InputError("halves need two prompts or more; this table has one")
    one, other = (only_prompts(table, part) for part in parts)
    return one, other


def _key(seed: int, prompt: str) -> str:
    return hashlib.sha256(f"{seed}/{prompt}".encode("utf-8", "replace")).hexdigest()
