"""What the staircase itself does: useful FLOP/s, share of the divergences, memory, growth."""

import time
from dataclasses import replace
from unittest.mock import patch

import psutil
from transformer_lens.model_bridge import TransformerBridge

import knockgrid as kg
from contenders._measure import timed
from knockgrid.engine.bind import Bound, bind
from knockgrid.engine.executors.executor import items
from knockgrid.engine.executors.rows import plans
from knockgrid.engine.measure import Meter
from knockgrid.engine.settings import Settings
from knockgrid.passes.prepared import prepare


def bound_of(bridge: TransformerBridge, prompts, rows, layers) -> Bound:
    """Runs and cells of some prompts of equal length, recorded and ready."""
    settings = Settings(rows, layers, 1, 1, "noise", False, True, 0, keep_kv=True)
    return bind(bridge, prepare(bridge, prompts, True, 1), range(len(prompts)), settings)


def flops(bridge: TransformerBridge, bound: Bound) -> int:
    """Multiplications and additions that the passes of some cells cannot do without.

    Weight matrices of a block, two per weight and token; scores and mixing, over all keys; the
    unembedding of the measured tokens.
    """
    cfg, block = bridge.cfg, bridge.original_model.model.layers[0]
    weights = sum(w.numel() for w in block.parameters() if w.ndim == 2)
    total = 0
    for plan in plans(bridge, bound.runs, items(bound.cells), None):
        length = len(bound.runs[plan.items[0].run].ids)
        suffix, rows = length - plan.start, len(plan.null_row)
        for layer in range(cfg.n_layers):
            entries = plan.entries.items()
            rows += sum(b - a for (at, after), (a, b) in entries if at + after == layer)
            total += rows * suffix * (2 * weights + 4 * cfg.n_heads * cfg.d_head * length)
        total += 2 * len(plan.row_prompt) * cfg.d_model * cfg.d_vocab
    return total


def subject_flops_per_second(bridge: TransformerBridge, prompts, vectors) -> float:
    """Useful FLOP/s of the passes of the subject row on one thread, the best of three."""
    row = [kg.patch("resid_post", "subject", kg.fixed(vectors))]
    bound = bound_of(bridge, prompts, row, tuple(range(bridge.cfg.n_layers)))
    needed, best = flops(bridge, bound), 0.0
    for _ in range(3):
        started = time.process_time()
        for _ in kg.executors.staircase(bridge, bound.runs, bound.cells):
            pass
        best = max(best, needed / (time.process_time() - started))
    return best


def divergence_share(sweep) -> float:
    """The share of a sweep's CPU time that is spent in its eight divergences."""
    inside, values = 0.0, Meter._values

    def clocked(self, some):
        nonlocal inside
        started = time.process_time()
        found = values(self, some)
        inside += time.process_time() - started
        return found

    with patch.object(Meter, "_values", clocked):
        _, total, _ = timed(sweep)
    return inside / total


def peak_mib(bridge: TransformerBridge, prompts, vectors, sizes) -> dict[int, float]:
    """MiB that the passes of a sweep take over its runs, for several `max_rows`."""
    rows = kg.information_flow(kg.fixed(vectors), window=1)
    bound = bound_of(bridge, prompts, rows, tuple(range(bridge.cfg.n_layers)))
    level, found = psutil.Process().memory_info().rss, {}
    for size in sorted(sizes):
        executor = replace(kg.executors.staircase, max_rows=size)
        before = psutil.Process().memory_info().rss
        _, _, mib = timed(lambda e=executor: [None for _ in e(bridge, bound.runs, bound.cells)])
        found[size] = mib + (before - level) / 2**20
    return found
