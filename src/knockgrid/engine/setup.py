"""Setup: everything that a sweep decides and measures before its first cell."""

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.divergences.divergence import Divergence
from knockgrid.edits.data import as_data
from knockgrid.edits.intervention import Intervention, Statistics, check_names, listed
from knockgrid.edits.layers import layer_list
from knockgrid.engine.answers import check_answers
from knockgrid.engine.bounds import check_enough, need, spec_of
from knockgrid.engine.checks import (
    check_edits,
    check_free_run,
    check_measure,
    check_options,
    check_places,
    check_sampled,
    check_spans,
    check_temperature,
)
from knockgrid.engine.exact_answers import exact_answers, rules_of
from knockgrid.engine.executors.executor import Executor
from knockgrid.engine.executors.free_run import FreeRun
from knockgrid.engine.foils import check_foils
from knockgrid.engine.memory import TRIAL, Memory, bytes_of, check_rows, until_it_fits
from knockgrid.engine.own_text import check_own_text
from knockgrid.engine.preflight import choose
from knockgrid.engine.settings import Settings
from knockgrid.engine.statistics import embedding_std, site_statistics
from knockgrid.engine.threads import Look, Threads
from knockgrid.errors import check_counts
from knockgrid.host.bridge import check_ready, describe, n_layers
from knockgrid.host.versions import version
from knockgrid.passes.prepared import Prepared, batches, default_bos, ids_of, prepare
from knockgrid.passes.run import input_device, record
from knockgrid.prompts.prompt import Prompt
from knockgrid.spec import Spec, rules_as_data
from knockgrid.table.measures import DISTANCES, SAMPLED, Measure, as_metadata, log_name, log_of
from knockgrid.table.table import LISTS

PACKAGES = ("knockgrid", "transformer-lens", "transformers", "pandas")
AT_MOST = 32
"""Prompts whose statistics are recorded at once."""
SMALL, WORTH = 48, 500
"""Tokens of the pass that finds the better number of threads (as many as a pass of cells has), and
the cells from which on it is worth to look for it."""
_LOOKS: "WeakKeyDictionary[TransformerBridge, Look]" = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class SetLevel:
    """Numbers that are taken over the whole prompt set, so that no part may compute its own."""

    sigma: dict[str, float]
    statistics: Statistics


@dataclass(frozen=True, eq=False)
class Checked:
    """What a sweep was asked for, checked against the model, and the statistics of the set."""

    model: TransformerBridge
    spec: Spec
    ready: Sequence[Prepared]
    settings: Settings
    measures: Sequence[Divergence]
    memory: Memory
    threads: Threads


