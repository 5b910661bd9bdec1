"""The contenders by name, the task they are given, and their rounds."""

import importlib
from collections.abc import Mapping, Sequence
from functools import partial

import knockgrid as kg
from contenders import _knockgrid
from contenders._measure import timed
from contenders._task import Case, Task


def task_of(bridge, hf, prompts, vectors):
    """One task for all contenders."""
    cases = [
        Case(
            bridge.to_tokens(p.text),
            list(kg.token_positions(p, "subject", bridge)),
        )
        for p in prompts
    ]
    return Task(bridge, lambda: hf, cases, vectors)


def contenders(names, few):
    """Name → function of (task, prompts), and on how many prompts it runs."""
    chosen = {
        "staircase": (partial(_knockgrid.js_of, executor="staircase"), None),
        "reference": (partial(_knockgrid.js_of, executor="reference"), few),
    }
    for name in names:
        module = importlib.import_module(f"contenders.{name}")
        chosen[name] = (
            lambda task, prompts, m=module: m.js_of(task),
            4 * few if "padded" in name else few,
        )
    return chosen


def warm_up(executor, bridge, prompts, vectors):
    """Preflight happens once per model and kind of edit, not once per sweep."""
    rows = kg.information_flow(kg.fixed(vectors), window=1)
    kg.sweep(bridge, prompts, rows, layers=[0, -1], executor=executor, progress=False)


def run_rounds(bridge, hf, prompts: Mapping[int, Sequence[kg.Prompt]], vectors, chosen, rounds):
    """One row per length, round and contender: seconds per prompt, MiB, |ΔJS| to the staircase.

    The mix is one sweep of the staircase over the prompts of all lengths together (length 0).
    """
    rows, found = [], {}
    every = [one for some in prompts.values() for one in some]
    for name in ("staircase", "reference"):
        warm_up(name, bridge, every[:1], vectors)
    for number in range(rounds):
        for length, some in prompts.items():
            for name, (call, count) in chosen.items():
                part = some[:count]
                task = task_of(bridge, hf, part, vectors)
                js, seconds, mib = timed(lambda c=call, t=task, p=part: c(t, p))
                found[name] = js
                apart = max(abs(a - b) for a, b in zip(js, found["staircase"], strict=False))
                rows.append((length, number, name, seconds / len(part), mib, apart))
                print(*rows[-1], flush=True)
        task = task_of(bridge, hf, every, vectors)
        _, seconds, mib = timed(lambda t=task: chosen["staircase"][0](t, every))
        rows.append((0, number, "staircase", seconds / len(every), mib, 0.0))
        print(*rows[-1], flush=True)
    return rows
