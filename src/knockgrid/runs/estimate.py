"""Estimate: what a sweep will cost in time, memory and disk, before it is begun.

A small model in a local folder is loaded and timed; of any other the config is read, and a model
without weights is built from it and counted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from transformer_lens.model_bridge import TransformerBridge

from knockgrid.engine.bounds import Need, need_of
from knockgrid.errors import InputError
from knockgrid.edits.intervention import Intervention, is_random
from knockgrid.edits.layers import layer_list
from knockgrid.engine.memory import LEAST, bytes_of, in_words
from knockgrid.prompts.positions import resolve, tokenize_prompt
from knockgrid.prompts.prompt import Prompt
from knockgrid.engine.setup import settings_of
from knockgrid.passes.answer_positions import after_prompt
from knockgrid.runs.choose import choose_prompts, named
from knockgrid.host.bridge import dtype_of
from knockgrid.runs.job import FLOOR_PROMPTS, interventions_of, load_model, wants_floor
from knockgrid.spec import Spec
from knockgrid.runs.speed import (
    Shape,
    measured,
    of_config,
    of_model,
    stated,
    supposed,
    worth_loading,
)
from knockgrid.engine.executors.rows import fast_rows

PER_WORD = 1.3
"""Tokens of a word, where there is no tokenizer."""
FOLDER, SHARD, PROMPT, ROW = 12_500, 11_250, 2_350, 31.5
"""Bytes on disk of a run, per shard, prompt and row, fitted to runs, within 6 % of them."""
TOP_SHARD, TOP_PROMPT, TOP_ROW = 5_700, 70, 4.6
"""What most probable tokens add per shard, and each of them per prompt and row; fitted likewise."""


@dataclass(frozen=True)
class Counted:
    """A prompt by its number of tokens, the first token that each row edits, and what is given.

    `given` counts the tokens of a continuation.
    """

    length: int
    starts: tuple[int, ...]
    given: int = 0

    def measured(self, n_tokens: int) -> int:
        """The tokens that are measured; behind a continuation, the one after it as well."""
        return self.given + 1 if self.given else n_tokens


@dataclass(frozen=True)
class Estimate:
    """What a sweep will cost; `assumed` says which of it nobody has measured."""

    prompts: int
    cells: int
    parameters: int
    weights: int
    runs: int
    passes: int
    rows: int
    disk: int
    seconds: float
    where: str
    assumed: tuple[str, ...] = ()

    @property
    def memory(self) -> int:
        """Weights, recorded runs and the largest pass."""
        return self.weights + self.runs + self.passes

    def __str__(self) -> str:
        minutes, seconds = divmod(round(self.seconds), 60)
        hours, rest = divmod(minutes, 60)
        time = f"{hours} h {rest:02d} min" if hours else f"{minutes} min {seconds:02d} s"
        lines = [
            f"{self.prompts} prompts, {self.cells} cells, about {time} {self.where}",
            f"{self.parameters / 1e9:.2f} billion parameters",
            f"memory: at most about {in_words(self.memory)} = {in_words(self.weights)} of weights "
            f"+ {in_words(self.runs)} of recorded runs + {in_words(self.passes)} in a pass of "
            f"{self.rows} rows",
            f"disk: about {in_words(self.disk)}",
        ]
        return "\n".join([*lines, *(f"assumed: {what}" for what in self.assumed)])


def estimate(
    spec: Spec,
    flops: float | None = None,
    load: Callable[[], TransformerBridge] | None = None,
) -> Estimate:
    """What a sweep with some settings will cost.

    `flops` are the TFLOP/s of a device elsewhere, for which no model is loaded.

    Limits: counts the staircase executor and free runs, not slower ones that an architecture may
    need; of a mixture of experts every expert is taken to be used.
    """
    if flops is not None and not flops > 0:
        raise InputError(f"flops is {flops!r}; give the device's TFLOP/s, such as 100")
    limit = bytes_of(spec.max_memory)
    assumed: list[str] = []
    model = None
    if flops is None and worth_loading(spec.model):
        model = load() if load else load_model(spec)
        prompts, tokenizer = choose_prompts(spec, model).prompts, model.tokenizer
        shape, speed = of_model(model), measured(model)
    else:
        dtype = dtype_of(spec.dtype)
        shape = of_config(spec.model, spec.revision, dtype)
        prompts, tokenizer = chosen(spec, shape.tokenizer, assumed), shape.tokenizer
        speed = supposed(shape, dtype) if flops is None else stated(flops)
        assumed.append(speed.assumed)
    rows = interventions_of(spec, prompts if tokenizer else (), tokenizer, model)
    layers = layer_list(spec.layers, shape.sizes.n_layers)
    bos = shape.bos if spec.prepend_bos is None else spec.prepend_bos
    counted = [count(one, rows, tokenizer, bos) for one in prompts]
    work = Work(spec, shape, speed.device, rows, layers)
    work.add_all(counted)
    seconds = speed.seconds(shape, work.block_tokens, work.attended, work.passes, work.measured)
    seconds += speed.trial(shape, max(one.length for one in counted), len(rows))
    if wants_floor(spec) and not spec.nulls:
        seconds *= 1 + min(1.0, FLOOR_PROMPTS / len(counted))
    of_prompt = sum(len(row.cell_layers(layers)) for row in rows)
    tokens = sum(one.given or spec.n_tokens for one in counted)
    return Estimate(
        prompts=len(counted),
        cells=len(counted) * of_prompt,
        parameters=shape.parameters,
        weights=shape.weights,
        runs=work.runs,
        passes=work.passing if limit is None else min(work.passing, max(0, limit - work.runs)),
        rows=work.widest,
        disk=on_disk(work.shards, len(counted), of_prompt * tokens, spec.top),
        seconds=seconds,
        where=speed.where,
        assumed=tuple(assumed),
    )


def chosen(spec: Spec, tokenizer: Any, assumed: list[str]) -> Sequence[Prompt]:
    """The prompts, where there is no model to say what it knows."""
    if spec.known or spec.unknown:
        assumed.append("the model knows as many of the prompts as the limit asks for")
    if tokenizer is None:
        assumed.append(f"{PER_WORD} tokens per word, as there is no tokenizer")
        spec = spec.but(form="plain")
    limit = None if spec.limit is None else spec.limit + spec.unknown
    found = named(spec, tokenizer)[:limit]
    if not found:
        raise InputError("no prompt is left; widen relations")
    return found


def count(prompt: Prompt, rows: Sequence[Intervention], tokenizer: Any, bos: bool) -> Counted:
    """The tokens of a prompt, and where each row begins in it."""
    places = [[at for part in one.parts for at in part.written] for one in rows]
    if tokenizer is not None:
        tokens = tokenize_prompt(prompt, tokenizer, bos)
        inside = [[at for at in some if not after_prompt(at)] for some in places]
        found = [[p for at in some for p in resolve(prompt, tokens, at)] for some in inside]
        starts = [min(some, default=len(tokens) - 1) for some in found]
        return Counted(len(tokens), tuple(starts), len(tokens.given))
    length = max(1, round(PER_WORD * len(prompt.text.split()))) + bos
    spans = {name: int(span[0]) / max(1, len(prompt.text)) for name, span in prompt.spans.items()}
    shares = [min(spans.get(at, 1.0) if isinstance(at, str) else 0.0 for at in x) for x in places]
    return Counted(length, tuple(min(length - 1, int(share * length)) for share in shares))


def on_disk(shards: int, prompts: int, rows: int, top: int) -> int:
    """The bytes of a run folder."""
    tables = FOLDER + SHARD * shards + PROMPT * prompts + ROW * rows
    tokens = TOP_SHARD * shards * bool(top) + top * (TOP_PROMPT * prompts + TOP_ROW * rows)
    return round(tables + tokens)


@dataclass
class Work:
    """What a sweep computes: tokens through blocks, passes, measured rows, and its largest pass.

    `attended` counts (query, key) pairs. `passing` and `runs` are the bytes of the largest pass and
    of the most runs that are held at once, `widest` the rows of the widest pass.
    """

    spec: Spec
    shape: Shape
    device: str
    rows: Sequence[Intervention]
    layers: Sequence[int]
    block_tokens: int = 0
    attended: int = 0
    passes: int = 0
    measured: int = 0
    shards: int = 0
    passing: int = 0
    runs: int = 0
    widest: int = 0

    def add_all(self, counted: Sequence[Counted]) -> None:
        """Batch by batch, in parts of equal length as a sweep makes them."""
        spec, sizes, n = self.spec, self.shape.sizes, self.spec.n_tokens
        settings = replace(settings_of(spec, self.rows, self.layers, True), keep_kv=True)
        parts = [part for row in self.rows for part in row.parts]
        sources = {part.source.label: part.source for part in parts if part.source is not None}
        n_runs = sum(spec.samples if o.random else 1 for o in sources.values() if o.from_run)
        sites = dict.fromkeys(act_name for row in self.rows for act_name, _ in row.sites)
        acts = ["resid_pre", *(name for name in sites for _ in range(sizes.n_layers))]
        by_length: dict[tuple[int, int], list[Counted]] = {}
        for one in counted:
            by_length.setdefault((one.length, one.given), []).append(one)
        for length, group in by_length.items():
            size, n_tokens = max(1, min(spec.batch, 2048 // sum(length))), group[0].measured(n)
            full, measured = length[0] + n_tokens - 1, replace(settings, n_tokens=n_tokens)
            need = need_of(sizes, full, measured, acts, n_runs, True, self.device)
            for i in range(0, len(group), size):
                self.add(group[i : i + size], full, need, n_tokens)

    def add(self, batch: Sequence[Counted], length: int, need: Need, n_tokens: int) -> None:
        """One batch: its recorded runs, then its passes by first position."""
        spec, sizes = self.spec, self.shape.sizes
        depth, n, free = sizes.n_layers, len(batch), spec.mode == "free_run"
        texts = spec.sampled_runs or 1
        recorded = n * (1 + need.runs) * depth * length
        steps = 0 if batch[0].given else n_tokens - 1
        self._pass(recorded, length, (1 + (need.runs > 0) + steps) * depth)
        self.shards += 1
        self.runs = max(self.runs, n * need.kept)
        groups: dict[int, list[int]] = {}
        prompts: dict[int, set[int]] = {}
        for number, one in enumerate(batch):
            for row, start in zip(self.rows, one.starts, strict=True):
                at = 0 if free else min(start, one.length - 1)
                times = spec.samples if is_random(row) else 1
                after = {name for name, _ in row.sites} == {"resid_post"} and not any(
                    part.edges for part in row.parts
                )
                cells = [row.layers_at(at, depth) for at in row.cell_layers(self.layers)]
                first = [min(layers) + after for layers in cells if layers]
                blocks = [depth if free else depth - each for each in first]
                groups.setdefault(at, []).extend(blocks * times * row.n_rows)
                prompts.setdefault(at, set()).add(number)
        for start, blocks in groups.items():
            suffix, others = length - start, len(prompts[start])
            limit = spec.max_rows or fast_rows(sizes, length, self.device)
            total = len(blocks) + others
            parts, wide = ceil(total / max(LEAST, limit)), min(total, limit)
            tokens = (sum(blocks) + others * depth) * suffix
            self._pass(texts * tokens, length, texts * parts * depth * (n_tokens if free else 1))
            self.measured += texts * len(blocks) * n_tokens
            self.widest = max(self.widest, wide)
            # A pass measures every token; it holds the keys and values of its prompts once more.
            row_bytes = sizes.row(length, suffix, n_tokens)
            passing = wide * row_bytes + others * need.cache + need.measuring
            self.passing = max(self.passing, passing)

    def _pass(self, block_tokens: int, length: int, passes: int) -> None:
        self.block_tokens += block_tokens
        self.attended += block_tokens * length
        self.passes += passes
