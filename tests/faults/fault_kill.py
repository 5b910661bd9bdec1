"""Processes that are killed or asked to stop, at random moments and at every step."""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path

from fault_bench import Bench, Line
from fault_calls import Calls, count_into, die

HOW_TO_GO_ON = "the same command goes on"


def stage_of(folder: Path, shards: int, total: int) -> str:
    """How far a run had come."""
    if not (folder / "manifest.json").exists():
        return "set-up"
    return f"{shards} of {total} shards" if shards < total else "all shards"


def end(bench: Bench, line: Line, out: Path, before: dict) -> None:
    """Give the command again and look at everything."""
    line.ends(bench, out, 0, before=refusing(before))
    line.resumed(out, before, bench.table)


def refusing(there: Collection[str]) -> Callable[[], None]:
    """A sweep that fails if it computes what is there."""

    def before() -> None:
        from knockgrid.runs.work import Work

        plain = Work.carry_out

        def carry_out(self, number, *given):
            assert f"{number:05d}.parquet" not in there, f"shard {number} is computed twice"
            return plain(self, number, *given)

        Work.carry_out = carry_out

    return before


def killed(bench: Bench, rng: random.Random, times: int, writers: int) -> Line:
    """kill -9 at random moments from the first moment to a little after the end."""
    line = Line(f"kill -9 at a random moment, {writers} writer{'s' * (writers > 1)}")
    total = len(list((bench.undisturbed / "shards").iterdir()))
    seconds = bench.seconds() * (1.5 if writers > 1 else 1.0)
    stages: Counter[str] = Counter()
    for i in range(times):
        out = bench.folder("killed")
        line.tried += 1
        parts = [("--shard", f"{n + 1}/{writers}") if i % 2 else () for n in range(writers)]
        children = [bench.sweep(out, *part) for part in parts]
        time.sleep(rng.uniform(0, 1.05 * seconds))
        doomed = children if writers == 1 or i % 4 < 2 else [rng.choice(children)]
        for child in doomed:
            os.kill(child.pid, signal.SIGKILL)
        codes = [child.wait() for child in doomed]
        line.expect(set(codes) <= {137, 0}, f"exit codes {codes}")
        before = line.interrupted(out)
        stages[stage_of(out, len(before), total)] += 1
        for child in children:
            if child not in doomed:  # the other writer
                line.ended(child)
        end(bench, line, out, before)
    line.notes.append("killed in: " + ", ".join(f"{n} x {s}" for s, n in sorted(stages.items())))
    return line


def killed_at_every_step(bench: Bench, every: int = 1) -> Line:
    """kill -9 right before each call that changes the file system, of a small run."""
    line = Line("kill -9 at every write, flush, link and rename")
    counts = bench.room / "calls"
    bench.ended(bench.folder(), before=count_into(counts))
    steps = len(counts.read_text().split())
    for step in range(1, steps + 1, every):
        out = bench.folder("step")
        line.tried += 1
        line.ends(bench, out, 137, before=Calls(step, die).install)
        end(bench, line, out, line.interrupted(out))
    return line


def stopped(bench: Bench, rng: random.Random, times: int, number: int) -> Line:
    """Ctrl-C or SIGTERM: the shard in hand is finished, and it is said how to go on."""
    line = Line(f"{signal.Signals(number).name} at a random moment")
    seconds = bench.seconds()
    codes: Counter[int] = Counter()
    for _ in range(times):
        out = bench.folder("stopped")
        line.tried += 1
        child = bench.sweep(out)
        time.sleep(rng.uniform(0.2, 0.9) * seconds)
        os.kill(child.pid, number)
        code = child.wait()
        codes[code] += 1
        line.expect(code in (0, 128 + number), f"exit code {code}: {child.said[-300:]}")
        if code and (out / "manifest.json").exists() and number == signal.SIGINT:
            line.expect(HOW_TO_GO_ON in child.sentence, child.said[-300:])
        before = line.interrupted(out)
        if "after" in child.sentence:
            kept = int(child.sentence.split("stopped after ")[1].split()[0])
            line.expect(kept == len(before), f"{kept} shards kept, {len(before)} there")
            left = [p.name for p in (out / "shards").iterdir() if p.name.startswith(".")]
            line.wrong("unreadable", len(left), left)
        end(bench, line, out, before)
    line.notes.append(f"exit codes: {dict(codes)}")
    return line


def stopped_in_hand(bench: Bench) -> Line:
    """Ctrl-C and SIGTERM while a shard is being computed: exactly that one is still kept."""
    line = Line("SIGINT and SIGTERM while a shard is in hand")
    from knockgrid.runs.work import Work

    for number in (signal.SIGINT, signal.SIGTERM):
        out = bench.folder("in-hand")
        line.tried += 1

        def before(number: int = number) -> None:
            plain, seen = Work.carry_out, []

            def carry_out(self, *given):
                seen.append(given)
                if len(seen) == 3:
                    signal.raise_signal(number)
                return plain(self, *given)

            Work.carry_out = carry_out

        line.ends(bench, out, 128 + number, "stopped after 3 of", HOW_TO_GO_ON, before=before)
        there = line.interrupted(out)
        line.wrong("lost", int(len(there) != 3), f"{len(there)} shards instead of 3")
        end(bench, line, out, there)
    return line
