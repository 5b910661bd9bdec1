"""doctor: what an installation consists of, whether it works, and what to tell of it in an issue.

Nothing private is told: the home directory and the user's name become `~`, and of what may be a
secret only that it is set.
"""

import getpass
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from packaging.requirements import Requirement

from knockgrid.cli.self_test import Check, self_test
from knockgrid.engine.memory import in_words
from knockgrid.host.demo import NAME, cache_folder

PACKAGES = (
    *("knockgrid", "torch", "transformer-lens", "transformers", "tokenizers", "numpy", "pandas"),
    *("pyarrow", "scipy", "matplotlib", "pydantic", "typer", "scikit-learn", "ray"),
)
EXTRAS = {"scikit-learn": "scikit-learn>=1.4", "ray": "ray>=2.40"}
VARIABLES = (
    *("KNOCKGRID_CACHE", "KNOCKGRID_RECEIPTS", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE"),
    *("HF_TOKEN", "HF_ENDPOINT"),
    *("TRANSFORMERS_OFFLINE", "TOKENIZERS_PARALLELISM", "OMP_NUM_THREADS", "MKL_NUM_THREADS"),
    *("CUDA_VISIBLE_DEVICES", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ENABLE_MPS_FALLBACK"),
    *("MPLBACKEND", "NO_COLOR", "FORCE_COLOR", "RANK", "WORLD_SIZE"),
)
SHOWN = re.compile(r"0|1|\d{1,9}|true|false|yes|no|on|off|auto|[\d,]{1,40}|agg|svg|pdf", re.I)
"""Values that tell a setting; any other one may be an address, a name or a secret."""
FOLDERS = ("KNOCKGRID_CACHE", "HF_HOME", "HF_HUB_CACHE")
AT_MOST = 2.0
"""Seconds for adding up a cache, which may hold a hundred thousand files."""
NEEDED = 2 * 10**9
"""Free bytes for the demo model, its wheel and a few runs."""


@dataclass
class Report:
    """What was found, by section, and the checks."""

    sections: dict[str, dict[str, str]]
    checks: list[Check] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether all checks went well."""
        return all(one.ok for one in self.checks)

    def document(self) -> dict[str, Any]:
        """Plain values, for scripts."""
        return {"ok": self.ok, **self.sections, "checks": [vars(one) for one in self.checks]}

    def markdown(self) -> str:
        """A block for an issue."""
        lines = ["### knockgrid doctor", ""]
        for title, entries in self.sections.items():
            # a value in backticks ends at no backtick of its own
            told = [f"- {name}: `{value.replace('`', chr(39))}`" for name, value in entries.items()]
            lines += [f"**{title}**", "", *told, ""]
        lines += ["**checks**", ""]
        for one in self.checks:
            lines.append(f"- [x] {one.name}" if one.ok else f"- [ ] {one.name} – {one.advice}")
        return "\n".join(lines)


def examine(show: Callable[[Check], object]) -> Report:
    """Look at everything, and show each check as it ends."""
    sections = {"versions": versions(), "devices": devices()}
    report = Report({**sections, "caches": dict(caches()), "environment": dict(environment())})
    started = time.monotonic()
    for one in (*requirements(), *place_of_the_demo(), *self_test()):
        one = Check(one.name, one.ok, anonymous(one.advice))
        report.checks.append(one)
        show(one)
    report.sections["devices"]["self-test"] = f"{time.monotonic() - started:.1f} s"
    return report


def anonymous(text: str) -> str:
    """Text without the home directory and, as a part of a path, the user's name."""
    home, end = str(Path.home()), r"(?=[/\\]|\W|$)"
    if len(home) > 1:
        text = re.sub(f"{re.escape(home)}{end}", "~", text)
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in some containers
        return text
    return re.sub(rf"(?<=[/\\]){re.escape(user)}{end}", "~", text)


def versions() -> dict[str, str]:
    """Python, the system and the packages; of an extra that is not there, its name."""
    lacking = {name: f'not installed: pip install "{line}"' for name, line in EXTRAS.items()}
    packages = {name: _version(name) or lacking.get(name, "none") for name in PACKAGES}
    found = {"python": platform.python_version(), "system": platform.platform(), **packages}
    return found | {"torch": str(torch.__version__)}  # with its build


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def devices() -> dict[str, str]:
    """Processors, threads, memory and accelerators."""
    import psutil

    memory = psutil.virtual_memory()
    found = {
        "processors": str(os.cpu_count()),
        "threads of torch": str(torch.get_num_threads()),
        "memory": f"{in_words(memory.available)} of {in_words(memory.total)} free",
    }
    for i in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(i)
        found[f"cuda:{i}"] = f"{about.name}, {in_words(about.total_memory)}"
    if torch.backends.mps.is_available():
        found["mps"] = "there"
    return found


def caches() -> Iterator[tuple[str, str]]:
    """Where models are kept, how much there is, and how much more fits."""
    folders = {"demo model": cache_folder() / NAME, "Hugging Face": Path(constants.HF_HUB_CACHE)}
    for name, folder in folders.items():
        used, whole = size_of(folder)
        there = f"{'' if whole else 'more than '}{in_words(used)}"
        there = there if folder.exists() else "not there yet"
        writable, free = room_of(folder)
        rights = "writable" if writable else "not writable"
        yield name, anonymous(f"{folder}: {there}, {rights}, {in_words(free)} free")


def room_of(folder: Path) -> tuple[bool, int]:
    """Whether a folder, or the nearest one above it, can be written; and the free bytes."""
    folder = folder.absolute()
    existing = next(one for one in (folder, *folder.parents) if one.exists())
    return os.access(existing, os.W_OK), shutil.disk_usage(existing).free


def size_of(folder: Path) -> tuple[int, bool]:
    """Bytes of the files in a folder, links not followed, and whether there was time for all."""
    until, total = time.monotonic() + AT_MOST, 0
    for parent, _, names in os.walk(folder):
        if time.monotonic() > until:
            return total, False
        total += sum(os.lstat(os.path.join(parent, name)).st_size for name in names)
    return total, True


def environment() -> Iterator[tuple[str, str]]:
    """The variables that change what is done; values only where they can be no secret."""
    slurm = sorted(name for name in os.environ if name.startswith("SLURM_"))
    for name in (*VARIABLES, *slurm):
        value = os.environ.get(name)
        if value is None:
            continue
        plain = "TOKEN" not in name and SHOWN.fullmatch(value)
        yield name, anonymous(value) if name in FOLDERS else value if plain else "set"


def requirements() -> Iterator[Check]:
    """Whether the packages are those that this version was written for."""
    wrong, lacking = [], []
    for one in map(Requirement, requires("knockgrid") or ()):
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        found = _version(one.name)
        if found is None or not one.specifier.contains(found, prereleases=True):
            wrong.append(f"{one.name} {found or 'is not there'} (needs {one.specifier})")
            lacking.append(f'"{one.name}{one.specifier}"')
    advice = f"{', '.join(wrong)}; pip install {' '.join(lacking)}" if wrong else ""
    yield Check("its packages are there in the versions it needs", not wrong, advice)


def place_of_the_demo() -> Iterator[Check]:
    """Whether the demo model is there, or could be put there and fits with a few runs."""
    folder = cache_folder()
    there = (folder / NAME / "model.safetensors").exists()
    writable, free = room_of(folder)
    advice = f"{folder} cannot be written to; set KNOCKGRID_CACHE to a folder of your own"
    ok = there or writable
    yield Check("the demo model is there, or can be", ok, "" if ok else advice)
    told = f"{in_words(free)} are free, {in_words(NEEDED)} are needed"
    ok = there or free >= NEEDED
    advice = f"{told}; set KNOCKGRID_CACHE to another disk"
    yield Check("there is room for the demo model", ok, "" if ok else advice)
