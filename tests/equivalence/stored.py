"""Reference tables: what every kind of edit gave when it was last agreed upon, as files.

A change that should not change numbers is held to them. After one that should, write them anew with
`KNOCKGRID_STORE=1 pytest tests/equivalence/test_executors.py` and read the difference.
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd

FOLDER = Path(__file__).parents[1] / "data" / "reference"
KEYS = ["prompt", "layer", "layers", "token", "status"]
VALUES = ["js", "kl", "kl_reverse", "tv", "logp_clean", "js_to_source"]
SETTINGS = (
    *("mode", "unit", "direction", "samples", "seed", "prepend_bos", "n_tokens"),
    *("layer_order", "intervention_order", "sigma"),
)
FIRST_WORDS = {"noising": "noise", "denoising": "denoise"}
"""The files are older than these words, and stay as they are."""


def settings_digest(table: pd.DataFrame) -> str:
    """What decided the numbers, but for the model and the versions."""
    said = {name: table.attrs["knockgrid"][name] for name in SETTINGS}
    said["direction"] = FIRST_WORDS[said["direction"]]
    said["sigma"] = {name: round(value, 9) for name, value in said["sigma"].items()}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def rows_of(table: pd.DataFrame) -> pd.DataFrame:
    """The cells of a table with its settings' digest, in the form of the files."""
    rows = table[KEYS + VALUES].copy()
    rows["layers"] = [" ".join(map(str, layers)) for layers in table["layers"]]
    rows["settings"] = settings_digest(table)
    return rows


def assert_stored(case: str, table: pd.DataFrame) -> None:
    """Fails where a table differs from the one stored under its case."""
    path, rows = FOLDER / f"{case.replace(' ', '_')}.csv", rows_of(table)
    if os.environ.get("KNOCKGRID_STORE") == "1":
        FOLDER.mkdir(exist_ok=True, parents=True)
        rows.to_csv(path, index=False, float_format="%.15g", lineterminator="\n")
    assert path.exists(), f"no reference table {path.name}; see tests/equivalence/stored.py"
    kept = pd.read_csv(path, dtype={"layers": str, "status": str, "prompt": str})
    for name in [*KEYS, "settings"]:
        assert list(map(str, rows[name])) == list(map(str, kept[name])), f"{case}: {name}"
    for name in VALUES:
        np.testing.assert_allclose(
            rows[name].astype(float), kept[name], rtol=0, atol=1e-12, err_msg=f"{case}: {name}"
        )
