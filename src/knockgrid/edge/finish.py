"""Finish: what can be said of a run only when all of its shards are there."""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any

from knockgrid._parquet import whole_file
from knockgrid.edge.digests import file_digest
from knockgrid.edge.run_folder import LABELS, PLAN, SIDES, STATISTICS, TEXTS, RunFolder
from knockgrid.edge.sides import write_sides


def finish(folder: RunFolder) -> None:
    """Write the side table, and the manifest that vouches for every file of the run.

    Any process may do it, and a second one writes the same but for the time.
    """
    manifest = folder.manifest
    abouts = list(folder.abouts(manifest))
    order = {id: i for i, id in enumerate(one.id for one in folder.plan().prompts)}
    whole = merged(abouts)
    sides = sorted((side for one in abouts for side in one["sides"]), key=lambda s: order[s["id"]])
    write_sides(sides, folder.path / SIDES)
    write_texts(folder, abouts)
    some = [name for name in (LABELS, TEXTS) if (folder.path / name).exists()]
    names = [SIDES, PLAN, STATISTICS, *some]
    files = {name: file_digest(folder.path / name) for name in names}
    files |= {f"shards/{path.name}": file_digest(path) for path in folder.shards(manifest)}
    ended = None if files == manifest.get("digests", {}).get("files") else now()
    folder.update(**whole, finished=ended or manifest["finished"], digests={"files": files})
    for left in (folder.path / "shards").glob(".*.part"):  # of processes that were killed
        left.unlink(missing_ok=True)


def write_texts(folder: RunFolder, abouts: Iterable[Mapping[str, Any]]) -> None:
    """Keep the texts of the tokens that rows name, where they name any."""
    texts = texts_of(abouts)
    if texts:
        with whole_file(folder.path / TEXTS) as file:
            file.write(json.dumps(texts, ensure_ascii=False, sort_keys=True).encode("utf-8"))


def texts_of(abouts: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The text of every token that some shards name, by its id."""
    return {id: text for about in abouts for id, text in about.get("texts", {}).items()}


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
