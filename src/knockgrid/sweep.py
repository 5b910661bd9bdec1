"""sweep: in memory, or shard by shard into a run folder."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from knockgrid.edits.intervention import Intervention
from knockgrid.engine.executors.executor import Executor
from knockgrid.engine.in_memory import Model, sweep_in_memory
from knockgrid.engine.setup import BATCH, METRICS
from knockgrid.errors import InputError, as_int, shown, whole_number, yes_or_no
from knockgrid.prompts.prompt import Prompt
from knockgrid.runs.resumable import resumable
from knockgrid.table.left_out import warn_left_out


def sweep(
    model: Model,
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
    batch: int = BATCH,
    max_rows: int | None = None,
    max_memory: int | str | None = None,
    threads: int | None = None,
    top: int = 0,
    out: str | Path | None = None,
    shard: str | None = None,
    engine: Any = "single",
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
        model: a bridge, what `load` takes, or a function that loads it.
        prompts: one or more prompts; their order is that of the table.
        interventions: what to block; each has a name of its own.
        layers: `"all"`, or layers in the order in which figures show them.
        n_tokens: tokens to measure; token 0 is the one after the prompt, later ones are measured
            on the clean greedy continuation.
        mode: `"prompt_only"` edits prompt positions only; with `"persistent"` knockouts and edge
            patches also bind every later query. Patches are the same in both, as they are applied
            once. `"free_run"` is persistent, and the intervened model writes its own tokens;
            the column `diverged` names the first that differs, and `written` holds the text.
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
        batch: prompts of equal length that are computed together, at most; a sweep that is
            carried out in pieces is cut between batches only.
        max_rows: rows of one pass, at most; by default they follow free memory. Where memory runs
            out all the same, they are halved, with a warning.
        max_memory: what may be allocated beside the weights and the table, such as `"4GB"`,
            `"800MiB"` or a number of bytes. Both bounds change results by rounding only.
        threads: CPU threads, at most one per processor; by default one or all that torch has,
            whichever is faster beside what else runs. They change results by rounding only, and
            what you had set is back afterwards.
        top: with `out`, so many of the most probable tokens of every row are kept for
            `knockgrid report`, with their log-probabilities (`open_run(columns=...)` reads them).
        out: a run folder. Finished batches are kept there as they come; the same call again does
            what is missing, and `open_run` reads it.
        shard: with `out`, the part of the batches that this process carries out: `"2/8"`, or
            `"auto"` for what SLURM or torchrun has set; several processes write one folder.
        engine: with `out`, where batches are computed: `"single"`, in this process, or `"ray"`, by
            actors that load the model themselves; `RayEngine` says how many and how large.
        progress: whether to show how far it is: a bar in a terminal or a notebook, elsewhere, as in
            the log of a batch job, a line a minute.

    Returns:
        The tidy table, one row per prompt, intervention, layer and measured token; its settings
        are in `table.attrs["knockgrid"]`. One warning counts, row by row, the prompts and values
        that are missing, with the reasons.

    Raises:
        InputError: bad input, in one sentence, before anything is computed or written; a folder
            that holds a run with other settings.
        PromptsFailed: with `out`, some prompts raised; the others are kept.
        TooLittleMemory: memory ran out on one prompt in the smallest passes.
    """
    options: dict[str, Any] = {
        "layers": list(layers) if isinstance(layers, Iterator) else layers,
        "n_tokens": as_int(n_tokens),
        "mode": mode,
        "metrics": metrics,
        "unit": unit,
        "samples": as_int(samples),
        "direction": direction,
        "executor": executor,
        "prepend_bos": yes_or_no("prepend_bos", prepend_bos),
        "seed": whole_number("seed", seed),
        "batch": as_int(batch),
        "max_rows": as_int(max_rows),
        "max_memory": as_int(max_memory),
        "threads": as_int(threads),
        "top": as_int(top),
    }
    if not isinstance(out, str | Path | None):
        raise InputError(f"out is {shown(out)}; give the path of a run folder")
    if out is not None:
        return warn_left_out(
            resumable(out, model, prompts, interventions, options, shard, progress, engine)
        )
    if shard is not None:
        raise InputError(f"shard is {shard!r}, but there is no folder to share; give out=")
    if engine != "single":
        raise InputError(f"engine is {engine!r}, but there is no folder to write; give out=")
    if top:
        raise InputError(f"top is {top!r}, but there is no folder to keep tokens in; give out=")
    return sweep_in_memory(model, prompts, interventions, progress=progress, **options)
