"""sweep: in memory, or shard by shard into a run folder."""

from collections.abc import Sequence
from inspect import Parameter, signature
from pathlib import Path
from textwrap import fill
from typing import Any

import pandas as pd

from knockgrid.edits.intervention import Intervention, listed
from knockgrid.engine.in_memory import sweep_in_memory
from knockgrid.errors import InputError, shown, unknown
from knockgrid.prompts.prompt import Prompt
from knockgrid.runs.running import run
from knockgrid.spec import FIELDS, OF_A_FOLDER, OPTIONS, Spec
from knockgrid.table.left_out import warn_left_out


def sweep(
    model: Any,
    prompts: Sequence[Prompt] | Prompt,
    interventions: Sequence[Intervention] | Intervention,
    *,
    out: str | Path | None = None,
    shard: str | None = None,
    engine: Any = "single",
    progress: bool = True,
    **options: Any,
) -> pd.DataFrame:
    """Apply every intervention at every layer to every prompt, and measure what it moves.

    Example:
        >>> import knockgrid as kg
        >>> prompt = kg.Prompt("The capital of Italy is", spans={"subject": "Italy"})
        >>> table = kg.sweep("demo", prompt, kg.information_flow(), layers=[0, 29], progress=False)
        >>> table[["intervention", "layer"]].value_counts().size
        6
        >>> bool(kg.grid(table).loc["subject", 29] < 1e-11)
        True

    Args:
        model: a bridge, what `load` takes, or a function that loads it.
        prompts: one or more prompts; their order is that of the table.
        interventions: what to block; each has a name of its own.
        out: a run folder. Finished batches are kept there as they come; the same call again
            computes what is missing, and `open_run` reads it.
        shard: with `out`, the part of the batches that this process computes: `"2/8"`, or
            `"auto"` for what SLURM or torchrun has set; several processes write one folder.
        engine: with `out`, where batches are computed: `"single"`, in this process, or `"ray"`, by
            actors that load the model themselves; `RayEngine` says how many and how large.
        progress: whether to show progress: a bar in a terminal or a notebook; elsewhere, as in the
            log of a batch job, a line a minute.
        **options: fields of `Spec`, one by one:
        {options}

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
    for name in options:
        if name not in OPTIONS:
            raise unknown("option", name, (*OPTIONS, "out", "shard", "engine", "progress"))
    if not isinstance(out, str | Path | None):
        raise InputError(f"out is {shown(out)}; give the path of a run folder")
    if out is not None:
        given = [prompts] if isinstance(prompts, Prompt) else list(prompts)
        spec = Spec(model=model, prompts=given, interventions=listed(interventions), **options)
        return warn_left_out(run(spec, out, shard=shard, engine=engine, progress=progress))
    if shard is not None:
        raise InputError(f"shard is {shard!r}, but there is no folder to share; give out=")
    if engine != "single":
        raise InputError(f"engine is {engine!r}, but there is no folder to write; give out=")
    for name in (name for name in OF_A_FOLDER if options.pop(name, None)):
        raise InputError(f"{name} is given, but there is no folder to keep it in; give out=")
    return sweep_in_memory(model, prompts, interventions, progress=progress, **options)


def _complete() -> None:
    """Give `sweep` the options of `Spec` in its signature and docstring, for `help` and editors."""
    own = signature(sweep)
    named = [one for one in own.parameters.values() if one.kind is not Parameter.VAR_KEYWORD]
    more = [Parameter(n, Parameter.KEYWORD_ONLY, default=FIELDS[n].default) for n in OPTIONS]
    sweep.__signature__ = own.replace(parameters=[*named, *more])  # type: ignore[attr-defined]
    lines = [
        fill(f"{name}: {FIELDS[name].metadata['help']}.", 92, subsequent_indent=" " * 12)
        for name in OPTIONS
    ]
    sweep.__doc__ = str(sweep.__doc__).replace("{options}", ("\n" + " " * 8).join(lines))


_complete()
