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

    Limit: what is confirmed holds for other prompts of these relations, which both halves have.
    """

    def key(prompt: str) -> str:
        return hashlib.sha256(f"{seed}/{prompt}".encode("utf-8", "replace")).hexdigest()

    sides = {str(one["id"]): one.get("relation") for one in metadata_of(table).get("prompts", [])}
    relations: dict[object, list[str]] = {}
    for prompt in dict.fromkeys(table["prompt"].astype(str)):
        relations.setdefault(sides.get(prompt), []).append(prompt)
    order = [p for members in relations.values() for p in sorted(members, key=key)]
    if len(order) < 2:
        raise InputError("halves need two prompts or more; this table has one")
    return only_prompts(table, order[::2]), only_prompts(table, order[1::2])
