"""Bounds: how many prompts are bound at once, and what is left of the memory for their passes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace

import torch
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.divergences.evaluate import chunk_rows
from knockgrid.edits.intervention import Intervention
from knockgrid.engine.anywhere import HELD, LOGITS
from knockgrid.engine.executors.executor import Executor
from knockgrid.engine.memory import LEAST, Memory, in_words
from knockgrid.engine.record import sites_of
from knockgrid.engine.settings import Settings
from knockgrid.errors import InputError
from knockgrid.host.sizes import Sizes, sizes_of
from knockgrid.passes.chunked import part_size
from knockgrid.passes.prepared import Prepared
from knockgrid.passes.run import Run, input_device
from knockgrid.sources.source import RunSpec, Unavailable

AT_ONCE = {"cpu": 8}
"""Outcomes that are measured together; on accelerators launches should not dominate."""
TERMS = 12
"""Arrays of a chunk that the divergences hold at a time."""


@dataclass(frozen=True)
class Need:
    """The bytes that a batch of prompts of one length needs.

    `kept` are those of one prompt's recorded runs, `cache` those of its keys and values, which a
    pass copies; `recording` of one row while runs are recorded, `runs` the source runs of a prompt;
    `row` of one row of a pass, `measuring` while divergences are taken.
    """

    kept: int
    cache: int
    recording: int
    runs: int
    row: int
    measuring: int

    @property
    def least(self) -> int:
        """What one prompt in the smallest passes takes."""
        passing = self.cache + LEAST * self.row + self.measuring
        return self.kept + max(self.recording, passing)

    def prompts(self, memory: Memory, n: int) -> int:
        """How many of n prompts are bound at once: at most half of the memory is for their runs."""
        bounds = [n, *(b for b in (memory.prompts, memory.most_rows) if b is not None)]
        if memory.max_bytes is not None:
            bounds.append((memory.max_bytes - self.measuring) // 2 // (self.kept + self.cache))
            bounds.append(memory.max_bytes // (self.kept + self.recording))
        return max(1, min(bounds))

    def rows(self, memory: Memory, n: int) -> int | None:
        """The rows of one pass in which the runs of n prompts are recorded, at most."""
        bounds = [] if memory.most_rows is None else [memory.most_rows]
        if memory.max_bytes is not None:
            bounds.append((memory.max_bytes - n * self.kept) // self.recording)
        return max(1, min(bounds)) if bounds else None

    def left(self, memory: Memory, runs: Iterable[Run], n: int) -> int | None:
        """What passes may allocate while the runs of n prompts are there, as measured on them."""
        if memory.max_bytes is None:
            return None
        return max(0, memory.max_bytes - bytes_held(runs) - n * self.cache - self.measuring)


def need_of(
    sizes: Sizes,
    length: int,
    settings: Settings,
    acts: Sequence[str],
    n_runs: int,
    keep_kv: bool,
    device: str,
) -> Need:
    """What prompts of one length need, `length` counting the measured tokens but the last."""
    n_tokens = 1 if settings.anywhere else settings.n_tokens
    edges, suffix = any(one.edges for one in settings.parts), length
    if settings.anywhere:  # passes are made in parts
        suffix = min(length, part_size(sizes, length))
    row = sizes.row(length, suffix, n_tokens)
    kept = sizes.run(length, n_tokens, acts, keep_kv, edges) * (1 + n_runs)
    if settings.samples > 1 and settings.direction == "denoising":
        # Each sample is a run of its own there, so all cells wait for their last sample.
        kept += len(settings.cells) * n_tokens * sizes.d_vocab * 8
    term = max(4, sizes.itemsize) * sizes.d_vocab
    at_once = AT_ONCE.get(device, 256)
    stacked = at_once * n_tokens * sizes.d_vocab * sizes.itemsize
    chunk = min(at_once, chunk_rows(sizes.d_vocab, torch.device(device))) * TERMS * term
    if settings.anywhere:
        stacked = HELD + LOGITS
    return Need(
        kept=kept,
        cache=sizes.cache(length) * (1 + n_runs) if keep_kv else 0,
        recording=row + sizes.cache(length),
        runs=n_runs,
        row=row + (sizes.cache(length) if settings.anywhere else 0),
        measuring=stacked + chunk,
    )


def need(model: TransformerBridge, settings: Settings, batch: Sequence[Prepared]) -> Need:
    """What the prompts of a batch need on a loaded model."""
    settings = settings.of_batch(batch)
    acts = [name for name, _ in sites_of(model, settings)]
    n_runs = max(source_runs(one, settings) for one in batch)
    length, device = len(batch[0].tokens) + settings.n_tokens - 1, input_device(model).type
    return need_of(sizes_of(model), length, settings, acts, n_runs, settings.keep_kv, device)


def source_runs(one: Prepared, settings: Settings) -> int:
    """How many runs the sources of a sweep have recorded for a prompt."""
    wanted: set[tuple[RunSpec, int]] = set()
    for each in settings.parts:
        spec = spec_of(each, one)
        if spec is not None and each.source is not None:
            wanted |= {(spec, i) for i in range(settings.samples if each.source.random else 1)}
    return len(wanted)


def spec_of(one: Intervention, prepared: Prepared) -> RunSpec | None:
    """The run that an intervention's source needs for a prompt; None where it can have none."""
    try:
        return None if one.source is None else one.source.run(prepared.prompt)
    except Unavailable:
        return None


def bytes_held(runs: Iterable[Run]) -> int:
    """The bytes behind the tensors of some runs, which are views of shared ones."""
    held: dict[int, int] = {}
    for run in runs:
        others = [] if run.noise is None else [run.noise]
        pairs = [tensor for pair in run.kv for tensor in pair]
        for tensor in (run.logits, *run.acts.values(), *run.visible.values(), *pairs, *others):
            storage = tensor.untyped_storage()
            held[storage.data_ptr()] = storage.nbytes()
    return sum(held.values())


def bounded(executor: Executor, memory: Memory, max_bytes: int | None) -> Executor:
    """The executor within the bounds, if it is one that has any; others make smallest passes."""
    if not is_dataclass(executor) or isinstance(executor, type):
        return executor
    names, changes = {field.name for field in fields(executor)}, dict[str, int]()
    for name, bound in (("max_rows", memory.most_rows), ("max_bytes", max_bytes)):
        own = getattr(executor, name, None)
        if name in names and bound is not None:
            changes[name] = bound if own is None else min(bound, own)
    return replace(executor, **changes) if changes else executor


def check_enough(
    model: TransformerBridge, ready: Sequence[Prepared], settings: Settings, memory: Memory
) -> None:
    """Refuse bounds under which the longest prompt could not be carried out."""
    rows = 1 + max(one.n_rows for one in settings.interventions)
    if memory.max_rows is not None and memory.max_rows < rows:
        raise InputError(
            f"max_rows is {memory.max_rows}, and a pass with an edge patch has {rows} rows; give "
            f"{rows} or more"
        )
    if memory.max_bytes is None:
        return
    longest = max(ready, key=lambda one: one.tokens.n_all)
    least = need(model, settings, [longest]).least
    if memory.max_bytes < least:
        raise InputError(
            f"max_memory is {in_words(memory.max_bytes)}, and prompt {longest.prompt.id!r} alone "
            f"takes about {in_words(least)}; give more, a smaller n_tokens, or a smaller dtype"
        )
