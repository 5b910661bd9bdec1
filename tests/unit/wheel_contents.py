"""What a wheel must hold: every file of the package, byte for byte, and nothing beside it.

`python tests/unit/wheel_contents.py WHEEL SOURCE [WHEEL]` compares a wheel with the package's
folder, and with a second wheel where one is given, and fails where they differ.
"""

import sys
from pathlib import Path
from zipfile import ZipFile

PACKAGE = "knockgrid"
TOLD = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
"""The files that describe a wheel."""


def contents(wheel: Path) -> dict[str, bytes]:
    """The bytes of each file in a wheel."""
    with ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def tree(source: Path) -> dict[str, bytes]:
    """The bytes of each file of a package's folder, by its name in a wheel; no compiled code."""
    return {
        f"{PACKAGE}/{file.relative_to(source).as_posix()}": file.read_bytes()
        for file in sorted(source.rglob("*"))
        if file.is_file() and file.suffix != ".pyc"
    }


def differences(one: dict[str, bytes], other: dict[str, bytes], is_in: str) -> list[str]:
    """A line for each file of `one` that `other` lacks or holds otherwise."""
    return [
        f"{name}: {'other bytes' if name in other else 'not'} in {is_in}"
        for name in sorted(one)
        if one[name] != other.get(name)
    ]


def faults(wheel: Path, source: Path) -> list[str]:
    """Where a wheel is not the package's folder and the files that describe a wheel."""
    held, wanted = contents(wheel), tree(source)
    if not wanted:
        return [f"{source} holds no files"]
    described = {name for name in held if name.split("/")[0].endswith(".dist-info")}
    package = {name: held[name] for name in held.keys() - described}
    told = {name.split("/", 1)[1] for name in described}
    return [
        *differences(wanted, package, "the wheel"),
        *(f"{name}: not in the source" for name in sorted(package.keys() - wanted.keys())),
        *(f"{name}: not in the wheel" for name in sorted(TOLD - told)),
        *(f"{name}: does not belong into a wheel" for name in sorted(told - TOLD)),
    ]


def main(wheel: str, source: str, *others: str) -> int:
    """Print the faults; 1 where there are any."""
    found = faults(Path(wheel), Path(source))
    for other in others:
        found += differences(contents(Path(wheel)), contents(Path(other)), other)
        found += differences(contents(Path(other)), contents(Path(wheel)), wheel)
    print(*(found or [f"{wheel} holds the {len(tree(Path(source)))} files of {source}"]), sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
