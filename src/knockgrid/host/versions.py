"""The hosts' versions: those installed, and those with which all tests pass."""

from functools import cache
from importlib import metadata

TESTED = {"transformers": "5.23.0", "transformer-lens": "4.3.0"}


@cache
def version(package: str) -> str:
    """The installed version of a package, read once: its files take milliseconds.

    Example:
        >>> version("transformer-lens")
        '4...'
    """
    return metadata.version(package)


def here() -> str:
    """The installed versions of the hosts, in words.

    Example:
        >>> here()
        'transformers 5... with transformer-lens 4...'
    """
    return " with ".join(f"{name} {version(name)}" for name in TESTED)


def install_tested() -> str:
    """The command that installs the tested versions.

    Example:
        >>> print(install_tested())
        pip install "transformers==5.23.0" "transformer-lens==4.3.0"
    """
    return "pip install " + " ".join(f'"{name}=={number}"' for name, number in TESTED.items())
