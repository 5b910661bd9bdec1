"""Processes that begin in one folder at once, with the same settings and with different ones."""

import json
import os
import time
from pathlib import Path

from fault_bench import Bench, Child, Line, about, prompt_lines, table_of


class Gate:
    """Where children wait, right before they create the manifest, until it opens for all."""

    def __init__(self, room: Path) -> None:
        self.read, self.write = os.pipe()
        self.ready = room / f"ready-{os.getpid()}-{self.read}-{time.monotonic_ns()}"

    def wait(self) -> None:
        os.close(self.write)
        os.read(self.read, 1)

    def open(self) -> None:
        os.close(self.write)
        os.close(self.read)

    def hold(self) -> None:
        """In a child: stop right before its manifest."""
        from knockgrid.runs import run_folder

        plain = run_folder.write_manifest

        def write(*given, replace=True):
            if not replace:
                self.ready.touch()
                self.wait()
            plain(*given, replace)

        run_folder.write_manifest = write

    def held(self) -> None:
        """Wait until a child has come to its manifest."""
        until = time.monotonic() + 60
        while not self.ready.exists() and time.monotonic() < until:
            time.sleep(0.002)
        self.ready.unlink(missing_ok=True)


def raced(bench: Bench, line: Line, out: Path, how: str, more: tuple = ()) -> list[Child]:
    """Two processes that begin in one folder, the second one with `more` flags.

    They go at once, or the second ends before the first creates its manifest, or both have put
    their files down before either does.
    """
    gate = Gate(bench.room)
    if how == "at once":
        children = [bench.sweep(out, *flags, before=gate.wait) for flags in ((), more)]
    else:
        children = [bench.sweep(out, before=gate.hold)]
        gate.held()
        both = how == "both held"
        children.append(bench.sweep(out, *more, before=gate.hold if both else lambda: None))
        if both:
            gate.held()
        else:
            line.ended(children[1])
    gate.open()
    return children


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
        alone = i >= times - min(2, times // 2)
        children = raced(bench, line, out, "first held" if alone else "at once")
        codes = [child.wait() for child in children]
        line.expect(codes == [0, 0], f"{codes}: {[child.said[-300:] for child in children]}")
        line.resumed(out, {}, bench.table)
        one_manifest(line, out)
        left = [path.name for path in out.rglob(".*.part")]
        line.wrong("unreadable", len(left), left)
    return line


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
        how = ("both held", "first held", "at once")[i // len(contests) % 3]
        children = raced(bench, line, out, how, more)
        codes = [child.wait() for child in children]
        line.expect(sorted(codes) == [0, 2], f"{more}: exit codes {codes}")
        for child, code in zip(children, codes, strict=True):
            if code == 2:
                line.expect("other settings" in child.sentence, child.said[-300:])
        expected = bench.table if codes[0] == 0 else theirs
        one_manifest(line, out)
        line.resumed(out, {}, expected)
        line.ended(bench.sweep(out, *(() if codes[0] == 0 else more)))  # the winner again
        line.resumed(out, {}, expected)
    return line
