"""From settings to a model and interventions."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers.utils import logging

from knockgrid.errors import InputError, unknown
from knockgrid.edits.intervention import Intervention
from knockgrid.host.bridge import load
from knockgrid.display.progress import visible
from knockgrid.prompts.prompt import Prompt
from knockgrid.sources.source import Source
from knockgrid.prompts import same_answer
from knockgrid.runs.config import ROWS, SOURCES, SweepConfig
from knockgrid.edits import contrasts, knockout, nulls, patch
from knockgrid.sources import corrupted_run, mean, noise, swap, zero

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def load_model(config: SweepConfig, place: str | None = None) -> TransformerBridge:
    """The model that the settings name; where they leave the device open, it goes to `place`."""
    with quiet_loading(config.model):
        return load(
            config.model,
            dtype=DTYPES[config.dtype],
            device=config.device or (place if config.device_map is None else None),
            revision=config.revision,
            device_map=config.device_map,
        )


@contextmanager
def quiet_loading(model: str) -> Iterator[None]:
    """No bar of `transformers` while the demo model is loaded, which takes a moment.

    Nor where nobody sees a bar: in a file or a pipe its steps would be lines.
    """
    shown = logging.is_progress_bar_enabled()
    if model == "demo" or not visible():
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _source(config: SweepConfig, name: str) -> Source:
    kind, _, level = name.partition(":")
    made = {
        "noise": lambda: corrupted_run(by=noise(_level(name, level) if level else config.noise)),
        "swap": lambda: corrupted_run(by=swap()),
        "zero": zero,
        "mean": mean,
    }
    if kind not in made or (level and kind != "noise"):
        raise unknown("source", name, SOURCES)
    return made[kind]()


def _level(name: str, level: str) -> float:
    try:
        return float(level)
    except ValueError:
        raise InputError(f"source {name!r} has no number of standard deviations") from None


def interventions_of(
    config: SweepConfig, prompts: Sequence[Prompt] = (), tokenizer: Any = None
) -> list[Intervention]:
    """The rows of a run: treatments, and the contrasts and nulls of the first of each row.

    `prompts` and `tokenizer` are what partners with the same answer are found among; without them
    there is no such null.
    """
    rows = treatments_of(config)
    first = [next(one for one in rows if one.name.split(" ")[0] == row) for row in config.rows]
    made = list(rows)
    if config.contrasts:
        made += contrasts(first)
    if config.nulls:
        partners = same_answer(prompts, tokenizer)
        made += nulls(first, partners or None)
    return made


def treatments_of(config: SweepConfig) -> list[Intervention]:
    """The rows of the figure: subject and last once per source, attention once per window.

    With one source and one window they have the plain names subject, attention and last.
    """
    for row in config.rows:
        if row not in ROWS:
            raise unknown("row", row, ROWS)
    made: list[Intervention] = []
    for row in config.rows:
        if row == "attention":
            several = len(config.window) > 1
            for window in config.window:
                name = f"attention w{window}" if several else "attention"
                label = f"Attn. w{window}" if several else "Attn."
                made.append(knockout("last", "subject", window, name=name, label=label))
            continue
        for name in config.source:
            full = f"{row} {name}" if len(config.source) > 1 else row
            label = {"subject": "Subj.", "last": "Last."}[row]
            made.append(patch(config.act_name, row, _source(config, name), name=full, label=label))
    return made
