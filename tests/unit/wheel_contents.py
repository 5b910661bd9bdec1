"""What a wheel must hold: the package and the studies, byte for byte, and nothing beside them.

`python tests/unit/wheel_contents.py WHEEL SOURCE [WHEEL]` compares a wheel with the package's
folder and the studies in `experiments/` beside `src/`, and with a second wheel if there is one.
"""

import sys
from pathlib import Path
from zipfile import ZipFile

PACKAGE = "knockgrid"
STUDY = b"study(__file__)"
"""What tells a study from the benchmarks beside it, which stay out of the wheel."""
TOLD = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
"""The files that describe a wheel."""


def contents(wheel: Path) -> dict[str, bytes]:
    """The bytes of each file in a wheel."""
    with ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def package(source: Path) -> dict[str, bytes]:
    """The bytes of each file of a package's folder, by its name in a wheel; no compiled code."""
    return {
        f"{PACKAGE}/{file.relative_to(source).as_posix()}": file.read_bytes()
        for file in sorted(source.rglob("*"))
        if file.is_file() and file.suffix != ".pyc"
    }


def tree(source: Path) -> dict[str, bytes]:
    """The same for the package and the studies of its project."""
    files = source.parents[1].glob("experiments/*.*")
    found = {one: one.read_bytes() for one in files if one.suffix in (".py", ".yaml")}
    return package(source) | {
        f"{PACKAGE}/experiments/{one.name}": content
        for one, content in found.items()
        if STUDY in content or one.suffix == ".yaml"
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
    if not package(source):
        return [f"{source} holds no files"]
    described = {name for name in held if name.split("/")[0].endswith(".dist-info")}
    code = {name: held[name] for name in held.keys() - described}
    told = {name.split("/", 1)[1] for name in described}
    return [
        *differences(wanted, code, "the wheel"),
        *(f"{name}: not in the source" for name in sorted(code.keys() - wanted.keys())),
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
