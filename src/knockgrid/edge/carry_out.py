"""carry_out: from settings to a run folder."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from knockgrid._parquet import write_table
from knockgrid._prompt import Prompt
from knockgrid._setup import SetLevel, Setup, set_up
from knockgrid._sweep import METRICS
from knockgrid._table import metadata_of
from knockgrid.analysis import labels, noise_floor, reliance, with_noise_floor
from knockgrid.analysis._noise_floor import floor_of_nulls
from knockgrid.edge.choose import Chosen, choose_prompts, in_form
from knockgrid.edge.config import SweepConfig
from knockgrid.edge.plan import interventions_of, treatments_of
from knockgrid.edge.resumable import begun, carried_on
from knockgrid.edge.run_folder import LABELS, RunFolder
from knockgrid.edge.split import part_of

SAME = (
    *("layers", "n_tokens", "mode", "unit", "samples", "direction", "executor"),
    *("prepend_bos", "seed"),
)
LABEL_ORDER = ("FA-high", "FA-low", "AH", "UH")
FLOOR_PROMPTS = 16
"""A few dozen cells per layer are enough for a percentile; the floor should not cost a sweep."""


def carry_out(
    config: SweepConfig,
    out: Path,
    load: Callable[[], TransformerBridge],
    *,
    shard: str | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Sweep as the settings say, shard by shard; a run that was begun in the folder goes on.

    Of a run that has ended the model is not loaded.

    Raises:
        InputError: bad settings, a folder that holds another run, or no prompts.
        PromptsFailed: some prompts raised.
    """
    treatments_of(config)  # refuses bad names before a model is loaded
    part = part_of(shard)
    settings = json.loads(config.model_dump_json())
    folder = RunFolder(out)
    folder.check(settings)
    job = Job(config, folder, cache(load))
    begun(folder, settings, config.digest(), job.set_up, job.more)
    table = carried_on(folder, job.set_up, part, progress)
    return with_floor_of_nulls(folder, config, table)


@dataclass(frozen=True, eq=False)
class Job:
    """What settings decide of a run, once there is a model."""

    config: SweepConfig
    folder: RunFolder
    load: Callable[[], TransformerBridge]

    @cached_property
    def chosen(self) -> Chosen:
        """The prompts, those that the run was begun with if it was, and how they were selected."""
        if self.folder.begun:
            return Chosen(self.folder.plan().prompts)
        return choose_prompts(self.config, self.load())

    @cached_property
    def labelled(self) -> tuple[Sequence[Prompt], pd.DataFrame | None]:
        """The prompts with their labels, and the frame that the labels come from."""
        if self.folder.begun or not self.config.labels:
            return self.chosen.prompts, None
        return labelled(self.chosen.prompts, self.config, self.load())

    @property
    def options(self) -> dict[str, Any]:
        """The options of the sweep."""
        return {name: getattr(self.config, name) for name in SAME}

    def set_up(self, level: SetLevel | None) -> Setup:
        """The sweep, with set-level statistics that were taken before, if they were."""
        model, prompts = self.load(), self.labelled[0]
        rows = interventions_of(self.config, prompts, model.tokenizer)
        more = {"metrics": METRICS, "batch": self.config.batch, "top": self.config.top}
        return set_up(model, prompts, rows, **self.options, **more, set_level=level)

    def more(self, setup: Setup) -> dict[str, Any]:
        """What else the manifest says: how prompts were chosen, groups, the noise floor."""
        said: dict[str, Any] = {"selection": self.chosen.selection}
        frame = self.labelled[1]
        if frame is not None:
            said["group_order"] = list(LABEL_ORDER)
            write_table(frame, self.folder.path / LABELS)
        else:  # of a labelled run that ended before its manifest
            (self.folder.path / LABELS).unlink(missing_ok=True)
        if wants_floor(self.config) and not self.config.nulls:
            prompts = [one.prompt for one in setup.ready]
            some = prompts[:: -(-len(prompts) // FLOOR_PROMPTS)]
            rows = treatments_of(self.config)
            floor = noise_floor(setup.model, some, rows, progress=False, **self.options)
            said["noise_floor"] = metadata_of(floor)["noise_floor"]
        return said


def wants_floor(config: SweepConfig) -> bool:
    """Whether there is a noise floor: a free run has none, nor has denoising.

    The later tokens of a free run differ, and denoising edits other runs.
    """
    return config.noise_floor and config.mode != "free_run" and config.direction == "noise"


def with_floor_of_nulls(
    folder: RunFolder, config: SweepConfig, table: pd.DataFrame
) -> pd.DataFrame:
    """The table with the floor that its own nulls give, which is known only when all are there."""
    manifest = folder.manifest
    wanted = wants_floor(config) and config.nulls and "noise_floor" not in manifest
    if not wanted or not manifest["finished"]:
        return table
    table = with_noise_floor(table, floor_of_nulls(table))
    folder.update(noise_floor=metadata_of(table)["noise_floor"])
    return table


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
