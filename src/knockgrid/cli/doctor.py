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
NEEDED = 2 * 2**30
"""Free bytes for the demo model, its wheel and a few runs."""


@dataclass
class Report:
    """What was found, by section, and the checks."""

    sections: dict[str, dict[str, str]] = field(default_factory=dict)
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
            lines += [f"**{title}**", ""]
            lines += [f"- {name}: {_code(value)}" for name, value in entries.items()] + [""]
        lines += ["**checks**", ""]
        for one in self.checks:
            lines.append(f"- [x] {one.name}" if one.ok else f"- [ ] {one.name} – {one.advice}")
        return "\n".join(lines)


def _code(value: str) -> str:
    """A value in backticks, which end at no backtick of its own."""
    return f"`{value.replace('`', chr(39))}`"


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
    """Text without the home directory and, as a part of a path, the user's name.

    Example:
        >>> anonymous("nothing to hide")
        'nothing to hide'
    """
    home = str(Path.home())
    if len(home) > 1:
        text = re.sub(rf"{re.escape(home)}(?=[/\\]|\W|$)", "~", text)
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in some containers
        return text
    return re.sub(rf"(?<=[/\\]){re.escape(user)}(?=[/\\]|\W|$)", "~", text)


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
        "memory": f"{size(memory.available)} of {size(memory.total)} free",
    }
    for i in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(i)
        found[f"cuda:{i}"] = f"{about.name}, {size(about.total_memory)}"
    if torch.backends.mps.is_available():
        found["mps"] = "there"
    return found


def caches() -> Iterator[tuple[str, str]]:
    """Where models are kept, how much there is, and how much more fits."""
    folders = {"demo model": cache_folder() / NAME, "Hugging Face": Path(constants.HF_HUB_CACHE)}
    for name, folder in folders.items():
        used, whole = size_of(folder)
        there = f"{'' if whole else 'more than '}{size(used)}"
        there = there if folder.exists() else "not there yet"
        rights = "writable" if os.access(existing(folder), os.W_OK) else "not writable"
        free = size(shutil.disk_usage(existing(folder)).free)
        yield name, anonymous(f"{folder}: {there}, {rights}, {free} free")


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    folder = folder.absolute()
    return next(one for one in (folder, *folder.parents) if one.exists())


def size_of(folder: Path) -> tuple[int, bool]:
    """Bytes of the files in a folder, links not followed, and whether there was time for all."""
    until, total = time.monotonic() + AT_MOST, 0
    for parent, _, names in os.walk(folder):
        if time.monotonic() > until:
            return total, False
        for name in names:
            about = os.stat(os.path.join(parent, name), follow_symlinks=False)
            total += about.st_size
    return total, True


def size(given: float) -> str:
    """Bytes for people.

    Example:
        >>> size(1536), size(3 * 2**30)
        ('1.5 KiB', '3.0 GiB')
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if given < 1024:
            return f"{given:.0f} {unit}" if unit == "B" else f"{given:.1f} {unit}"
        given /= 1024
    return f"{given:.1f} TiB"


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
    for line in requires("knockgrid") or ():
        one = Requirement(line)
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
    ok = there or os.access(existing(folder), os.W_OK)
    advice = f"{folder} cannot be written to; set KNOCKGRID_CACHE to a folder of your own"
    yield Check("the demo model is there, or can be", ok, "" if ok else advice)
    free = shutil.disk_usage(existing(folder)).free
    ok = there or free >= NEEDED
    advice = (
        f"{size(free)} are free, {size(NEEDED)} are needed; set KNOCKGRID_CACHE to another disk"
    )
    yield Check("there is room for the demo model", ok, "" if ok else advice)
