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


SHAPES = ((2048, 576, 1536), (1024, 576, 576), (512, 512, 512), (1024, 1024, 1024))


def matmul_peak(rounds: int = 20) -> float:
    """The best float32 FLOP/s of one matrix product, over several shapes, on one thread."""
    best = 0.0
    for rows, inner, columns in SHAPES:
        a, b = torch.randn(rows, inner), torch.randn(columns, inner)
        for _ in range(rounds):
            started = time.process_time()
            torch.nn.functional.linear(a, b)
            seconds = time.process_time() - started
            best = max(best, 2 * rows * inner * columns / seconds)
    return best
