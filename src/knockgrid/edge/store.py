"""The run folder: table, manifest and figures."""

import json
import os
import platform
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import ValidationError

from knockgrid._errors import InputError
from knockgrid._parquet import read_table, whole_file, write_table
from knockgrid._table import metadata_of
from knockgrid.edge.config import SweepConfig
from knockgrid.edge.digests import file_digest, row_digests

TABLE, LABELS, MANIFEST, FIGURES = "table.parquet", "labels.parquet", "manifest.json", "figures"
SCHEMA = 1


def claim(folder: Path, config: SweepConfig) -> None:
    """Check, before anything is computed, that a run may be written to a folder.

    Raises:
        InputError: the folder holds a run with other settings, or cannot be written.
    """
    manifest = folder / MANIFEST
    if manifest.exists():
        old = read_manifest(folder).get("config", {})
        new = json.loads(config.model_dump_json())
        differ = sorted(key for key in new | old if new.get(key) != old.get(key))
        if differ:
            raise InputError(
                f"{folder} holds a run with other settings ({', '.join(differ)}); "
                "choose another folder with --out"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be made ({error.strerror}); choose another --out"
        ) from None
    if not os.access(folder, os.W_OK):
        raise InputError(f"{folder} cannot be written to; choose another --out")


def write_run(
    folder: Path,
    table: pd.DataFrame,
    config: SweepConfig,
    started: datetime,
    selection: dict[str, int] | None = None,
) -> None:
    """Write the table, then the manifest that vouches for it and says how prompts were chosen."""
    write_table(table, folder / TABLE)
    metadata = {k: v for k, v in metadata_of(table).items() if k != "prompts"}
    manifest = {
        "schema": SCHEMA,
        "config": json.loads(config.model_dump_json()),
        "config_digest": config.digest(),
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "selection": selection,
        **metadata,
        "rows": len(table),
        "digests": {
            "files": {
                name: file_digest(folder / name)
                for name in (TABLE, LABELS)
                if (folder / name).is_file()
            },
            "rows": row_digests(read_table(folder / TABLE)),
        },
    }
    with whole_file(folder / MANIFEST) as file:
        file.write(json.dumps(manifest, indent=2, ensure_ascii=False).encode("utf-8"))


def hardware() -> dict[str, Any]:
    """The processor and accelerator that a run was computed on."""
    import torch

    cuda = torch.cuda.is_available()
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(0) if cuda else None,
    }


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run folder.

    Raises:
        InputError: there is none, it is damaged, or it is of a newer version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder} holds no run (there is no {MANIFEST}); give a run folder")
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); run the sweep again") from None
    if not isinstance(manifest, dict):
        raise InputError(f"{path} is damaged (it holds no settings); run the sweep again")
    if manifest.get("schema", 0) > SCHEMA:
        raise InputError(
            f"{folder} was written by a newer knockgrid (schema {manifest['schema']}, this one "
            f"reads {SCHEMA}); upgrade knockgrid"
        )
    return manifest


def open_run(folder: str | Path) -> pd.DataFrame:
    """The table of a run folder.

    Example:
        >>> import knockgrid as kg
        >>> kg.open_run("runs/nowhere")
        Traceback (most recent call last):
        ...
        knockgrid._errors.InputError: runs/nowhere holds no run (there is no manifest.json); ...

    Raises:
        InputError: a folder without a run, or a damaged one.
    """
    read_manifest(Path(folder))
    path = Path(folder) / TABLE
    if not path.is_file():
        raise InputError(f"{folder} has a {MANIFEST} but no {TABLE}; run the sweep again")
    return read_table(path)


def config_of(folder: Path, manifest: dict[str, Any]) -> SweepConfig:
    """The settings in a manifest.

    Raises:
        InputError: settings that this version does not know, or that were damaged.
    """
    try:
        return SweepConfig.model_validate(manifest["config"])
    except (ValidationError, KeyError) as error:
        what = error.errors()[0]["loc"] if isinstance(error, ValidationError) else error
        raise InputError(
            f"the settings in {folder / MANIFEST} cannot be read ({what}); they were changed, or "
            "come from another version of knockgrid"
        ) from None