@dataclass(frozen=True, eq=False)
class Setup(Checked):
    """A sweep that was checked, and whose executor was tried on this model."""

    executor: Executor
    receipt: dict[str, Any]

    @property
    def set_level(self) -> SetLevel:
        """What was taken over the whole prompt set."""
        return SetLevel(dict(self.settings.sigma), self.settings.statistics)

    @property
    def columns(self) -> list[str]:
        """Columns of values that a run has whatever happens in its cells."""
        names = [measure.name for measure in self.measures]
        if self.spec.measure is not None:
            distances = [] if self.spec.measure == "tokens" else DISTANCES
            return [*names, *(log_name(name) for name in names if name in distances)]
        mean = ["js_mean_dist"] if "js" in names and not self.spec.sampled_runs else []
        wrote = ["written"] if self.spec.mode == "free_run" else []
        wrote += SAMPLED if self.spec.sampled_runs else ()
        exact = ["exact_from"] if self.settings.at_exact else []
        tops = LISTS if self.settings.top else ()
        return [*names, "js_to_source", *mean, *wrote, *exact, *tops]

    def facts(self) -> list[Measure]:
        """What is true of each measure, and of its mean logarithm where there is one."""
        facts = [measure.facts for measure in self.measures]
        logs = [log_of(one) for one in facts if log_name(one.name) in self.columns]
        return [*facts, *logs]

    @property
    def n_cells(self) -> int:
        """Cells per prompt."""
        return len(self.settings.cells)

    def batches(self) -> list[list[Prepared]]:
        """The prompts in parts of equal length, always the same ones for the same prompts.

        What is computed together rounds together, so no piece of a sweep cuts across these.
        """
        return list(batches(self.ready, at_most=self.spec.batch))

    def metadata(self) -> dict[str, Any]:
        """What travels with the table, but for what is known of each prompt only afterwards."""
        settings = self.settings
        return {
            "mode": self.spec.mode,
            "unit": self.spec.unit,
            "temperature": float(self.spec.temperature),
            "metrics": [measure.name for measure in self.measures],
            "measures": as_metadata(self.facts()),
            "measure": self.spec.measure,
            "sampled_runs": self.spec.sampled_runs,
            "direction": settings.direction,
            "samples": settings.samples,
            "seed": settings.seed,
            "prepend_bos": settings.prepend_bos,
            "n_tokens": settings.n_tokens,
            "exact_answer": rules_as_data(self.spec.exact_answer),
            "layer_order": list(settings.layers),
            "intervention_order": [one.name for one in settings.interventions],
            "labels": {one.name: one.label for one in settings.interventions},
            "interventions": [
                {**one.describe(), "data": as_data(one)} for one in settings.interventions
            ],
            "sigma": dict(settings.sigma),
            "model": describe(self.model),
            "receipt": self.receipt,
            "threads": self.threads.describe(),
            "versions": versions(),
        }


def check(
    model: TransformerBridge,
    prompts: Sequence[Prompt] | Prompt,
    interventions: Sequence[Intervention] | Intervention,
    spec: Spec,
    set_level: SetLevel | None = None,
) -> Checked:
    """Check all of it against the model, and measure the set unless `set_level` is given."""
    check_ready(model)
    rows = listed(interventions)
    check_counts(n_tokens=spec.n_tokens, samples=spec.samples, batch=spec.batch)
    check_counts(least=0, top=spec.top)
    check_counts(**({} if spec.threads is None else {"threads": spec.threads}))
    check_rows(spec.max_rows)
    memory = Memory(spec.max_rows, bytes_of(spec.max_memory))
    measures = check_options(spec.mode, spec.metrics, spec.unit, spec.direction)
    measures = check_measure(spec, measures)
    check_temperature(spec.temperature)
    check_sampled(spec)
    check_names(rows)
    rules_of(spec.exact_answer)
    chosen = layer_list(spec.layers, n_layers(model))
    check_edits(model, rows, chosen)
    bos = default_bos(model, spec.prepend_bos)
    ready = prepare(model, prompts, bos, spec.n_tokens)
    check_answers(model.tokenizer, ready)
    check_foils(model.tokenizer, ready, measures)
    check_places(ready, rows, spec.n_tokens, spec.mode == "free_run")
    check_own_text(model.tokenizer, ready, rows, spec.n_tokens, bos)
    check_spans(ready, rows, spec.measure)
    exact = exact_answers(spec.exact_answer, [one.prompt for one in ready])
    settings = replace(settings_of(spec, rows, chosen, bos), exact=exact)
    check_enough(model, ready, settings, memory)
    last = _LOOKS.setdefault(model, Look())
    threads = Threads(spec.threads, small_pass(model, ready, settings, memory), last)
    if set_level is not None:
        settings = replace(settings, **vars(set_level))
        return Checked(model, spec, ready, settings, measures, memory, threads)
    longest = max(ready, key=lambda one: one.tokens.n_all)

    def at_once() -> int:
        return need(model, settings, [longest]).prompts(memory, AT_MOST)

    with threads.at_work():
        settings = until_it_fits(
            lambda: with_statistics(model, ready, settings, at_once()),
            lambda: memory.fewer_prompts(at_once()),
            "prompts",
        )
    return Checked(model, spec, ready, settings, measures, memory, threads)


