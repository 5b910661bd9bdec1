"""The hosts' versions: those installed, and those with which all tests pass."""

from functools import cache
from importlib import metadata

TESTED = {"transformers": "5.23.0", "transformer-lens": "4.3.0"}


@cache
def version(package: str) -> str:
    """The installed version of a package, read once: its files take milliseconds."""
    return metadata.version(package)


def here() -> str:
    """The installed versions of the hosts, in words."""
    return " with ".join(f"{name} {version(name)}" for name in TESTED)


def install_tested() -> str:
    """The command that installs the tested versions."""
    return "pip install " + " ".join(f'"{name}=={number}"' for name, number in TESTED.items())
