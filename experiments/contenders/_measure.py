"""CPU time and peak memory of a call, and the machine's own matrix-product peak."""

import threading
import time
from collections.abc import Callable
from typing import Any

import psutil
import torch


def timed(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """Result, CPU seconds, and how far resident memory rose above its level before, in MiB."""
    process, done = psutil.Process(), threading.Event()
    before = peak = process.memory_info().rss

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.01):
            peak = max(peak, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.process_time()
    try:
        result = call()
        seconds = time.process_time() - started
    finally:
        done.set()
        watcher.join()
    return result, seconds, (peak - before) / 2**20


def matmul_peak(rows: int, inner: int, columns: int, rounds: int = 20) -> float:
    """The best float32 FLOP/s of a matrix product of one shape."""
    a, b, best = torch.randn(rows, inner), torch.randn(columns, inner), 0.0
    for _ in range(rounds):
        started = time.process_time()
        torch.nn.functional.linear(a, b)
        best = max(best, 2 * rows * inner * columns / (time.process_time() - started))
    return best