def settings_of(
    spec: Spec, rows: Sequence[Intervention], layers: Sequence[int], prepend_bos: bool
) -> Settings:
    """What all batches of a sweep share, before the set is measured."""
    return Settings(
        rows,
        layers,
        n_tokens=spec.n_tokens,
        samples=spec.samples,
        direction=spec.direction,
        persistent=spec.mode != "prompt_only",
        prepend_bos=prepend_bos,
        seed=spec.seed,
        keep_kv=False,
        top=0 if spec.measure is not None or spec.sampled_runs else spec.top,
        anywhere=spec.measure is not None,
        writes=spec.mode == "free_run",
        all_logits=spec.measure is None,
    )


def set_up(
    model: TransformerBridge,
    prompts: Sequence[Prompt] | Prompt,
    interventions: Sequence[Intervention] | Intervention,
    spec: Spec,
    set_level: SetLevel | None = None,
) -> Setup:
    """Check a sweep, and try its executor on this model."""
    found = check(model, prompts, interventions, spec, set_level)
    settings, executor, memory = found.settings, spec.executor, found.memory
    with found.threads.at_work():
        if spec.mode == "free_run":
            check_free_run(found.ready, settings.interventions, executor)
            settings = replace(settings, n_tokens=1)
            executor = FreeRun(cached=executor != "reference")
        executor, receipt = until_it_fits(
            lambda: choose(model, found.ready, settings, executor, memory),
            lambda: memory.fewer_rows(memory.most_rows or TRIAL),
            "prompts of the trial",
        )
        if isinstance(executor, FreeRun):  # a trial writes one token, which nothing draws
            executor = free_run_of(spec, executor.cached)
    settings = replace(found.settings, keep_kv=executor.needs_kv)
    check_enough(model, found.ready, settings, memory)
    return Setup(**{**vars(found), "settings": settings}, executor=executor, receipt=receipt)


def free_run_of(spec: Spec, cached: bool) -> FreeRun:
    """The executor of free runs, which sample where that is asked for."""
    return FreeRun(
        cached=cached,
        sampled_runs=spec.sampled_runs,
        temperature=float(spec.temperature),
        seed=spec.seed,
    )


def small_pass(
    model: TransformerBridge, ready: Sequence[Prepared], settings: Settings, memory: Memory
) -> Callable[[], Any] | None:
    """A pass over copies of the shortest prompt; None where threads matter little or not at all."""
    cells = len(ready) * len(settings.cells) * settings.n_tokens
    if cells < WORTH or input_device(model).type != "cpu":
        return None
    ids = ids_of(model, [min(ready, key=lambda one: len(one.tokens))])
    rows = min(max(1, SMALL // ids.shape[1]), memory.most_rows or SMALL)
    ids = ids.repeat(rows, 1)
    return lambda: record(model, ids, measured=slice(-1, None), keep_kv=False)


def with_statistics(
    model: TransformerBridge, ready: Sequence[Prepared], settings: Settings, at_most: int = AT_MOST
) -> Settings:
    """Settings with the numbers that are taken over the whole prompt set, `at_most` at once."""
    specs = [spec_of(one, prepared) for one, prepared in product(settings.parts, ready)]
    scales = sorted({spec.scale_from for spec in specs if spec is not None and spec.scale})
    inside = sorted(set[int]().union(*(at for _, at in settings.layers_of(n_layers(model)))))
    return replace(
        settings,
        sigma={scale: embedding_std(model, ready, scale) for scale in scales},
        statistics=site_statistics(model, ready, settings.parts, inside, at_most),
    )


def versions() -> dict[str, str]:
    """The versions of the packages that results depend on, PyTorch's with its build."""
    found = {name: version(name) for name in PACKAGES}
    return {"python": platform.python_version(), "torch": str(torch.__version__), **found}
