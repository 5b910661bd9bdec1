"""Long runs: memory and file descriptors stay flat, and the store costs next to nothing."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import psutil
from fault_bench import Line, tiny_model

import knockgrid as kg
from knockgrid.runs import running
from knockgrid.runs.run_folder import RunFolder

PER_PROMPT = 1024
"""Bytes of memory that one more prompt may cost while shards are carried out."""
SHARE = 0.03
"""Share of a sweep's time that the store may take."""
FORMS = (
    "The capital of {} is",
    "The language of {} is",
    "The largest city in the far north of {} is",
)


def many_prompts(count: int) -> list[kg.Prompt]:
    """Prompts of a few lengths, each with a name of its own."""
    found = []
    for i in range(count):
        name = f"N{i:05d}"
        text = FORMS[i % len(FORMS)].format(name)
        found.append(kg.Prompt(text, spans={"subject": name}, id=f"p{i}"))
    return found


def soak(count: int = 5000, room: Path | None = None) -> Line:
    """Thousands of prompts into one folder: memory and descriptors by shard."""
    line = Line(f"soak: {count} prompts x 3 rows", tried=1)
    process, model = psutil.Process(), tiny_model()
    memory: list[int] = []
    descriptors: list[int] = []

    plain = RunFolder.write

    def write(*given: Any) -> None:
        plain(*given)
        memory.append(process.memory_info().rss)
        descriptors.append(process.num_fds())

    begun, looking = time.monotonic(), patch.object(RunFolder, "write", write)
    with tempfile.TemporaryDirectory(dir=room) as folder, looking:
        out = Path(folder) / "run"
        table = kg.sweep(model, many_prompts(count), kg.information_flow(), out=out, progress=False)
    seconds = time.monotonic() - begun
    rows = count * 3 * 2
    line.wrong("lost", count - table["prompt"].nunique(), "prompts")
    line.wrong("unequal", int(len(table) != rows), f"{len(table)} rows instead of {rows}")
    late = slice(len(memory) // 3, None)
    prompts = np.arange(len(memory))[late] * (count / len(memory))
    slope = float(np.polyfit(prompts, memory[late], 1)[0])
    line.expect(slope < PER_PROMPT, f"memory grows by {slope:.0f} bytes a prompt")
    grown = max(descriptors[late]) - min(descriptors[late])
    line.expect(grown <= 1, f"{grown} more file descriptors")
    line.notes.append(
        f"{seconds:.0f} s, {len(memory)} shards, {slope:+.0f} bytes a prompt, "
        f"{memory[-1] / 2**20:.0f} MiB at the end, {descriptors[-1]} descriptors (+{grown})"
    )
    return line


@contextmanager
def timed(spent: dict[str, float]) -> Iterator[None]:
    """Add up the time inside everything that the store does during a sweep."""

    def timing(name: str, function: Callable) -> Callable:
        def called(*given: Any, **options: Any) -> Any:
            begun = time.monotonic()
            try:
                return function(*given, **options)
            finally:
                spent[name] = spent.get(name, 0.0) + time.monotonic() - begun

        return called

    places = [(RunFolder, name) for name in ("begin", "write", "state", "settle")]
    places += [(running, "finish"), (running, "open_run")]
    with ExitStack() as held:
        for owner, name in places:
            held.enter_context(patch.object(owner, name, timing(name, getattr(owner, name))))
        yield


def store_share(count: int = 24, room: Path | None = None) -> Line:
    """The share of the store in a sweep of the demo model."""
    line = Line(f"store's share of a demo sweep ({count} facts)", tried=1)
    model = kg.load("demo")
    facts = kg.known(model, kg.facts("country_capital_city")[: 2 * count])[:count]
    spent: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=room) as folder, timed(spent):
        out, begun = Path(folder) / "run", time.monotonic()
        kg.sweep(model, facts, kg.information_flow(), out=out, batch=8, progress=False)
        seconds = time.monotonic() - begun
        size = sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file())
    share = sum(spent.values()) / seconds
    line.expect(share < SHARE, f"the store takes {share:.1%} of the time")
    parts = ", ".join(f"{name} {1000 * took:.0f} ms" for name, took in spent.items())
    line.notes.append(f"{share:.2%} of {seconds:.1f} s ({parts}); {size // 1024} KiB on disk")
    return line


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for measure in (soak, store_share):
        print(measure(), flush=True)
