"""Opened: a run folder as its report reads it, without model or tokenizer."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from knockgrid.errors import InputError
from knockgrid.runs.finish import texts_of
from knockgrid.runs.run_folder import TEXTS, RunFolder
from knockgrid.runs.store import UnfinishedRun, open_run, scan_run
from knockgrid.table.table import LISTS, metadata_of


@dataclass(frozen=True, eq=False)
class Opened:
    """What there is of a run.

    `table` is None where no row is there yet, `shards` counts the shards that are there, and
    `metadata` is what travels with their rows, or else what was planned. `tops` holds the lists of
    tokens of every row, and `texts` the text of every token in them by its id; both are empty where
    a run keeps none.
    """

    folder: Path
    manifest: Mapping[str, Any]
    table: pd.DataFrame | None
    metadata: Mapping[str, Any]
    tops: pd.DataFrame
    texts: Mapping[str, str]
    shards: int

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.resolve().name

    @property
    def whole(self) -> bool:
        """Whether the run has ended, and all of its shards are still there."""
        planned = self.manifest["plan"]["shards"]
        return bool(self.manifest.get("finished")) and self.shards == planned

    @property
    def prompts(self) -> list[dict[str, Any]]:
        """The side entries of the prompts that were computed."""
        return [] if self.table is None else list(metadata_of(self.table)["prompts"])


def opened(folder: str | Path) -> Opened:
    """Read a run folder, whole or half-finished."""
    run = RunFolder(Path(folder))
    manifest = run.manifest
    there = manifest["plan"]["shards"] if manifest.get("compact") else len(run.shards(manifest))
    if not there:
        return Opened(run.path, manifest, None, manifest, pd.DataFrame(), {}, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnfinishedRun)  # the page says it
        whole = open_run(folder, columns=scan_run(folder).schema.names)
    lists = [name for name in LISTS if name in whole]
    table = whole.drop(columns=lists)
    rows = table if len(table) else None
    return Opened(run.path, manifest, rows, metadata_of(whole), whole[lists], _texts(run), there)


def _texts(run: RunFolder) -> Mapping[str, str]:
    path = run.path / TEXTS
    if not path.is_file():
        return texts_of(run.abouts(run.manifest))
    try:
        found = json.loads(path.read_text("utf-8"))
        return {str(int(id)): str(text) for id, text in found.items()}
    except (ValueError, AttributeError, OSError) as error:
        raise InputError(
            f"{path} is damaged ({error}); the command that made the run writes it anew"
        ) from None
