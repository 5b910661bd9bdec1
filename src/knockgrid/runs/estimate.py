"""Estimate: what a sweep will cost in time, memory and disk, before it is begun.

Weights are never loaded for it, but for a small model in a local folder, which is timed. All other
models are known by their config: one without weights is built, and counted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from transformer_lens.model_bridge import TransformerBridge

from knockgrid.engine.bounds import Need, need_of
from knockgrid.errors import InputError
from knockgrid.edits.intervention import Intervention
from knockgrid.edits.layers import layer_list, layer_set
from knockgrid.engine.memory import LEAST, bytes_of, in_words
from knockgrid.prompts.positions import resolve, tokenize
from knockgrid.prompts.prompt import Prompt
from knockgrid.engine.setup import settings_of
from knockgrid.runs.choose import choose_prompts, named
from knockgrid.host.bridge import dtype_of
from knockgrid.runs.job import FLOOR_PROMPTS, interventions_of, load_model, wants_floor
from knockgrid.spec import Spec
from knockgrid.runs.speed import Speed, measured, stated, supposed
from knockgrid.runs.weights import Shape, of_config, of_model, worth_loading
from knockgrid.engine.executors.rows import fast_rows

PER_WORD = 1.3
"""Tokens of a word, where there is no tokenizer."""
FOLDER, SHARD, PROMPT, ROW = 12_500, 9_100, 2_350, 29
"""Bytes on disk of a run, per shard, prompt and row, fitted to runs, within 6 % of them."""
TOP_SHARD, TOP_PROMPT, TOP_ROW = 5_700, 70, 4.6
"""What most probable tokens add per shard, and each of them per prompt and row; fitted likewise."""


@dataclass(frozen=True)
class Counted:
    """A prompt by its number of tokens, and the first token that each row edits."""

    length: int
    starts: tuple[int, ...]


@dataclass(frozen=True)
class Work:
    """What a sweep computes: tokens through blocks, passes, measured rows, and its largest pass.

    `attended` counts (query, key) pairs. `passing` and `runs` are the bytes of the largest pass and
    of the most runs that are held at once, `rows` the rows of the widest pass.
    """

    block_tokens: int = 0
    attended: int = 0
    passes: int = 0
    measured: int = 0
    shards: int = 0
    passing: int = 0
    runs: int = 0
    rows: int = 0

    def plus(self, **more: int) -> "Work":
        """With something added; bytes and rows are those of the largest pass."""
        found = dict(vars(self))
        for name, value in more.items():
            largest = name in ("passing", "runs", "rows")
            found[name] = max(found[name], value) if largest else found[name] + value
        return Work(**found)


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

    `flops` are those that a device reaches in one second, for a sweep that will run elsewhere; the
    model is then not loaded. Without it a model of at most 2 GB in a local folder is loaded and
    timed; of any other, matrix products of its dtype are timed on this machine.

    Raises:
        InputError: settings that a sweep would refuse; a model whose config cannot be read.

    Limits: counts the staircase executor and free runs, not slower ones that an architecture may
    need; of a mixture of experts every expert is taken to be used.
    """
    if flops is not None and not flops > 0:
        raise InputError(f"flops is {flops!r}; give the device's TFLOP/s, such as 100")
    bytes_of(spec.max_memory)
    assumed: list[str] = []
    model = None
    if flops is None and worth_loading(spec.model):
        model = load() if load else load_model(spec)
        prompts, tokenizer = choose_prompts(spec, model).prompts, model.tokenizer
        shape, speed = of_model(model), measured(model)
    else:
        dtype = dtype_of(spec.dtype)
        shape = of_config(spec.model, spec.revision, dtype)
        prompts, tokenizer = chosen(spec, shape, assumed)
        speed = supposed(shape, dtype) if flops is None else stated(flops)
        assumed.append(speed.assumed)
    rows = interventions_of(spec, prompts if tokenizer else (), tokenizer, model)
    counted = [count(one, rows, tokenizer, bos_of(spec, shape), spec) for one in prompts]
    return summed_up(spec, shape, speed, rows, counted, assumed)


def bos_of(spec: Spec, shape: Shape) -> bool:
    """Whether BOS comes first."""
    return shape.bos if spec.prepend_bos is None else spec.prepend_bos


def chosen(spec: Spec, shape: Shape, assumed: list[str]) -> tuple[Sequence[Prompt], Any]:
    """The prompts and the tokenizer, where there is no model to say what it knows."""
    if spec.known or spec.unknown:
        assumed.append("the model knows as many of the prompts as the limit asks for")
    if shape.tokenizer is None:
        assumed.append(f"{PER_WORD} tokens per word, as there is no tokenizer")
        spec = spec.but(form="plain")
    limit = None if spec.limit is None else spec.limit + spec.unknown
    found = named(spec, shape.tokenizer)[:limit]
    if not found:
        raise InputError("no prompt is left; widen relations")
    return found, shape.tokenizer


