"""The tables of run folders: read, scanned lazily, compacted, exported."""

import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from knockgrid.errors import InputError, unknown
from knockgrid.display.escape import spreadsheet
from knockgrid.table.metadata import exact_counts, shared
from knockgrid.table.parquet import read_table as read_table
from knockgrid.table.parquet import whole_file
from knockgrid.table.parquet import write_table as write_table
from knockgrid.table.table import COLUMNS, KEY, LISTS
from knockgrid.runs.digests import file_digest, footer_digest
from knockgrid.runs.finish import merged, read_sides, sides_of
from knockgrid.runs.run_folder import COMPACT, SIDES, RunFolder, damage_refused
from knockgrid.runs.shard import NEW, OF_INTERVENTION, OF_PROMPT, Damaged, pandas_of, rows_writer, schema, schema_of

MERGED = ("failed", "dropped", "threads")
"""What the manifest of a run that has ended gathers from its shards."""
OF_THE_RUN = (
    *("mode", "unit", "temperature", "measure", "metrics", "measures", "direction", "samples", "seed"),
    "sampled_runs",
    *("prepend_bos", "n_tokens"),
    *("layer_order", "intervention_order", "labels", "interventions", "sigma", "model", "receipt"),
    "exact_answer",
    *("versions", "noise_floor", "group_order"),
)
"""Entries of a manifest that travel with the table."""
FORMATS = ("csv", "jsonl")
KEYS = ("prompt", "intervention")
CHECKED = ds.ParquetFileFormat(
    default_fragment_scan_options=ds.ParquetFragmentScanOptions(page_checksum_verification=True)
)
"""Parquet, each page of which is held against its checksum as it is read."""


class UnfinishedRun(UserWarning):
    """A run is read of which not all shards are there."""


