"""A slow executor: what it costs, and which version or option would spare it."""

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.engine.settings import Settings
from knockgrid.errors import InputError
from knockgrid.host.cache import should_take_cache
from knockgrid.host.versions import here, install_tested
from knockgrid.passes.prepared import Prepared
from knockgrid.passes.run import input_device, keep_measured, run_hooked

NO_CACHE = "the model keeps no keys and values, or takes no cache"
ASKED_FROM = 600.0
"""Seconds from which on a sweep that the hosts' versions make slow is begun only when told to."""
ROWS = 8


class FallbackWarning(UserWarning):
    """A sweep runs on a slower executor than expected; `plain` says why without what it costs."""

    plain = ""


@dataclass(frozen=True)
class Cost:
    """How many times the staircase's time an executor takes, and the seconds of a whole sweep."""

    times: float
    seconds: float

    def __str__(self) -> str:
        whole = f"{self.seconds / 60:.0f} min" if self.seconds >= 90 else f"{self.seconds:.1g} s"
        return f"about {self.times:.2g} times as long, some {whole} in all"


def passed(model: TransformerBridge, ids: torch.Tensor) -> float:
    """Seconds of one plain pass over `[row, pos]`."""
    started = time.perf_counter()
    with torch.inference_mode():
        logits = run_hooked(model, ids, [("unembed.hook_in", keep_measured(slice(-1, None)))])
        float(logits[0, 0, 0])  # waits for a device
    return time.perf_counter() - started


def cost(
    model: TransformerBridge, ready: Sequence[Prepared], settings: Settings, whole: bool
) -> Cost:
    """What a sweep costs without the staircase, from a cell and a few rows that are timed here.

    If not `whole`, a cell is a row from the first block on and no pass of its own. The staircase's
    pass has half of the rows on average, so its suffixes count for nothing.
    """
    prompt = sorted(ready, key=lambda one: len(one.tokens))[len(ready) // 2]
    behind = prompt.tokens.given or [prompt.tokens.ids[-1]] * (settings.n_tokens - 1)
    ids = torch.tensor([[*prompt.tokens.ids, *behind]])
    length = ids.shape[1]
    ids = ids[:, :length].to(input_device(model))
    one, several = passed(model, ids), passed(model, ids.expand(ROWS, -1))
    row = max((several - one) / (ROWS - 1), one / 1000)
    cells = len(settings.cells) * settings.samples
    call = max(one - row, 0.0)
    best, here = call + (cells / 2 + 1) * row, cells * one if whole else call + cells * row
    return Cost(max(1.0, here / best), here * len(ready))


def hosts_fault(model: TransformerBridge, reasons: Sequence[str]) -> bool:
    """Whether the versions of the hosts keep the staircase away, and not the kind of model."""
    return any(reason.startswith(NO_CACHE) for reason in reasons) and should_take_cache(model)


def remedy(model: TransformerBridge, reasons: Sequence[str], own_hooks: bool) -> str:
    """The version or option that gives the staircase back, or what shortens the sweep."""
    if own_hooks:
        return "remove the hooks for the fast one"
    if hosts_fault(model, reasons):
        return f"models of this kind have a cache, but {here()} hand none to it: {install_tested()}"
    dtype = next(model.original_model.parameters()).dtype
    if dtype in (torch.float16, torch.bfloat16) and any("in JS" in reason for reason in reasons):
        return "dtype=torch.float32 may let the fast one pass"
    return "no version or option changes that; fewer layers or prompts take less"


def warn_slow(
    model: TransformerBridge,
    ready: Sequence[Prepared],
    settings: Settings,
    name: str,
    reasons: Sequence[str],
    refused: Mapping[str, str],
) -> None:
    """Say why a sweep runs on a slow executor, what that costs, and what would spare it.

    `reasons` concern the model as it is, `refused` maps an executor to what was found against it.
    A long sweep that is slow because of the hosts' versions is refused, unless it was asked for.
    """
    spent, found = cost(model, ready, settings, whole=name == "reference"), [*refused.values()]
    way_out = remedy(model, found, bool(reasons))
    if spent.seconds > ASKED_FROM and hosts_fault(model, found):
        raise InputError(
            f"the sweep would take {spent} on the reference executor: "
            f"{remedy(model, found, own_hooks=False)}; or give executor='reference' "
            "(--set executor=reference) to go on"
        )
    against = [*reasons, *(f"{name}: {reason}" for name, reason in refused.items())]
    why = f"the sweep runs on the {name} executor ({'; '.join(against)})"
    said = FallbackWarning(f"{why} and takes {spent}; {way_out}")
    said.plain = f"{why}; {way_out}"
    warnings.warn(said, stacklevel=6)
