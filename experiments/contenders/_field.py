"""The contenders by name, and the task they are given."""

import importlib
from functools import partial

import knockgrid as kg
from contenders import _knockgrid
from contenders._task import Case, Task


def task_of(bridge, hf, prompts, vectors):
    """One task for all contenders."""
    cases = [
        Case(
            bridge.to_tokens(p.text),
            list(kg.token_positions(p, "subject", bridge.tokenizer)),
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