def open_run(
    folder: str | Path,
    *,
    columns: Sequence[str] | None = None,
    where: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """The table of a run folder, or the part of it that is asked for; the rest is not read.

    Example:
        >>> import knockgrid as kg
        >>> kg.open_run("runs/nowhere")
        Traceback (most recent call last):
        ...
        knockgrid.errors.InputError: runs/nowhere holds no run (there is no manifest.json); ...

    Args:
        folder: a run folder.
        columns: names of columns; by default all but the lists of tokens (`sweep(top=...)`).
        where: values that a label column must have, as `{"layer": [0, 1], "intervention": "last"}`.

    Rows come in the order of the plan's prompts. Of a run that has not ended those prompts are read
    that are there, with an `UnfinishedRun` warning; `attrs["knockgrid"]["unfinished"]` counts its
    shards.

    Raises:
        InputError: a folder without a run, one in which no shard is finished, or a damaged one.
    """
    run = RunFolder(Path(folder))
    check_footers(run, run.manifest)
    return read_run(run, columns, where)


def read_run(
    run: RunFolder,
    columns: Sequence[str] | None = None,
    where: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """As `open_run`, of a run whose files may have been written again since it ended."""
    manifest = run.manifest
    rows = scan_run(run.path)
    wanted = names_of(schema(manifest["plan"]["columns"]), columns)
    chosen = _filter(rows.schema, where or {})
    check_shards(run, manifest)
    with damage_refused(run.path):
        names = [n for n in dict.fromkeys([*wanted, *KEYS]) if n in rows.schema.names]
        arrow = rows.to_table(columns=names, filter=chosen)
    metadata = _metadata(run, manifest)
    order = {str(one["id"]): i for i, one in enumerate(metadata["prompts"])}
    place = pd.Series(arrow["prompt"].to_pandas()).map(order).to_numpy()
    arrow = arrow.take(pa.array(np.argsort(place, kind="stable")))
    table = pandas_of(with_older(arrow, metadata))[wanted]
    table.attrs = {KEY: shared(metadata)}
    return table


def scan_run(folder: str | Path) -> ds.Dataset:
    """The rows of a run folder as a `pyarrow` data set, of which nothing is read yet.

    Example:
        >>> import knockgrid as kg
        >>> kg.runs.scan_run("runs/nowhere")
        Traceback (most recent call last):
        ...
        knockgrid.errors.InputError: runs/nowhere holds no run (there is no manifest.json); ...

    For tables that do not fit into memory: DuckDB, Polars and `pyarrow` take it as it is. Rows come
    shard by shard.

    Raises:
        InputError: a folder without a run, or one in which no shard is finished.
    """
    run = RunFolder(Path(folder))
    manifest = run.manifest
    files = [run.path / COMPACT] if manifest.get("compact") else run.shards(manifest)
    if not files:
        raise InputError(
            f"{folder} holds a run of which no shard is finished; the command that began it goes on"
        )
    return ds.dataset([str(path) for path in files], format=CHECKED, schema=schema_of(manifest))


def with_older(rows: pa.Table, metadata: Mapping[str, Any]) -> pa.Table:
    """Rows with the columns that an older layout keeps beside its rows only."""
    for key, names, told, of in (
        ("prompt", OF_PROMPT, metadata["prompts"], "id"),
        ("intervention", OF_INTERVENTION, metadata["interventions"], "name"),
    ):
        for name in (name for name in names if name not in rows.column_names):
            found = {str(one[of]): one.get(name) for one in told}
            values = [found.get(label) for label in rows[key].to_pylist()]
            rows = rows.append_column(name, pa.array(values, pa.string()))
    for name in (name for name in NEW if name not in rows.column_names):
        rows = rows.append_column(name, pa.nulls(len(rows), schema([]).field(name).type))
    first = [c.name for c in COLUMNS if c.name in rows.column_names]
    return rows.select([*first, *(name for name in rows.column_names if name not in first)])


def check_footers(run: RunFolder, manifest: Mapping[str, Any]) -> None:
    """Refuse a footer that is not the one that was written when the run ended.

    Shards of a run with failed prompts may have been repaired since.
    """
    stamped = {} if manifest.get("failed") else manifest.get("digests", {}).get("footers", {})
    with damage_refused(run.path):
        for name, digest in stamped.items():
            if (run.path / name).exists() and footer_digest(run.path / name) != digest:
                raise Damaged(f"the footer of {name} is not the one that was written")


def check_shards(run: RunFolder, manifest: Mapping[str, Any]) -> None:
    """Refuse files that are not this run's, or have other columns, which would read as missing.

    Of every file the footer is read, not the rows.
    """
    for _ in () if manifest.get("compact") else run.abouts(manifest):
        continue
    with damage_refused(run.path):
        rows = scan_run(run.path)
        for fragment in rows.get_fragments():
            if not fragment.physical_schema.equals(rows.schema):
                raise Damaged(f"{Path(fragment.path).name} has other columns than the run")


def names_of(columns: pa.Schema, given: Sequence[str] | None) -> list[str]:
    """Columns that were asked for, once they are known to exist."""
    for name in given or ():
        if name not in columns.names:
            raise unknown("column", name, columns.names)
    return [name for name in columns.names if name not in LISTS] if given is None else list(given)


def _filter(columns: pa.Schema, where: Mapping[str, Any]) -> Any:
    chosen = None
    for name in names_of(columns, list(where)):
        given, kind = where[name], columns.field(name).type
        several = list(given) if isinstance(given, list | tuple | set | range) else [given]
        try:
            one = pc.field(name).isin(pa.array(several, kind))
        except (pa.ArrowException, TypeError):
            raise InputError(f"where={{{name!r}: {given!r}}}: the column holds {kind}") from None
        chosen = one if chosen is None else chosen & one
    return chosen


def _metadata(run: RunFolder, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What travels with the table: from the manifest, and from the shards of an unfinished run."""
    metadata = {name: manifest[name] for name in OF_THE_RUN if name in manifest}
    # what runs had before it could be chosen
    metadata = {"temperature": 1.0, "measure": None, "sampled_runs": None, **metadata}
    whole = is_whole(run, manifest)
    # Of a run with failures the shards are asked: some may have been mended since it ended.
    ended = manifest.get("finished") and (manifest.get("compact") or not manifest["failed"])
    if ended and whole:
        with damage_refused(run.path):
            found, sides = manifest, read_sides(run.path / SIDES)
    else:
        abouts = list(run.abouts(manifest))
        found, sides = merged(abouts), sides_of(run, abouts)
    if not whole:
        total = manifest["plan"]["shards"]
        metadata["unfinished"] = {"shards": total, "finished": len(run.shards(manifest))}
        warn_unfinished(run, manifest, stacklevel=5)
    also = {name: found[name] for name in MERGED if found.get(name)}
    exact = exact_counts(side.get("exact_from") for side in sides) if "exact_from" in manifest["plan"]["columns"] else {}
    return {**metadata, "dropped": {}, **also, **exact, "prompts": sides}


def warn_unfinished(run: RunFolder, manifest: Mapping[str, Any], stacklevel: int = 3) -> None:
    """Say what is missing of a run."""
    if not is_whole(run, manifest):
        done, total = len(run.shards(manifest)), manifest["plan"]["shards"]
        prompts = sum(len(one["sides"]) for one in run.abouts(manifest))
        warnings.warn(
            f"{run.path} is not finished: {done} of {total} shards, {prompts} of "
            f"{manifest['plan']['prompts']} prompts",
            UnfinishedRun,
            stacklevel=stacklevel,
        )


def is_whole(run: RunFolder, manifest: Mapping[str, Any]) -> bool:
    """Whether all rows are there; shards of a run that has ended may have been taken away."""
    return bool(manifest.get("compact")) or len(run.shards(manifest)) == manifest["plan"]["shards"]


def compact(folder: str | Path) -> Path:
    """Put all shards of a finished run into one file, and return its path.

    Example:
        >>> compact("runs/nowhere")
        Traceback (most recent call last):
        ...
        knockgrid.errors.InputError: runs/nowhere holds no run (there is no manifest.json); ...

    Rows are copied shard by shard, so memory stays flat. The change is made when the manifest is
    replaced; shards that an interruption leaves behind are removed by the next call.

    Raises:
        InputError: a run that has not ended, or a damaged shard.
    """
    run = RunFolder(Path(folder))
    manifest = run.manifest
    if not (manifest.get("finished") and is_whole(run, manifest)):
        raise InputError(f"{folder} is not finished; end the run before you compact it")
    if n := len(manifest["failed"]):
        raise InputError(
            f"{n} prompt{'s' * (n != 1)} of {folder} failed, and could not be tried "
            "again in a compact run; the command that made the run tries them"
        )
    path = run.path / COMPACT
    if not manifest.get("compact"):
        columns, digests = schema_of(manifest), dict[str, Any]()
        with whole_file(path) as file, rows_writer(columns, file) as writer:
            for shard in run.read(manifest):
                digests |= shard.about["digests"]
                writer.write_table(shard.table)
        files = {k: v for k, v in manifest["digests"]["files"].items() if "/" not in k}
        files[COMPACT] = file_digest(path)
        footers = {COMPACT: footer_digest(path)}
        run.update(compact=True, digests={"files": files, "footers": footers, "rows": digests})
    for left in run.shards():
        left.unlink(missing_ok=True)
    return path


def export(folder: str | Path, file: str | Path, format: str = "csv") -> Path:
    """Write the rows of a run as CSV or JSON lines, shard by shard.

    Example:
        >>> export("runs/nowhere", "table.txt", "tsv")
        Traceback (most recent call last):
        ...
        knockgrid.errors.InputError: unknown format 'tsv'; did you mean 'csv'? Allowed: csv, jsonl

    Missing values are empty in CSV and null in JSON. In CSV an apostrophe stands before texts that
    a spreadsheet would take for a formula; lists of tokens are in JSON only.

    Raises:
        InputError: another format, or no run.
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    run = RunFolder(Path(folder))
    check_footers(run, run.manifest)
    check_shards(run, run.manifest)
    warn_unfinished(run, run.manifest)
    with damage_refused(run.path), whole_file(file) as handle:
        metadata = _metadata(run, run.manifest)
        for i, part in enumerate(_parts(scan_run(folder))):
            rows = with_older(part, metadata)
            text = as_csv(rows, header=i == 0) if format == "csv" else as_lines(rows)
            handle.write(text.encode("utf-8"))
    return Path(file)


def _parts(rows: ds.Dataset) -> Iterator[pa.Table]:
    """Rows, as many at a time as a file has in one group."""
    for fragment in rows.get_fragments():
        for group in fragment.split_by_row_group():
            yield group.to_table(schema=rows.schema)


def as_csv(part: pa.Table, header: bool) -> str:
    """Rows as CSV: numbers in the shortest form that reads back the same, no text a formula.

    A prompt or a token is data, and a spreadsheet would carry out one that begins with "=".
    """
    frame = pandas_of(part.select([name for name in part.column_names if name not in LISTS]))
    for name in frame.columns[frame.dtypes == "string"]:
        frame[name] = frame[name].map(spreadsheet, na_action="ignore")
    return frame.to_csv(index=False, header=header)


def as_lines(part: pa.Table) -> str:
    """Rows as JSON lines; an infinite number, which JSON has no word for, is a text."""
    rows = ({name: _plain(value) for name, value in row.items()} for row in part.to_pylist())
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
