"""Opened: a run folder as its report reads it, without model or tokenizer."""

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from knockgrid._errors import InputError
from knockgrid._table import LISTS, metadata_of
from knockgrid.edge.finish import texts_of
from knockgrid.edge.run_folder import TEXTS, RunFolder
from knockgrid.edge.store import UnfinishedRun, open_run, scan_run


@dataclass(frozen=True, eq=False)
class Opened:
    """What there is of a run.

    `table` is None where no row is there yet. `tops` holds the lists of tokens of every row, and
    `texts` the text of every token in them by its id; both are empty where a run keeps none.
    """

    folder: Path
    manifest: Mapping[str, Any]
    table: pd.DataFrame | None
    tops: pd.DataFrame
    texts: Mapping[str, str]

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.resolve().name

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What travels with the table; what was planned, where there is none."""
        return self.manifest if self.table is None else metadata_of(self.table)

    @property
    def prompts(self) -> list[dict[str, Any]]:
        """The side entries of the prompts that were computed."""
        return [] if self.table is None else list(metadata_of(self.table)["prompts"])


def opened(folder: str | Path) -> Opened:
    """Read a run folder, whole or half-finished.

    Example:
        >>> opened("runs/nowhere")
        Traceback (most recent call last):
        ...
        knockgrid._errors.InputError: runs/nowhere holds no run (there is no manifest.json); ...

    Raises:
        InputError: a folder without a run, or a damaged one.
    """
    run = RunFolder(Path(folder))
    manifest = run.manifest
    if not manifest.get("compact") and not run.shards(manifest):
        return Opened(run.path, manifest, None, pd.DataFrame(), {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnfinishedRun)  # the page says it
        whole = open_run(folder, columns=scan_run(folder).schema.names)
    lists = [name for name in LISTS if name in whole]
    table = whole.drop(columns=lists)
    return Opened(run.path, manifest, table if len(table) else None, whole[lists], _texts(run))


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
