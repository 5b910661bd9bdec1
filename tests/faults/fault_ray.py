"""A Ray actor that is killed: only where Ray is installed and the engine is there."""

import importlib.util
import os
import signal
import threading
import time

from fault_bench import Bench, Line


def available() -> bool:
    """Whether `knockgrid sweep --engine ray` can be given here."""
    return all(importlib.util.find_spec(name) for name in ("ray", "knockgrid.edge.ray"))


def actors() -> list[int]:
    """The processes of Ray actors on this machine that are ours."""
    import psutil

    here = psutil.Process(os.getpid()).children(recursive=True)
    return [one.pid for one in here if one.name().startswith("ray::")]


def actor_killed(bench: Bench, times: int = 2) -> Line:
    """kill -9 of an actor in mid-run: its shards are carried out by another one."""
    import knockgrid as kg
    from knockgrid.interventions import information_flow

    line = Line("Ray actor killed")
    prompts = kg.read_prompts(bench.prompts)
    options = {"layers": "all", "batch": 2, "progress": False}
    for i in range(times):
        line.tried += 1
        out = bench.folder("ray")
        expected = kg.sweep(bench.model, prompts, information_flow(), **options)
        killed: list[int] = []

        def kill(out=out, killed=killed) -> None:
            until = time.monotonic() + 60
            while not list((out / "shards").glob("*.parquet")) and time.monotonic() < until:
                time.sleep(0.01)
            for pid in actors()[:1]:
                os.kill(pid, signal.SIGKILL)
                killed.append(pid)

        thread = threading.Thread(target=kill)
        thread.start()
        kg.sweep(bench.model, prompts, information_flow(), out=out, engine="ray", **options)
        thread.join()
        line.expect(bool(killed), f"try {i}: no actor was found")
        line.resumed(out, {}, expected)
    return line
