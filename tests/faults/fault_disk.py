"""Disks that are full or read-only, really and by an error at every call."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fault_bench import Bench, Line
from fault_calls import NEED_ROOM, Calls, count_into, no_room
from fault_kill import end

NOBODY = 65534
LOCKED = {"parent": 0o555, "run": 0o555, "shards": 0o555, "hidden": 0o000}
STEP = 24
"""Kilobytes between the amounts of room that are tried."""


@contextmanager
def small_disk(place: Path, kilobytes: int) -> Iterator[Path | None]:
    """A file system of its own; None where this machine does not allow one."""
    place.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={kilobytes}k", "knockgrid"]
    mounted = subprocess.run(["mount", *options, place], capture_output=True).returncode == 0
    try:
        yield place if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "-l", place], check=True)
        place.rmdir()


def taken(folder: Path) -> int:
    """Kilobytes of a folder's files, in whole pages."""
    return sum(-(-path.stat().st_size // 4096) * 4 for path in folder.rglob("*") if path.is_file())


def really_full(bench: Bench) -> Line:
    """A small tmpfs with every amount of room from none to almost enough."""
    line = Line("full disk (a small tmpfs)")
    for room in range(0, taken(bench.undisturbed), STEP):
        with small_disk(bench.folder("disk"), 2048) as disk:
            if disk is None:
                line.notes.append("this machine mounts no tmpfs; only injected errors were tried")
                return line
            line.tried += 1
            filler = disk / "filler"
            with filler.open("wb") as file:
                free = shutil.disk_usage(disk).free
                file.write(b"\0" * max(0, free - room * 1024))
            out = disk / "run"
            line.ends(bench, out, 2, "No space left", "finished shards are kept")
            before = line.interrupted(out)
            filler.unlink()
            end(bench, line, out, before)
    return line


def injected(bench: Bench, every: int = 1) -> Line:
    """`No space left on device` at every write, flush, link and rename of a small run."""
    line = Line("full disk (an error at every call)")
    counts = bench.room / "calls-of-the-disk"
    bench.ended(bench.folder(), before=count_into(counts))
    steps = len([name for name in counts.read_text().split() if name in NEED_ROOM])
    for step in range(1, steps + 1, every):
        out = bench.folder("injected")
        line.tried += 1
        install = Calls(step, no_room, NEED_ROOM).install
        line.ends(bench, out, 2, "No space left", "could not be written", before=install)
        end(bench, line, out, line.interrupted(out))
        left = [path.name for path in out.rglob(".*.part")]
        line.wrong("unreadable", len(left), f"step {step} leaves {left}")
    return line


def read_only(bench: Bench) -> Line:
    """A file system that turns read-only, and folders of somebody else."""
    line = Line("read-only folder")
    with small_disk(bench.folder("disk"), 4096) as disk:
        if disk is not None:
            out = disk / "run"
            before = partly(bench, out, line)
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
            line.tried += 1
            line.ends(bench, out, 2, "cannot be written")
            line.wrong("lost", int(line.interrupted(out) != before), "shards changed")
            subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
            end(bench, line, out, before)
        else:
            line.notes.append("this machine mounts no tmpfs; only rights were tried")
    for locked in ("parent", "run", "shards", "hidden"):
        locked_out(bench, line, locked)
    return line


def locked_out(bench: Bench, line: Line, locked: str) -> None:
    """A folder in which this user may not write, or may not even look."""
    line.tried += 1
    out = bench.folder("locked") / "run"
    out.parent.mkdir()
    before = partly(bench, out, line) if locked != "parent" else {}
    place = {"run": out, "shards": out / "shards"}.get(locked, out.parent)
    ours = [path for path in (out.parent, out, out / "shards") if path.exists()]
    if os.getuid() == 0:
        for path in ours:
            os.chown(path, *((NOBODY, NOBODY) if path != place else (0, 0)))
    place.chmod(0o700 if os.getuid() == 0 and locked == "hidden" else LOCKED[locked])
    code, said = bench.ended(out, before=become_nobody)
    place.chmod(0o755)
    words = "cannot be" in said or "could not be written (Permission denied)" in said
    line.expect(code == 2 and words, f"{locked}: {code} {said!r}")
    line.wrong("lost", int(line.interrupted(out) != before), "shards changed")
    if os.getuid() == 0:
        os.chown(place, NOBODY, NOBODY)
    line.ends(bench, out, 0, before=become_nobody)
    line.resumed(out, before, bench.table)


def become_nobody() -> None:
    """Give up the rights of root, whom no permission bits bind."""
    from knockgrid.engine import setup as _setup

    known = {name: _setup.version(name) for name in _setup.PACKAGES}
    _setup.version = known.__getitem__  # their files may lie where nobody may look
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def partly(bench: Bench, out: Path, line: Line) -> dict:
    """A run of which some shards are there."""
    if not out.exists():
        line.ends(bench, out, 2, before=Calls(5, no_room, ("link",)).install)
        for path in (out, out / "shards"):
            os.chmod(path, 0o755)
    return line.interrupted(out)
