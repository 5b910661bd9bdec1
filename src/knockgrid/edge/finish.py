"""Finish: what can be said of a run only when all of its shards are there."""

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from knockgrid.edge.digests import file_digest, footer_digest
from knockgrid.edge.run_folder import LABELS, PLAN, SHARDS, SIDES, STATISTICS, RunFolder
from knockgrid.edge.sides import write_sides

IN_HAND = 600
"""Seconds in which a process that lives has given a complete file its name."""


def finish(folder: RunFolder) -> None:
    """Write the side table, and the manifest that vouches for every file of the run.

    Any process may do it, and a second one writes the same but for the time. Where the manifest
    already vouches for what is there, nothing is written.
    """
    manifest = folder.manifest
    remove_leftovers(folder.path, folder.path / SHARDS)
    if manifest["finished"] and files_of(folder) == manifest["digests"]["files"]:
        return
    abouts = list(folder.abouts(manifest))
    order = {id: i for i, id in enumerate(one.id for one in folder.plan().prompts)}
    whole = merged(abouts)
    sides = sorted((side for one in abouts for side in one["sides"]), key=lambda s: order[s["id"]])
    write_sides(sides, folder.path / SIDES)
    footers = {f"{SHARDS}/{path.name}": footer_digest(path) for path in folder.shards()}
    digests = {"files": files_of(folder), "footers": footers}
    folder.update(**whole, finished=now(), digests=digests)


def files_of(folder: RunFolder) -> dict[str, str]:
    """The digests of a run's files, as far as they are there."""
    paths = [folder.path / name for name in (SIDES, PLAN, STATISTICS, LABELS)]
    paths = [*(path for path in paths if path.exists()), *folder.shards()]
    return {path.relative_to(folder.path).as_posix(): file_digest(path) for path in paths}


def remove_leftovers(*folders: Path) -> None:
    """Remove what processes that were killed have half written, but no other's file in hand."""
    for folder in folders:
        for left in folder.glob(".*.part"):
            with suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > IN_HAND:
                    left.unlink()


def merged(abouts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Dropped and failed prompts, and the number of rows, over shards."""
    dropped: dict[str, dict[str, str]] = {}
    failed: dict[str, str] = {}
    rows = 0
    for about in abouts:
        rows += about["rows"]
        failed |= about["failed"]
        for name, reasons in about["dropped"].items():
            dropped.setdefault(name, {}).update(reasons)
    return {"rows": rows, "dropped": dropped, "failed": failed}


def now() -> str:
    """The time, as manifests give it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
