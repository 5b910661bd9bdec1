"""Processes that begin in one folder at once, with the same settings and with different ones."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from fault_bench import Bench, Line, about, equal, prompt_lines, table_of


def gate() -> tuple[Callable[[], None], Callable[[], None]]:
    """A barrier: what a child waits at, and what opens it for all."""
    read, write = os.pipe()

    def wait() -> None:
        os.close(write)
        os.read(read, 1)

    def open_all() -> None:
        os.close(write)
        os.close(read)

    return wait, open_all


def held_before_the_manifest(wait: Callable[[], None], ready: Path) -> Callable[[], None]:
    """A child that stops right before it creates the manifest, until the gate opens."""

    def before() -> None:
        from knockgrid.runs import run_folder

        plain = run_folder.write_manifest

        def write(*given, replace=True):
            if not replace:
                ready.touch()
                wait()
            plain(*given, replace)

        run_folder.write_manifest = write

    return before


def one_manifest(line: Line, out: Path) -> None:
    """One manifest, and every shard of the run that it tells of."""
    manifest = json.loads((out / "manifest.json").read_text())
    runs = {about(path)["run"] for path in (out / "shards").glob("*.parquet")}
    line.wrong("unequal", int(runs != {manifest["run_digest"]}), f"shards of runs {runs}")


def same_run(bench: Bench, times: int) -> Line:
    """Two processes begin the same run at the same moment; in the last tries one is held back."""
    line = Line("two processes begin the same run at once")
    for i in range(times):
        line.tried += 1
        out = bench.folder("same")
        wait, open_all = gate()
        if i < times - min(2, times // 2):
            children = [bench.sweep(out, before=wait) for _ in range(2)]
            open_all()
        else:
            ready = bench.room / f"ready-{os.getpid()}-{i}"
            children = [bench.sweep(out, before=held_before_the_manifest(wait, ready))]
            await_file(ready)
            children.append(bench.sweep(out))
            line.ended(children[1])
            open_all()
        codes = [child.wait() for child in children]
        line.expect(codes == [0, 0], f"{codes}: {[child.said[-300:] for child in children]}")
        line.resumed(out, {}, bench.table)
        one_manifest(line, out)
        left = [path.name for path in out.rglob(".*.part")]
        line.wrong("unreadable", len(left), left)
    return line


def await_file(path: Path) -> None:
    """Wait until a child has come to a certain place."""
    until = time.monotonic() + 60
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.002)


def different_runs(bench: Bench, times: int, kinds: int = 4) -> Line:
    """Two processes with different settings in one folder: one wins, nothing is mixed."""
    line = Line("two processes begin different runs in one folder")
    lines = prompt_lines()
    others = bench.file([{**one, "id": "q" + one["id"]} for one in lines[::-1]], "other-prompts")
    contests = [
        ("--seed", 1),
        ("--prompts", others),
        ("--source", "zero"),
        ("--layers", "1"),
    ]
    contests = contests[:kinds]
    tables = []
    for more in contests:
        alone = bench.folder("alone")
        line.ended(bench.sweep(alone, *more))
        tables.append(table_of(alone))
    for i in range(times):
        line.tried += 1
        out = bench.folder("different")
        more, theirs = contests[i % len(contests)], tables[i % len(contests)]
        wait, open_all = gate()
        ready = bench.room / f"ready-different-{os.getpid()}-{i}"
        how = (2 - i // len(contests)) % 3
        if how == 0:
            children = [bench.sweep(out, before=wait), bench.sweep(out, *more, before=wait)]
            open_all()
        elif how == 1:  # the other is done before this one creates its manifest
            held = held_before_the_manifest(wait, ready)
            children = [bench.sweep(out, before=held)]
            await_file(ready)
            children.append(bench.sweep(out, *more))
            line.ended(children[1])
            open_all()
        else:  # both have put their files down before either creates its manifest
            held = held_before_the_manifest(wait, ready)
            children = [bench.sweep(out, before=held)]
            await_file(ready)
            ready.unlink()
            children.append(bench.sweep(out, *more, before=held))
            await_file(ready)
            open_all()
        codes = [child.wait() for child in children]
        line.expect(sorted(codes) == [0, 2], f"{more}: exit codes {codes}")
        for child, code in zip(children, codes, strict=True):
            if code == 2:
                line.expect("other settings" in child.sentence, child.said[-300:])
        expected = bench.table if codes[0] == 0 else theirs
        line.wrong("unequal", int(not same(out, expected)), f"{more}")
        one_manifest(line, out)
        line.ended(bench.sweep(out, *(() if codes[0] == 0 else more)))  # the winner again
        line.resumed(out, {}, expected)
    return line


def same(out: Path, expected) -> bool:
    """Whether a run can be read and equals another."""
    try:
        return equal(table_of(out), expected)
    except Exception:
        return False
