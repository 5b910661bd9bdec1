"""A Ray cluster: connected to, or started on this machine, and what it has room for."""

import importlib.util
import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from knockgrid.errors import InputError, missing_extra

STORE = 512 * 2**20
"""Bytes of shared memory for shards on their way, of a cluster that is started here."""
CPUS = 2
"""CPUs of an actor without a GPU, where nothing is said."""


@dataclass(frozen=True)
class Room:
    """How many actors there are, and the CPUs and GPUs of each."""

    workers: int
    cpus: int
    gpus: float


def needs_ray() -> None:
    """Refuse where the extra is missing."""
    if importlib.util.find_spec("ray") is None:
        raise missing_extra("the ray engine", "Ray", "ray")


@contextmanager
def connected(address: str | None, cpus: int | None) -> Iterator[None]:
    """A connection to a cluster: the one in use, which stays, one with an address, or one of our own.

    A cluster of this machine listens on its loopback address only and wants a token, since Ray
    would otherwise run whatever anyone sends it.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    known = "ray" in sys.modules
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray asks for every accelerator's variable on import, and warns of a default to come.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is None and not known:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # "no cluster": loopback
        if "RAY_AUTH_MODE" not in os.environ:
            os.environ["RAY_AUTH_MODE"] = "token"
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    import ray

    if ray.is_initialized():
        yield
        return
    ours = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    here: dict[str, Any] = {
        "address": "local",
        "num_cpus": max(cpus or 1, ours or 1),
        "include_dashboard": False,
        "object_store_memory": STORE,
        "_node_ip_address": "127.0.0.1",
    }
    with handlers_kept():
        try:
            ray.init(**({"address": address} if address else here), **quiet)
        except (ConnectionError, RuntimeError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            raise InputError(f"there is no Ray cluster at {address or 'hand'} ({first})") from None
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Put back the handler of SIGTERM, which `ray.init` replaces by one that exits at once."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM) if main else None
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


Nodes = Sequence[Mapping[str, float]]


def room(nodes: Nodes, workers: int | None, cpus: int | None, gpus: float | None) -> Room:
    """What is asked for, and for what is not: an actor per GPU, or else per two CPUs."""
    if gpus is None:
        gpus = 1 if any(node.get("GPU", 0) >= 1 for node in nodes) else 0

    def places(n: int) -> int:
        return sum(
            int(min(node.get("CPU", 0) // n, node.get("GPU", 0) // gpus if gpus else n * 10**6))
            for node in nodes
        )

    most = max((int(node.get("CPU", 0)) for node in nodes), default=1)
    if cpus is None and workers is not None and not gpus:
        cpus = next((n for n in range(most, 0, -1) if places(n) >= workers), 1)
    elif cpus is None:
        cpus = 1 if gpus else max(1, min(CPUS, most))
    return Room(workers or max(1, places(cpus)), cpus, gpus)
