"""Finish: what can be said of a run only when all of its shards are there."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from knockgrid.table.parquet import whole_file
from knockgrid.runs.digests import file_digest, footer_digest
from knockgrid.runs.manifest import now
from knockgrid.runs.run_folder import LABELS, PLAN, SHARDS, SIDES, STATISTICS, TEXTS, RunFolder
from knockgrid.runs.shard import Damaged, rows_writer
from knockgrid.table.table import LISTS

IN_HAND = 600
"""Seconds in which a process that lives has given a complete file its name."""
WORDS, NUMBERS = pa.list_(pa.string()), pa.list_(pa.int64())
COLUMNS = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("spans", pa.string()),
        ("subject", pa.string()),
        ("relation", pa.string()),
        ("group", pa.string()),
        ("answers", WORDS),
        ("foil", pa.string()),
        ("continuation", pa.string()),
        ("separator", pa.string()),
        ("n_prompt", pa.int64()),
        ("subject_tokens", NUMBERS),
        ("tokens", WORDS),
        ("generated", WORDS),
        ("exact_answer", pa.string()),
        ("exact_from", pa.string()),
        ("logp_clean", pa.float64()),
        ("logp_answer_clean", pa.float64()),
        ("rank_answer_clean", pa.int64()),
        ("js_corrupted", pa.string()),
        ("swap", pa.string()),
        ("top_tokens", pa.list_(NUMBERS)),
        ("top_logp", pa.list_(pa.list_(pa.float64()))),
    ]
)
AS_JSON = ("spans", "js_corrupted", "swap")
"""Columns of nested values, whose keys differ from prompt to prompt."""


def finish(folder: RunFolder) -> None:
    """Write the side table, and the manifest that vouches for every file of the run, unless it does.

    Any process may do it, and a second one writes the same but for the time.
    """
    manifest = folder.manifest
    remove_leftovers(folder.path, folder.path / SHARDS)
    if manifest["finished"] and files_of(folder) == manifest["digests"]["files"]:
        return
    abouts = list(folder.abouts(manifest))
    whole = merged(abouts)
    write_sides(sides_of(folder, abouts), folder.path / SIDES)
    if texts := texts_of(abouts):
        with whole_file(folder.path / TEXTS) as file:
            file.write(json.dumps(texts, ensure_ascii=False, sort_keys=True).encode("utf-8"))
    footers = {f"{SHARDS}/{path.name}": footer_digest(path) for path in folder.shards()}
    digests = {"files": files_of(folder), "footers": footers}
    folder.update(**whole, finished=now(), digests=digests)


def files_of(folder: RunFolder) -> dict[str, str]:
    """The digests of a run's files, as far as they are there."""
    paths = [folder.path / name for name in (SIDES, PLAN, STATISTICS, LABELS, TEXTS)]
    paths = [*(path for path in paths if path.exists()), *folder.shards()]
    return {path.relative_to(folder.path).as_posix(): file_digest(path) for path in paths}


def remove_leftovers(*folders: Path) -> None:
    """Remove what processes that were killed have half written, but no other's file in hand."""
    for folder in folders:
        for left in folder.glob(".*.part"):
            with suppress(FileNotFoundError):
                if time.time() - left.stat().st_mtime > IN_HAND:
                    left.unlink()


def sides_of(folder: RunFolder, abouts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The side entries of shards, in the order of the plan's prompts."""
    order = {one.id: i for i, one in enumerate(folder.plan().prompts)}
    sides = (side for one in abouts for side in one["sides"])
    return sorted(sides, key=lambda side: order[side["id"]])


def texts_of(abouts: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The text of every token that some shards name, by its id."""
    return {id: text for about in abouts for id, text in about.get("texts", {}).items()}


def merged(abouts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Dropped and failed prompts, the number of rows, and the threads used, over shards."""
    dropped: dict[str, dict[str, str]] = {}
    failed: dict[str, str] = {}
    rows, threads = 0, dict[str, Any]()
    for about in abouts:
        rows += about["rows"]
        own = about.get("computed", {}).get("threads", {})  # older shards say nothing of them
        if own:
            used = dict.fromkeys([*threads.get("used", ()), *own["used"]])
            threads = {"given": own["given"], "used": list(used)}
        failed |= about["failed"]
        for name, reasons in about["dropped"].items():
            dropped.setdefault(name, {}).update(reasons)
    also = {"threads": threads} if threads else {}
    return {"rows": rows, "dropped": dropped, "failed": failed, **also}


def write_sides(sides: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Keep side entries as Parquet."""
    nested = [{n: json.dumps(side[n], ensure_ascii=False) for n in AS_JSON} for side in sides]
    rows = [{**side, **texts} for side, texts in zip(sides, nested, strict=True)]
    table = pa.Table.from_pylist(rows, schema=COLUMNS)
    with whole_file(path) as file, rows_writer(COLUMNS, file) as writer:
        writer.write_table(table)


def read_sides(path: Path) -> list[dict[str, Any]]:
    """The side entries that `write_sides` kept."""
    if not path.is_file():
        raise Damaged(f"{path.name} is not there")
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        rows = file.read().to_pylist()
    whole = ({**row, **{name: json.loads(row[name]) for name in AS_JSON}} for row in rows)
    return [{k: v for k, v in row.items() if v is not None or k not in LISTS} for row in whole]
