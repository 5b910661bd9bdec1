"""Benchmark a sweep on a machine that others use: wall clock beside 0, 1 and 2 busy processes.

    python experiments/benchmark_contention.py

Every sweep has its own process. Prints medians as Markdown, and what the default is held to.
"""

import argparse
import os
import subprocess
import sys
from statistics import median

SWEEP = """
import sys, time
import knockgrid as kg
from knockgrid import prompts as datasets
model, n, threads = kg.load("demo"), int(sys.argv[1]), int(sys.argv[2])
facts = datasets.facts()
prompts = facts[:: len(facts) // n][:n]
began = time.perf_counter()
table = kg.sweep(model, prompts, kg.information_flow(), threads=threads or None, progress=False)
print(time.perf_counter() - began, *table.attrs["knockgrid"]["threads"]["used"])
"""
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
WAYS = {
    "default": (0, {}),
    "passive (the command line)": (0, PASSIVE),
    "`threads=1`": (1, {}),
    f"`threads={CPUS}`": (CPUS, {}),
    f"`threads={CPUS}`, passive": (CPUS, PASSIVE),
}


def seconds(prompts: int, threads: int, environment: dict[str, str]) -> tuple[float, str]:
    """Wall clock of one sweep, and the threads that it used in turn."""
    own = {k: v for k, v in os.environ.items() if k[:4] not in ("OMP_", "KMP_", "GOMP", "MKL_")}
    command = [sys.executable, "-c", SWEEP, str(prompts), str(threads)]
    said = subprocess.check_output(command, env=own | environment, text=True)
    took, *used = said.splitlines()[-1].split()
    return float(took), ", ".join(used)


def beside(busy: int, given: argparse.Namespace) -> dict[str, tuple[float, str]]:
    """Every way beside so many busy processes: the median, and the threads of every round."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        rounds = range(given.rounds)
        every = [{way: seconds(given.prompts, *WAYS[way]) for way in WAYS} for _ in rounds]
    finally:
        for other in others:
            other.kill()
    return {
        way: (median(e[way][0] for e in every), "; ".join(e[way][1] for e in every)) for way in WAYS
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    found = {busy: beside(busy, given) for busy in given.busy}
    print(f"| {given.prompts} facts, {CPUS} processors |", *(f"{b} busy |" for b in found))
    print("|---" * (len(found) + 1) + "|")
    for way in WAYS:
        print(f"| {way} |", *(f"{ways[way][0]:.1f} s |" for ways in found.values()))
    for busy, ways in found.items():
        print(f"\nThreads that the default used beside {busy}, by round: {ways['default'][1]}")
    if {0, 1} <= found.keys():
        alone = found[0]["default"][0]
        better = min(found[0]["`threads=1`"][0], found[0][f"`threads={CPUS}`"][0])
        print(f"\nDefault beside one busy process: {found[1]['default'][0] / alone:.2f} x alone")
        print(f"Default alone: {alone / better:.2f} x the better of one and all threads")


if __name__ == "__main__":
    main()