def count(
    prompt: Prompt, rows: Sequence[Intervention], tokenizer: Any, bos: bool, spec: Spec
) -> Counted:
    """The tokens of a prompt, and where each row begins in it."""
    places = [one.edges[0] if one.edges else one.sites[0][1] for one in rows]
    if tokenizer is not None:
        tokens = tokenize(prompt.text, tokenizer, bos)
        starts = [min(resolve(prompt, tokens, at), default=len(tokens) - 1) for at in places]
        return Counted(len(tokens), tuple(starts))
    length = max(1, round(PER_WORD * len(prompt.text.split()))) + bos
    spans = {name: int(span[0]) / max(1, len(prompt.text)) for name, span in prompt.spans.items()}
    shares = [0.0 if not isinstance(at, str) else spans.get(at, 1.0) for at in places]
    return Counted(length, tuple(min(length - 1, int(share * length)) for share in shares))


def summed_up(
    spec: Spec,
    shape: Shape,
    speed: Speed,
    rows: Sequence[Intervention],
    counted: Sequence[Counted],
    assumed: list[str],
) -> Estimate:
    """An estimate from counts and speeds."""
    layers = layer_list(spec.layers, shape.sizes.n_layers)
    work = work_of(spec, shape, speed.device, rows, layers, counted)
    seconds = speed.seconds(shape, work.block_tokens, work.attended, work.passes, work.measured)
    cells = len(counted) * len(rows) * len(layers)
    seconds += speed.trial(shape, max(one.length for one in counted), len(rows))
    if wants_floor(spec) and not spec.nulls:
        seconds *= 1 + min(1.0, FLOOR_PROMPTS / len(counted))
    disk = on_disk(work.shards, len(counted), cells * spec.n_tokens, spec.top)
    passes, limit = work.passing, bytes_of(spec.max_memory)
    if limit is not None:
        passes = min(passes, max(0, limit - work.runs))
    return Estimate(
        len(counted),
        cells,
        shape.parameters,
        shape.weights,
        work.runs,
        passes,
        work.rows,
        disk,
        seconds,
        speed.where,
        tuple(assumed),
    )


def on_disk(shards: int, prompts: int, rows: int, top: int) -> int:
    """The bytes of a run folder."""
    tables = FOLDER + SHARD * shards + PROMPT * prompts + ROW * rows
    tokens = TOP_SHARD * shards * bool(top) + top * (TOP_PROMPT * prompts + TOP_ROW * rows)
    return round(tables + tokens)


def work_of(
    spec: Spec,
    shape: Shape,
    device: str,
    rows: Sequence[Intervention],
    layers: Sequence[int],
    counted: Sequence[Counted],
) -> Work:
    """Batch by batch, in parts of equal length as a sweep makes them."""
    settings = replace(settings_of(spec, rows, layers, True), keep_kv=True)
    sources = {row.source.label: row.source for row in rows if row.source is not None}
    n_runs = sum(spec.samples if o.random else 1 for o in sources.values() if o.from_run)
    sites = dict.fromkeys(act_name for row in rows for act_name, _ in row.sites)
    acts = ["resid_pre", *(name for name in sites for _ in range(shape.sizes.n_layers))]
    work = Work()
    by_length: dict[int, list[Counted]] = {}
    for one in counted:
        by_length.setdefault(one.length, []).append(one)
    for length, group in by_length.items():
        size = max(1, min(spec.batch, 2048 // length))
        full = length + spec.n_tokens - 1
        need = need_of(shape.sizes, full, settings, acts, n_runs, True, device)
        for i in range(0, len(group), size):
            work = one_batch(work, spec, shape, device, rows, layers, group[i : i + size], need)
    return work


def one_batch(
    work: Work,
    spec: Spec,
    shape: Shape,
    device: str,
    rows: Sequence[Intervention],
    layers: Sequence[int],
    batch: Sequence[Counted],
    need: Need,
) -> Work:
    """The work of one batch added: its recorded runs, then its passes by first position."""
    depth, n, free = shape.sizes.n_layers, len(batch), spec.mode == "free_run"
    length = batch[0].length + spec.n_tokens - 1
    recorded = n * (1 + need.runs) * depth * length
    work = work.plus(
        block_tokens=recorded,
        attended=recorded * length,
        passes=(1 + (need.runs > 0) + spec.n_tokens - 1) * depth,
        shards=1,
        runs=n * need.kept,
    )
    groups: dict[int, list[int]] = {}
    prompts: dict[int, set[int]] = {}
    for number, one in enumerate(batch):
        for row, start in zip(rows, one.starts, strict=True):
            at = 0 if free else min(start, one.length - 1)
            times = spec.samples if row.source is not None and row.source.random else 1
            after = not row.edges and row.sites[0][0] == "resid_post"
            first = [min(layer_set(row.window, layer, depth)) + after for layer in layers]
            blocks = [depth if free else depth - each for each in first]
            groups.setdefault(at, []).extend(blocks * times * row.n_rows)
            prompts.setdefault(at, set()).add(number)
    for start, blocks in groups.items():
        suffix, others = length - start, len(prompts[start])
        limit = spec.max_rows or fast_rows(shape.sizes, length, device)
        total = len(blocks) + others
        parts = ceil(total / max(LEAST, limit))
        tokens = (sum(blocks) + others * depth) * suffix
        wide = min(total, limit)
        # A pass measures every token; it holds the keys and values of its prompts once more.
        passing = wide * shape.sizes.row(length, suffix, spec.n_tokens) + others * need.cache
        work = work.plus(
            block_tokens=tokens,
            attended=tokens * length,
            passes=parts * depth * (spec.n_tokens if free else 1),
            measured=len(blocks) * spec.n_tokens,
            passing=passing + need.measuring,
            rows=wide,
        )
    return work
