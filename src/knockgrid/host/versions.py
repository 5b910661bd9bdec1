"""The hosts' versions: those that are here, and those with which all tests pass."""

from importlib.metadata import version

TESTED = {"transformers": "5.23.0", "transformer-lens": "4.3.0"}


def here() -> str:
    """The versions that are here, in words.

    Example:
        >>> here()
        'transformers 5... with transformer-lens 4...'
    """
    return " with ".join(f"{name} {version(name)}" for name in TESTED)


def install_tested() -> str:
    """The command that installs what was tested.

    Example:
        >>> print(install_tested())
        pip install "transformers==5.23.0" "transformer-lens==4.3.0"
    """
    return "pip install " + " ".join(f'"{name}=={number}"' for name, number in TESTED.items())
