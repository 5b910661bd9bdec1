"""Job: from a spec to a model, prompts, interventions and a sweep that is set up."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge
from transformers.utils import logging

from knockgrid import prompts as bundled
from knockgrid.display.progress import visible
from knockgrid.edits import contrasts, nulls
from knockgrid.edits.data import from_data, takes_model
from knockgrid.edits.intervention import Intervention
from knockgrid.engine.in_memory import loaded
from knockgrid.engine.setup import SetLevel, Setup, set_up
from knockgrid.evidence import noise_floor
from knockgrid.evidence.labels import labels
from knockgrid.evidence.reliance import reliance
from knockgrid.prompts import same_answer
from knockgrid.prompts.prompt import Prompt
from knockgrid.runs.choose import choose_prompts, in_form
from knockgrid.runs.digests import file_digest
from knockgrid.runs.run_folder import Plan
from knockgrid.runs.split import local_device
from knockgrid.runs.start import Start, start_of
from knockgrid.spec import OF_A_FOLDER, OPTIONS, Spec
from knockgrid.table.table import metadata_of

LABEL_ORDER = ("FA-high", "FA-low", "AH", "UH")
FLOOR_PROMPTS = 16
"""A few dozen cells per layer are enough for a percentile; the floor should not cost a sweep."""


@dataclass(eq=False)
class Job:
    """What a spec decides of a run, once there is a model; it may be pickled before."""

    spec: Spec
    shard: str | None = None
    load: Callable[[], TransformerBridge] | None = None
    model: TransformerBridge | None = field(default=None, repr=False)
    setup: Setup | None = field(default=None, repr=False)

    @property
    def loaded(self) -> TransformerBridge:
        """The model, which is loaded when it is needed, and once."""
        if self.model is None:
            place = local_device(self.shard)
            self.model = self.load() if self.load else load_model(self.spec, place)
        return self.model

    def start(self) -> Start:
        """What the run begins with: chosen prompts with their labels, groups, the noise floor."""
        spec, chosen = self.spec, choose_prompts(self.spec, self.loaded)
        prompts, frame = chosen.prompts, None
        more = {"selection": chosen.selection, "data": data_digest(spec)}
        if spec.labels:
            prompts, frame = labelled(prompts, spec, self.loaded)
            more["group_order"] = list(LABEL_ORDER)
        self.setup = self._set_up(prompts, None)
        rows = [one for one in treatments_of(spec, self.model) if one.edges or one.sites]
        if wants_floor(spec) and rows and not spec.nulls:
            more["noise_floor"] = self.floor(self.setup, rows)
        return start_of(self.setup, more, frame)

    def set_up(self, plan: Plan) -> Setup:
        """The sweep over the prompts, and with the statistics, that the run began with."""
        ready = self.setup
        if ready is None or [one.prompt for one in ready.ready] != list(plan.prompts):
            return self._set_up(plan.prompts, plan.set_level)
        return replace(ready, settings=replace(ready.settings, **vars(plan.set_level)))

    def _set_up(self, prompts: Sequence[Prompt], level: SetLevel | None) -> Setup:
        rows = interventions_of(self.spec, prompts, self.loaded.tokenizer, self.loaded)
        return set_up(self.loaded, prompts, rows, self.spec, level)

    def floor(self, setup: Setup, rows: Sequence[Intervention]) -> dict[str, Any]:
        """The noise floor of some rows, over a few of the prompts."""
        prompts = [one.prompt for one in setup.ready]
        some = prompts[:: -(-len(prompts) // FLOOR_PROMPTS)]
        same = {n: getattr(self.spec, n) for n in OPTIONS if n not in ("metrics", *OF_A_FOLDER)}
        made = noise_floor(setup.model, some, rows, progress=False, **same)
        return metadata_of(made)["noise_floor"]


def load_model(spec: Spec, place: str | None = None) -> TransformerBridge:
    """The model that a spec names; where it leaves the device open, it goes to `place`."""
    if not isinstance(spec.model, str | Path):
        return loaded(spec.model)
    device = spec.device or (place if spec.device_map is None else None)
    with quiet_loading(spec.model):
        where = {"device": device, "device_map": spec.device_map}
        return loaded(spec.model, dtype=spec.dtype, revision=spec.revision, **where)


@contextmanager
def quiet_loading(model: object) -> Iterator[None]:
    """No bar of `transformers` for the demo model, nor in a file or pipe, where steps are lines."""
    shown = logging.is_progress_bar_enabled()
    if model == "demo" or not visible():
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def treatments_of(spec: Spec, model: TransformerBridge | None = None) -> list[Intervention]:
    """The interventions of a spec, without contrasts and nulls."""
    made = (
        from_data(one, model=model) if isinstance(one, str | Mapping) else one
        for one in _listed(spec)
    )
    return [row for one in made for row in (one if isinstance(one, list) else [one])]


def check_treatments(spec: Spec) -> None:
    """Refuse interventions that no drawer makes, before a model is loaded."""
    now = [
        one
        for one in _listed(spec)
        if not (isinstance(one, Mapping) and takes_model(str(one.get("kind"))))
    ]
    treatments_of(spec.but(interventions=now))


def _listed(spec: Spec) -> list[Any]:
    given = spec.interventions
    return [given] if isinstance(given, str | Mapping | Intervention) else list(given)


def interventions_of(
    spec: Spec,
    prompts: Sequence[Prompt] = (),
    tokenizer: Any = None,
    model: TransformerBridge | None = None,
) -> list[Intervention]:
    """The rows of a run: treatments, and the contrasts and nulls of the first of each row.

    Nulls with a partner of the same answer need the prompts and the tokenizer.
    """
    rows = treatments_of(spec, model)
    first = list({one.row: one for one in reversed(rows)}.values())[::-1]
    made = list(rows)
    if spec.contrasts:
        made += contrasts(first)
    if spec.nulls:
        made += nulls(first, same_answer(prompts, tokenizer) or None)
    return made


def data_digest(spec: Spec) -> str | None:
    """The sha256 of the file that prompts come from; None where there is no such file."""
    if not isinstance(spec.prompts, str):
        return None
    if spec.prompts == "facts":
        return file_digest(Path(bundled.__file__).with_name("facts.jsonl"))
    path = Path(spec.prompts)
    return file_digest(path) if path.is_file() else None


def wants_floor(spec: Spec) -> bool:
    """Whether there is a noise floor; free runs differ in later tokens, denoising edits others."""
    plain = spec.mode != "free_run" and spec.direction == "noising" and spec.measure is None
    return spec.noise_floor and plain


def labelled(
    prompts: Sequence[Prompt], spec: Spec, model: TransformerBridge
) -> tuple[list[Prompt], pd.DataFrame]:
    """The prompts with their label as the group, and the frame that the labels come from."""
    other = None
    if spec.label_form is not None:  # else a label might be the number that is measured later
        forms = in_form(list(prompts), spec.label_form, model.tokenizer)
        other = {str(p.id): q for p, q in zip(prompts, forms, strict=True)}
    how = {"prepend_bos": spec.prepend_bos, "seed": spec.seed}
    frame = labels(reliance(model, prompts, label_with=other, **how))
    found = zip(frame.prompt, frame.label, strict=True)
    name = {str(p): None if pd.isna(n) else str(n) for p, n in found}
    return [prompt.replace(group=name[str(prompt.id)]) for prompt in prompts], frame
