"""All faults: `nox -s faults`. Prints one table; anything but zeros is an exit code of 1."""

import os
import pickle
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "OMP_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before torch is imported, in the functions below
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["KNOCKGRID_RECEIPTS"] = "off"  # a table tells whether its receipt was kept from before

Job = tuple[str, Callable]
SEED = 6
AT_ONCE = 2
"""Processes that look for faults; each forks the processes under test."""


def jobs(times: int) -> list[Job]:
    """What is tried, the longest first, each with a bench and a source of randomness."""
    import signal

    import fault_compact
    import fault_damage
    import fault_disk
    import fault_kill
    import fault_prompt
    import fault_race
    import fault_ray

    every = max(1, 50 // times)
    found: list[Job] = [
        ("kill2", lambda b, r: fault_kill.killed(b, r, times, writers=2)),
        ("kill1", lambda b, r: fault_kill.killed(b, r, times, writers=1)),
        ("step", lambda b, r: fault_kill.killed_at_every_step(small(b), every)),
        ("errors", lambda b, r: fault_disk.injected(small(b), every)),
        ("flips", lambda b, r: fault_damage.flipped(b, r, 4 * times)),
        ("same", lambda b, r: fault_race.same_run(b, max(3, 20 * times // 50))),
        ("other", lambda b, r: fault_race.different_runs(b, max(12, 20 * times // 50))),
        ("cuts", lambda b, r: fault_damage.truncated(b)),
        ("compact", lambda b, r: fault_compact.compacted(small(b), every)),
        ("tmpfs", lambda b, r: fault_disk.really_full(b)),
        ("int", lambda b, r: fault_kill.stopped(b, r, max(3, times // 5), signal.SIGINT)),
        ("term", lambda b, r: fault_kill.stopped(b, r, max(3, times // 5), signal.SIGTERM)),
        ("hand", lambda b, r: fault_kill.stopped_in_hand(b)),
        ("rights", lambda b, r: fault_disk.read_only(b)),
        ("misplaced", lambda b, r: fault_damage.misplaced(b)),
        ("damage", lambda b, r: fault_compact.compacted_damage(b)),
        ("raises", lambda b, r: fault_prompt.raised(b)),
        ("once", lambda b, r: fault_prompt.raised_once(b)),
        ("worse", lambda b, r: fault_prompt.kept_from_worse(b)),
    ]
    if fault_ray.available():
        found.append(("ray", lambda b, r: fault_ray.actor_killed(b)))
    return found


def small(bench):
    """A bench with two shards, for what is tried at every single step."""
    from fault_bench import Bench

    room = bench.folder("small")
    room.mkdir()
    return Bench(room, count=4, model=bench.model)


def carried_out(name: str, job: Callable, bench, room: Path) -> None:
    """One job in a forked process; its line is left in a file."""
    from fault_bench import Line

    begun = time.monotonic()
    try:
        line = job(bench, random.Random(f"{SEED} {name}"))
    except BaseException:
        line = Line(f"{name} (the harness itself failed)", tried=1, said_wrong=1)
        line.notes.append(traceback.format_exc())
    line.seconds = time.monotonic() - begun
    (room / f"line-{name}").write_bytes(pickle.dumps(line))


def all_lines(bench, chosen: Sequence[Job], room: Path) -> list:
    """Every job, a few at a time."""
    waiting, running = list(chosen), {}
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            name, job = waiting.pop(0)
            pid = os.fork()
            if not pid:
                carried_out(name, job, bench, room)
                os._exit(0)
            running[pid] = name
        pid, _ = os.wait()
        name = running.pop(pid, None)
        if name:
            print(f"  {name} done", file=sys.stderr, flush=True)
    return [pickle.loads((room / f"line-{name}").read_bytes()) for name, _ in chosen]


def main() -> int:
    """Try everything (or what is named) and print the table."""
    from fault_bench import Bench, report
    from fault_soak import soak, store_share

    arguments = sys.argv[1:]
    times = int(os.environ.get("FAULTS", "50"))
    begun = time.monotonic()
    room = Path(tempfile.mkdtemp(prefix="faults-"))
    room.chmod(0o755)  # a process without root's rights has to get at its folder
    chosen = [job for job in jobs(times) if not arguments or job[0] in arguments]
    try:
        lines = all_lines(Bench(room), chosen, room)
    finally:
        shutil.rmtree(room, ignore_errors=True)
    for name, measure in (("soak", lambda: soak(100 * times)), ("store", store_share)):
        if not arguments or name in arguments:
            since = time.monotonic()
            lines.append(measure())
            lines[-1].seconds = time.monotonic() - since
    print(report(lines))
    for line in lines:
        for note in line.notes:
            print(f"{line.fault}: {note}")
    print(f"{time.monotonic() - begun:.0f} s")
    return int(any(line.bad for line in lines))


if __name__ == "__main__":
    sys.exit(main())
