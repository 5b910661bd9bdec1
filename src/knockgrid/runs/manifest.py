"""The manifest of a run folder: what was decided before the first shard, and how it ended."""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from knockgrid.errors import InputError
from knockgrid.table.parquet import whole_file

MANIFEST = "manifest.json"
SCHEMA = 5
"""The layout that is written."""
READ = (2, 3, 4, SCHEMA)
DECIDED = (
    *("schema", "config", "config_digest", "plan", "selection", "data", "mode", "unit"),
    *("temperature", "measure", "metrics", "measures", "direction", "samples", "seed"),
    "sampled_runs",
    *("prepend_bos", "n_tokens", "exact_answer", "layer_order", "labels"),
    *("intervention_order", "interventions", "sigma", "model", "receipt", "versions"),
)
"""Entries that never change after a run was begun."""
NEEDED = {
    **dict.fromkeys(("config", "plan", "model", "receipt", "versions", "sigma"), dict),
    **dict.fromkeys(("config_digest", "run_digest", "begun_by"), str),
}
"""Entries that a manifest cannot do without."""


def now() -> str:
    """The time, as manifests give it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


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
    """The manifest of a run folder; an `InputError` if it is missing, damaged, or of another layout."""
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder} holds no run (there is no {MANIFEST}); give a run folder")
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise damaged(path, error) from None
    if not isinstance(manifest, dict):
        raise damaged(path, "it holds no settings")
    schema = manifest.get("schema", 0)
    if schema not in READ:
        newer, versions = isinstance(schema, int) and schema > SCHEMA, manifest.get("versions")
        since = versions.get("knockgrid") if isinstance(versions, dict) else "a version that is"
        raise InputError(
            f"{folder} has the layout {schema}, this knockgrid reads "
            f"{', '.join(map(str, READ))}; "
            + (f"install knockgrid {since} or newer" if newer else "sweep again")
        )
    lacks = [name for name, kind in NEEDED.items() if not isinstance(manifest.get(name), kind)]
    if lacks:
        raise damaged(path, f"no {lacks[0]!r}")
    return manifest


def damaged(path: Path, why: object) -> InputError:
    """The error for a manifest that makes no sense."""
    return InputError(f"{path} is damaged ({why}); run the sweep again elsewhere")


def write_manifest(folder: Path, manifest: Mapping[str, Any], replace: bool = True) -> None:
    """Put a manifest in place; without `replace`, which begins a run, only where there is none."""
    with whole_file(folder / MANIFEST, replace) as file:
        file.write(json.dumps(manifest, indent=2, ensure_ascii=False).encode("utf-8"))


def run_digest(manifest: Mapping[str, Any]) -> str:
    """A digest of all that was decided when the run was begun; every shard carries it.

    So a shard of another run, or of the same settings on another model, is not taken for one's
    own, and an entry of the manifest cannot be changed afterwards without being noticed.
    """
    fixed = {name: manifest[name] for name in DECIDED if name in manifest}
    return hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()[:16]


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The keys under which two sets of settings differ, as JSON would hold them."""
    one, other = (json.loads(json.dumps(settings, sort_keys=True)) for settings in (old, new))
    return sorted(key for key in {**one, **other} if one.get(key) != other.get(key))
