"""The works behind a run, as BibTeX; `references.bib` holds them all."""

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files

from knockgrid.display.escape import latex

SOFTWARE = {"knockgrid": "knockgrid", "transformerlens": "transformer-lens"}


def entries() -> dict[str, str]:
    """Every entry by its key.

    Example:
        >>> entries()["lin1991"].splitlines()[0]
        '@article{lin1991,'
    """
    text = files("knockgrid.reports").joinpath("references.bib").read_text("utf-8")
    found = [entry.strip() for entry in re.split(r"^(?=@)", text, flags=re.MULTILINE) if entry]
    return {entry[entry.index("{") + 1 : entry.index(",")]: entry for entry in found}


def bibtex(keys: Sequence[str], versions: Mapping[str, str]) -> str:
    """The entries of some works, software with the version that was used.

    Example:
        >>> "{4.3.0}" in bibtex(["transformerlens"], {"transformer-lens": "4.3.0"})
        True
    """
    every = entries()
    return "\n\n".join(
        every[key].replace("VERSION", latex(versions.get(SOFTWARE.get(key, ""), "unknown")))
        for key in keys
    )
