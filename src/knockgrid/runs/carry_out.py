"""carry_out: from settings to a run folder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from knockgrid import prompts as datasets
from knockgrid.prompts.prompt import Prompt
from knockgrid.engine.setup import SetLevel, Setup, set_up
from knockgrid.engine.setup import METRICS
from knockgrid.table.table import metadata_of
from knockgrid.evidence.labels import labels
from knockgrid.evidence import noise_floor, with_noise_floor
from knockgrid.evidence.reliance import reliance
from knockgrid.evidence.noise_floor import floor_of_nulls
from knockgrid.runs.choose import check_prompts, choose_prompts, in_form
from knockgrid.runs.config import BOUNDS, SweepConfig
from knockgrid.runs.digests import file_digest
from knockgrid.runs.disk import disk_errors_said
from knockgrid.runs.plan import interventions_of, treatments_of
from knockgrid.runs.resumable import begun, carried_on, engine_of
from knockgrid.runs.run_folder import Plan, RunFolder
from knockgrid.runs.split import part_of
from knockgrid.runs.start import Start, start_of

SAME = (
    *("layers", "n_tokens", "mode", "unit", "samples", "direction", "executor"),
    *("prepend_bos", "seed", *BOUNDS),
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
    engine: Any = "single",
) -> pd.DataFrame:
    """Sweep as the settings say, shard by shard; a run that was begun in the folder goes on.

    Of a run that has ended the model is not loaded.

    Raises:
        InputError: bad settings, a folder that holds another run, or no prompts.
        PromptsFailed: some prompts raised.
    """
    # What can be refused is refused before a model is loaded.
    treatments_of(config)
    part = part_of(shard)
    settings = config.model_dump(mode="json", exclude={"threads"})  # each shard records its own
    folder = RunFolder(out)
    folder.check(settings)
    folder.check_data(data_digest(config))
    if not folder.begun:
        check_prompts(config)
    with engine_of(engine, Job(config, load)) as chosen:
        begun(folder, settings, config.digest(), chosen)
        table = carried_on(folder, part, progress, chosen)
    return with_floor_of_nulls(folder, config, table)


@dataclass(frozen=True, eq=False)
class Job:
    """What settings decide of a run, once there is a model."""

    config: SweepConfig
    load: Callable[[], TransformerBridge]

    @cached_property
    def loaded(self) -> TransformerBridge:
        """The model, which is loaded when it is needed, and once."""
        return self.load()

    @property
    def options(self) -> dict[str, Any]:
        """The options of the sweep."""
        return {name: getattr(self.config, name) for name in SAME}

    def start(self) -> Start:
        """What the run begins with: chosen prompts with their labels, groups, the noise floor."""
        chosen = choose_prompts(self.config, self.loaded)
        prompts, frame = chosen.prompts, None
        if self.config.labels:
            prompts, frame = labelled(prompts, self.config, self.loaded)
        setup = self._set_up(prompts, None)
        said: dict[str, Any] = {"selection": chosen.selection, "data": data_digest(self.config)}
        if frame is not None:
            said["group_order"] = list(LABEL_ORDER)
        return start_of(setup, {**said, **self.floor(setup)}, frame)

    def set_up(self, plan: Plan) -> Setup:
        """The sweep over the prompts, and with the statistics, that the run was begun with."""
        return self._set_up(plan.prompts, plan.set_level)

    def _set_up(self, prompts: Sequence[Prompt], level: SetLevel | None) -> Setup:
        rows = interventions_of(self.config, prompts, self.loaded.tokenizer)
        more = {"metrics": METRICS, "batch": self.config.batch, "top": self.config.top}
        return set_up(self.loaded, prompts, rows, **self.options, **more, set_level=level)

    def floor(self, setup: Setup) -> dict[str, Any]:
        """The noise floor, unless the run's own nulls will give it."""
        if not wants_floor(self.config) or self.config.nulls:
            return {}
        prompts = [one.prompt for one in setup.ready]
        some = prompts[:: -(-len(prompts) // FLOOR_PROMPTS)]
        rows = treatments_of(self.config)
        floor = noise_floor(setup.model, some, rows, progress=False, **self.options)
        return {"noise_floor": metadata_of(floor)["noise_floor"]}


def data_digest(config: SweepConfig) -> str | None:
    """The sha256 of the file that prompts come from; None for a data set of a hub."""
    if config.prompts == "facts":
        return file_digest(Path(datasets.__file__).with_name("facts.jsonl"))
    path = Path(config.prompts)
    return file_digest(path) if path.is_file() else None


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
    with disk_errors_said(folder.path):
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
        forms = in_form(list(prompts), config.label_form, model.tokenizer)
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
