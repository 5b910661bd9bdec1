"""sweep: preflight, cells, executor, divergences, table."""

import platform
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm
from transformer_lens.model_bridge import TransformerBridge

from knockgrid._answers import first_tokens
from knockgrid._bind import Bound, bind
from knockgrid._checks import check_edits, check_free_run, check_options, check_places
from knockgrid._executor import Executor
from knockgrid._intervention import Cell, Intervention, check_names
from knockgrid._layers import layer_list, layer_set
from knockgrid._measure import Meter, Row
from knockgrid._model import check_ready, describe, load, n_layers
from knockgrid._parquet import write_table
from knockgrid._positions import resolve
from knockgrid._preflight import choose
from knockgrid._prepared import Prepared, batches, default_bos, prepare, token_texts
from knockgrid._prompt import Prompt
from knockgrid._run import input_device
from knockgrid._settings import Settings
from knockgrid._source import Unavailable
from knockgrid._statistics import embedding_std, site_statistics
from knockgrid._table import build
from knockgrid.divergences import js
from knockgrid.divergences._divergence import UNITS, Divergence
from knockgrid.divergences._evaluate import evaluate
from knockgrid.executors._free_run import FreeRun

METRICS = (
    "js",
    "kl",
    "kl_reverse",
    "tv",
    "logp_clean",
    "rank_clean",
    "logp_answer",
    "rank_answer",
)
PACKAGES = ("knockgrid", "transformer-lens", "transformers", "torch", "pandas")


