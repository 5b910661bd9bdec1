"""carry_out: from settings to a run folder."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from knockgrid._parquet import write_table
from knockgrid._prompt import Prompt
from knockgrid._sweep import sweep
from knockgrid.analysis import labels, noise_floor, reliance, with_noise_floor
from knockgrid.analysis._noise_floor import floor_of_nulls
from knockgrid.edge.choose import choose_prompts, in_form
from knockgrid.edge.config import SweepConfig
from knockgrid.edge.plan import interventions_of, treatments_of
from knockgrid.edge.store import LABELS, claim, open_run, read_manifest, write_run

SAME = (
    *("layers", "n_tokens", "mode", "unit", "samples", "direction", "executor"),
    *("prepend_bos", "seed"),
)
LABEL_ORDER = ("FA-high", "FA-low", "AH", "UH")
FLOOR_PROMPTS = 16
"""A few dozen cells per layer are enough for a percentile; the floor should not cost a sweep."""


def carry_out(
    config: SweepConfig, out: Path, load: Callable[[], TransformerBridge]
) -> pd.DataFrame:
    """Sweep as the settings say and write table and manifest; nothing is computed before checks.

    Raises:
        InputError: bad settings, a folder that holds another run, or no prompts.
    """
    treatments_of(config)  # refuses bad names before a model is loaded
    fresh = not out.exists()
    claim(out, config)
    try:
        return _carried_out(config, out, load())
    except BaseException:
        if fresh:
            with suppress(OSError):  # not empty: something was written after all
                out.rmdir()
        raise


def _carried_out(config: SweepConfig, out: Path, model: TransformerBridge) -> pd.DataFrame:
    chosen = choose_prompts(config, model)
    started = datetime.now(timezone.utc)
    prompts, frame = list(chosen.prompts), None
    if config.labels:
        prompts, frame = labelled(prompts, config, model)
    rows = interventions_of(config, prompts, model.tokenizer)
    options = {name: getattr(config, name) for name in SAME}
    table = sweep(model, prompts, rows, **options)
    table = floored(table, model, prompts, config, options)
    if frame is not None:
        table.attrs["knockgrid"]["group_order"] = list(LABEL_ORDER)
        write_table(frame, out / LABELS)
    else:  # of a labelled run that ended before its manifest
        (out / LABELS).unlink(missing_ok=True)
    write_run(out, table, config, started, chosen.selection)
    return table


def once(config: SweepConfig, out: Path, load: Callable[[], TransformerBridge]) -> pd.DataFrame:
    """The table of a run: that on disk if it was made under these settings, else a new one.

    Raises:
        InputError: as `carry_out`.
    """
    if (out / "manifest.json").exists():
        claim(out, config)
        if read_manifest(out)["config_digest"] == config.digest():
            return open_run(out)
    return carry_out(config, out, load)


def labelled(
    prompts: Sequence[Prompt], config: SweepConfig, model: TransformerBridge
) -> tuple[list[Prompt], pd.DataFrame]:
    """The prompts with their label as the group, and the frame that the labels come from.

    With `label_form` reliance is measured on the prompts in that form, so that a label is not the
    number that is measured later.
    """
    other = None
    if config.label_form is not None:
        forms = in_form(list(prompts), config.label_form, model)
        other = {str(p.id): q for p, q in zip(prompts, forms, strict=True)}
    frame = reliance(
        model, prompts, label_with=other, prepend_bos=config.prepend_bos, seed=config.seed
    )
    frame = labels(frame)
    name = {
        str(p): None if pd.isna(n) else str(n)
        for p, n in zip(frame.prompt, frame.label, strict=True)
    }
    return [prompt.replace(group=name[str(prompt.id)]) for prompt in prompts], frame


def floored(
    table: pd.DataFrame,
    model: TransformerBridge,
    prompts: Sequence[Prompt],
    config: SweepConfig,
    options: dict[str, Any],
) -> pd.DataFrame:
    """The table with its noise floor: from its own nulls, else from edits on a few prompts.

    A free run has none, as its later tokens differ, nor has denoising, which edits other runs.
    """
    if not config.noise_floor or config.mode == "free_run" or config.direction != "noise":
        return table
    if config.nulls:
        return with_noise_floor(table, floor_of_nulls(table))
    step = -(-len(prompts) // FLOOR_PROMPTS)
    floor = noise_floor(
        model, list(prompts)[::step], treatments_of(config), progress=False, **options
    )
    return with_noise_floor(table, floor)
