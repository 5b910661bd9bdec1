"""Receipts: what preflight has seen on a model, kept in memory and in the user's cache."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from platform import python_version
from typing import Any

import torch
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.host.bridge import attention_of
from knockgrid.host.demo import cache_folder
from knockgrid.host.digests import weights_digest
from knockgrid.host.versions import version

Receipt = dict[str, Any]
MOST = 256
"""Receipts that the cache holds; older ones make room."""
HOSTS = ("knockgrid", "torch", "transformers", "transformer_lens", "accelerate")
ANEW: ContextVar[bool] = ContextVar("anew", default=False)


@dataclass(frozen=True)
class Asked:
    """What a sweep asks a receipt for: `kinds` maps a kind to the first positions tried of it."""

    kinds: Mapping[str, int]
    prompts: int
    layers: tuple[int, ...]
    more: tuple[Any, ...]

    def holds_for(self, other: "Asked") -> bool:
        """Whether what was tried then, with more kinds or another prompt perhaps, is enough now."""
        enough = all(self.kinds.get(kind, 0) >= n for kind, n in other.kinds.items())
        same = (self.layers, self.more) == (other.layers, other.more)
        return enough and same and self.prompts >= other.prompts


def state_of(model: TransformerBridge) -> tuple[Any, ...]:
    """What a receipt in memory holds for; another module, dtype or device makes it void."""
    weight = next(model.original_model.parameters())
    return (
        str(weight.dtype),
        str(weight.device),
        bool(model.compatibility_mode),
        attention_of(model),
        torch.get_float32_matmul_precision(),
        hash(tuple((name, id(part)) for name, part in model.original_model.named_modules())),
    )


@contextmanager
def anew() -> Iterator[None]:
    """Try every kind anew, whatever was kept."""
    token = ANEW.set(True)
    try:
        yield
    finally:
        ANEW.reset(token)


def kept(model: TransformerBridge, asked: Asked) -> Receipt | None:
    """The receipt in the user's cache, with the date of its making as `kept`; None if damaged."""
    file = _file(model, asked)
    try:
        found = {} if file is None else json.loads(file.read_text("utf-8"))
        text = json.dumps(found["receipt"])
        return {**found["receipt"], "kept": found["made"]} if found["sum"] == _sum(text) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep(model: TransformerBridge, asked: Asked, receipt: Receipt) -> None:
    """Put a receipt into the user's cache, in one move; a cache that cannot be written is left."""
    file = _file(model, asked)
    if file is None:
        return
    made = datetime.now(timezone.utc).isoformat(timespec="seconds")
    with suppress(OSError, TypeError, ValueError):
        receipt = json.loads(json.dumps(receipt))
        content = {"made": made, "sum": _sum(json.dumps(receipt)), "receipt": receipt}
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, suffix=".part")
        with os.fdopen(handle, "w", encoding="utf-8") as part:
            json.dump(content, part)
        Path(name).replace(file)
        every = sorted(file.parent.iterdir(), key=lambda one: one.stat().st_mtime)
        for old in every[:-MOST]:
            old.unlink(missing_ok=True)


def _file(model: TransformerBridge, asked: Asked) -> Path | None:
    """Where a receipt lies; None if they are off, or where a class may be another one tomorrow."""
    folder = os.environ.get("KNOCKGRID_RECEIPTS") or str(cache_folder() / "receipts")
    whole = model.original_model
    parts = [(name, type(part)) for name, part in whole.named_modules()]
    own = any(kind.__module__.split(".")[0] not in HOSTS for _, kind in parts)
    if folder == "off" or own or any("forward" in vars(part) for part in whole.modules()):
        return None
    packages = ("knockgrid", "transformer-lens", "transformers", "torch")
    config = getattr(whole, "config", None)
    key = (
        weights_digest(model),
        state_of(model)[:-1],
        [(name, kind.__qualname__) for name, kind in parts],
        config.to_json_string() if config is not None else "",
        python_version(),
        [version(package) for package in packages],
        sorted(asdict(asked).items()),
    )
    return Path(folder) / f"{_sum(repr(key))[:40]}.json"


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