def sweep(
    model: str | Path | TransformerBridge,
    prompts: Sequence[Prompt] | Prompt,
    interventions: Sequence[Intervention] | Intervention,
    *,
    layers: str | int | Sequence[int] = "all",
    n_tokens: int = 1,
    mode: str = "prompt_only",
    metrics: Sequence[str] = METRICS,
    unit: str = "nats",
    samples: int = 1,
    direction: str = "noise",
    executor: str | Executor = "auto",
    prepend_bos: bool | None = None,
    seed: int = 0,
    out: str | Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Carry out every intervention at every layer on every prompt, and measure what it moves.

    Example:
        >>> import knockgrid as kg
        >>> prompt = kg.Prompt("The capital of Italy is", spans={"subject": "Italy"})
        >>> table = kg.sweep("demo", prompt, kg.information_flow(), layers=[0, 29], progress=False)
        >>> table[["intervention", "layer"]].value_counts().size
        6
        >>> bool(kg.grid(table).loc["subject", 29] == 0)
        True

    Args:
        model: a bridge, or what `load` takes.
        prompts: one or more prompts; their order is that of the table.
        interventions: what to block; each has a name of its own.
        layers: `"all"`, or layers in the order in which figures show them.
        n_tokens: tokens to measure; token 0 is the one after the prompt, later ones are measured
            on the clean greedy continuation.
        mode: `"prompt_only"` edits prompt positions only; with `"persistent"` knockouts and edge
            patches also bind every later query. Patches are the same in both, as they are not put
            again. `"free_run"` is persistent, and the intervened model writes its own tokens;
            the column `diverged` names the first that differs.
        metrics: measures from `knockgrid.divergences`, by name; those of the answer read the first
            tokens of its aliases.
        unit: `"nats"` or `"bits"`.
        samples: draws of a random source; divergences are averaged, and `js_mean_dist` is that of
            the averaged distribution.
        direction: `"noise"` edits the clean run, `"denoise"` puts clean values into the corrupted
            run. Divergences refer to the clean run in both.
        executor: `"auto"` takes the fastest that agrees with the reference on this model.
        prepend_bos: whether BOS comes first; by default as the model is configured.
        seed: of all random draws, which depend on it, the prompt, the source and the sample only.
        out: a folder to write `table.parquet` to.
        progress: whether to show a progress bar.

    Returns:
        The tidy table, one row per prompt, intervention, layer and measured token; its settings
        are in `table.attrs["knockgrid"]`.

    Raises:
        InputError: bad input, in one sentence, before anything is computed or written.
    """
    model = load(model)
    check_ready(model)
    rows = list(interventions) if isinstance(interventions, Sequence) else [interventions]
    measures = check_options(n_tokens, mode, metrics, unit, samples, direction)
    check_names(rows)
    chosen = layer_list(layers, n_layers(model))
    check_edits(model, rows, chosen)
    bos = default_bos(model, prepend_bos)
    ready = prepare(model, [prompts] if isinstance(prompts, Prompt) else prompts, bos, n_tokens)
    check_places(ready, rows, n_tokens)
    settings = Settings(
        rows, chosen, n_tokens, samples, direction, mode != "prompt_only", bos, seed, keep_kv=False
    )
    settings = with_statistics(model, ready, settings)
    if mode == "free_run":
        check_free_run(rows, executor)
        trial, stepwise = replace(settings, n_tokens=1), FreeRun(cached=executor != "reference")
        carry_out, receipt = choose(model, ready, trial, stepwise)
    else:
        carry_out, receipt = choose(model, ready, settings, executor)
    settings = replace(settings, keep_kv=carry_out.needs_kv)
    found, sides, dropped = collect(model, ready, settings, carry_out, measures, unit, progress)
    order = [one.prompt.id for one in ready]
    metadata = {
        "mode": mode,
        "unit": unit,
        "metrics": [measure.name for measure in measures],
        "direction": direction,
        "samples": samples,
        "seed": seed,
        "prepend_bos": bos,
        "n_tokens": n_tokens,
        "layer_order": list(chosen),
        "intervention_order": [one.name for one in rows],
        "labels": {one.name: one.label for one in rows},
        "interventions": [one.describe() for one in rows],
        "sigma": dict(settings.sigma),
        "model": describe(model),
        "receipt": receipt,
        "versions": versions(),
        "dropped": dropped,
        "prompts": sorted(sides, key=lambda side: order.index(side["id"])),
    }
    table = build(found, metadata)
    if out is not None:
        write_table(table, Path(out) / "table.parquet")
    return table


def with_statistics(
    model: TransformerBridge, ready: Sequence[Prepared], settings: Settings
) -> Settings:
    """Settings with the numbers that are taken over the whole prompt set."""
    scales: set[str] = set()
    for one in settings.interventions:
        for prepared in ready if one.source is not None else ():
            try:
                spec = one.source.run(prepared.prompt) if one.source is not None else None
            except Unavailable:
                continue
            if spec is not None and spec.scale:
                scales.add(spec.scale_from)
    sets = [
        layer_set(one.window, layer, n_layers(model))
        for one in settings.interventions
        for layer in settings.layers
    ]
    inside = sorted({layer for layers in sets for layer in layers})
    return replace(
        settings,
        sigma={scale: embedding_std(model, ready, scale) for scale in sorted(scales)},
        statistics=site_statistics(model, ready, settings.interventions, inside),
    )


def collect(
    model: TransformerBridge,
    ready: Sequence[Prepared],
    settings: Settings,
    carry_out: Executor,
    measures: Sequence[Divergence],
    unit: str,
    progress: bool,
) -> tuple[list[Row], list[dict[str, Any]], dict[str, dict[str, str]]]:
    """Rows in cell order, one side entry per prompt, and the prompts dropped per intervention."""
    place = {one.prompt.id: i for i, one in enumerate(ready)}
    total = len(ready) * len(settings.interventions) * len(settings.layers)
    found: list[tuple[int, list[Row]]] = []
    sides: list[dict[str, Any]] = []
    dropped: dict[str, dict[str, str]] = {}
    with tqdm(total=total, unit=" cells", disable=not progress, desc="sweep") as bar:
        for batch in batches(ready):
            bound = bind(model, batch, [place[one.prompt.id] for one in batch], settings)
            meter = meter_of(model, bound, measures, unit, settings)
            at_once = 8 if input_device(model).type == "cpu" else 256
            for cell, rows in finished(model, bound, meter, carry_out, at_once):
                found.append((cell.index, rows))
                bar.update()
            for (index, name), reason in bound.dropped.items():
                dropped.setdefault(name, {})[str(batch[index].prompt.id)] = reason
            bar.update(len(settings.layers) * len(bound.dropped))
            sides += [side(model, bound, i, meter, unit) for i in range(len(batch))]
    found.sort(key=lambda pair: pair[0])
    return [row for _, rows in found for row in rows], sides, dropped


def finished(
    model: TransformerBridge, bound: Bound, meter: Meter, carry_out: Executor, at_once: int
) -> Iterator[tuple[Cell, list[Row]]]:
    """The rows of all cells of a batch, those that cannot mean anything included."""
    yield from meter.rows(carry_out(model, bound.runs, bound.cells), at_once)
    yield from meter.skipped()


def meter_of(
    model: TransformerBridge,
    bound: Bound,
    measures: Sequence[Divergence],
    unit: str,
    settings: Settings,
) -> Meter:
    """A meter with the answer tokens and token texts of a batch."""
    tokenizer = model.tokenizer
    answers = [first_tokens(tokenizer, run.prompt, run.logits[0]) for run in bound.clean]
    texts = [token_texts(tokenizer, run.generated) for run in bound.clean]
    return Meter(bound, measures, unit, answers, texts, settings.direction == "denoise")


def side(
    model: TransformerBridge, bound: Bound, index: int, meter: Meter, unit: str
) -> dict[str, Any]:
    """What the side table says of a prompt: text, clean run, how far its corruption moves it."""
    run = bound.clean[index]
    clean, answer = run.logits[0].double().log_softmax(-1), next(iter(meter.answers[index]), -1)
    moved = {
        name: float(evaluate([js], run.logits[0], source.logits[:1])["js"][0]) * UNITS[unit]
        for (at, name, sample), source in bound.sources.items()
        if at == index and sample == 0
    }
    has_subject = "subject" in run.prompt.spans
    subject = list(resolve(run.prompt, run.tokens, "subject")) if has_subject else []
    partner = run.prompt.swap
    return {
        "id": run.prompt.id,
        "text": run.prompt.text,
        "spans": spans_of(run.prompt),
        "subject": run.prompt.span_text("subject"),
        "relation": run.prompt.relation,
        "group": run.prompt.group,
        "answers": list(run.prompt.answers),
        "n_prompt": run.n_prompt,
        "subject_tokens": subject,
        "tokens": token_texts(model.tokenizer, run.tokens.ids),
        "generated": list(meter.texts[index]),
        "logp_clean": float(clean.max()) * UNITS[unit],
        "logp_answer_clean": float(clean[answer]) * UNITS[unit] if answer >= 0 else None,
        "rank_answer_clean": int((clean > clean[answer]).sum()) if answer >= 0 else None,
        "js_corrupted": moved,
        "swap": partner
        and {
            "id": partner.id,
            "text": partner.text,
            "spans": spans_of(partner),
            "answers": list(partner.answers),
        },
    }


def spans_of(prompt: Prompt) -> dict[str, list[int]]:
    """The spans of a prompt as JSON holds them."""
    return {name: [int(i) for i in span] for name, span in prompt.spans.items()}


def versions() -> dict[str, str]:
    """The versions of the packages that results depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
