"""verify: would this run come out again? Digests, settings and some cells, computed anew."""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.divergences.divergence import Divergence
from knockgrid.edits.data import from_data
from knockgrid.engine.bind import bind
from knockgrid.engine.collect import anywhere_of, finished, meter_of
from knockgrid.engine.exact_answers import rules_from_data
from knockgrid.engine.executors import reference
from knockgrid.engine.executors.free_run import FreeRun
from knockgrid.engine.measure import Row
from knockgrid.engine.setup import Checked, check, free_run_of, versions
from knockgrid.errors import InputError, check_counts
from knockgrid.host.bridge import describe
from knockgrid.prompts.data import prompt_from_data
from knockgrid.runs.digests import file_digest, row_digests
from knockgrid.runs.job import load_model
from knockgrid.runs.manifest import DECIDED, run_digest
from knockgrid.runs.run_folder import SAME_MODEL, SAME_PASS, SHARDS, RunFolder
from knockgrid.runs.store import read_run, scan_run
from knockgrid.runs.study import spec_of
from knockgrid.spec import Spec, digest
from knockgrid.table.measures import Measure, measure_of
from knockgrid.table.table import metadata_of, metrics

PLACE = ("layer", "head", "module", "position", "span", "alpha", "measured", "token")
SUSPECTS = 3
"""Rows with a wrong digest whose cells are all computed anew, to name the changed numbers."""
NAMED = 20
SAME = (
    *("n_tokens", "mode", "unit", "temperature", "measure", "samples", "direction", "prepend_bos"),
    *("seed", "sampled_runs"),
)
Rows = tuple[str, str]  # prompt and intervention
Place = tuple[str, int | None]  # intervention, and layer where it has none of its own


@dataclass(eq=False)
class Verification:
    """What was checked, what is worth knowing, and what does not fit, each in one line."""

    checked: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    mismatches: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything fits."""
        return not self.mismatches


def verify(
    folder: str | Path,
    *,
    model: TransformerBridge | None = None,
    known: Sequence[Any] = (),
    cells: int = 20,
    seed: int = 0,
) -> Verification:
    """Check a run folder against its own stamps, and some of its cells against the model.

    Example:
        >>> verify("runs/nowhere")
        Traceback (most recent call last):
        ...
        knockgrid.errors.InputError: runs/nowhere holds no run (there is no manifest.json); ...

    Args:
        folder: a run folder with `manifest.json`.
        model: the model to hold the run against; by default the one that the run names.
        known: classes and measures of your own that took part, and tensors of `fixed`.
        cells: so many cells, drawn by `seed`, are computed anew with the reference executor, one
            full pass each; where rows do not fit their digest, all cells of that intervention are.
        seed: of the draw of cells.

    Checked are the digests of all files and rows, that manifest and table tell the same, the model
    and its tokenizer, what was taken over the prompt set (standard deviations, means), and the
    cells. Other package versions are a note, not a mismatch.

    Raises:
        InputError: no run, or one whose manifest cannot be read.

    Limit: digests tell a change, not who made it; whoever can write the folder can stamp it anew,
    and then only the recomputed cells speak.
    """
    check_counts(cells=cells)
    folder, found = Path(folder), Verification()
    run = RunFolder(folder)
    manifest = run.manifest
    if not manifest.get("finished"):
        raise InputError(f"{folder} is not finished; the command that began it goes on with it")
    check_files(run, manifest, found)
    try:
        table = read_run(run, scan_run(run.path).schema.names)
    except (InputError, OSError) as error:
        found.mismatches.append(f"the table cannot be read: {error}")
        return found
    check_settings(manifest, table, found)
    try:
        suspects = check_rows(run, manifest, table, found)
    except InputError as error:
        found.mismatches.append(str(error))
        return found
    spec = spec_of(folder, manifest)
    if model is None and spec.model is None:
        found.notes.append(
            "no cell was computed anew: the run was given its model as an object, not loaded by "
            "kg.load; give verify(model=)"
        )
        return found
    model = load_model(spec) if model is None else model
    if check_model(manifest, model, found):
        check_cells(table, manifest, model, known, suspects, cells, seed, found)
    return found


def check_files(run: RunFolder, manifest: Mapping[str, Any], found: Verification) -> None:
    """Every file the manifest vouches for."""
    stamped = manifest["digests"]["files"]
    for name, written in stamped.items():
        if not (run.path / name).is_file():
            found.mismatches.append(f"{name} is missing")
        elif file_digest(run.path / name) != written:
            found.mismatches.append(f"{name} is not the file that was written (sha256 differs)")
    there = {f"{SHARDS}/{path.name}" for path in (run.path / SHARDS).glob("*.parquet")}
    strangers = sorted(there - set(stamped)) if not manifest.get("compact") else []
    found.mismatches += [f"{name} is a file that the run has not written" for name in strangers]
    found.checked.append(f"digests of {len(stamped)} files")


def check_settings(manifest: dict[str, Any], table: pd.DataFrame, found: Verification) -> None:
    """What was decided at the beginning must be what every shard was computed under."""
    if run_digest(manifest) != manifest["run_digest"]:
        found.mismatches.append("the manifest is not what the shards were computed under")
    if manifest["rows"] != len(table):
        found.mismatches.append(f"the table has {len(table)} rows, the manifest {manifest['rows']}")
    if digest(manifest["config"]) != manifest["config_digest"]:
        found.mismatches.append("the settings in the manifest do not have their stamped digest")
    known = {side["id"] for side in metadata_of(table)["prompts"]}
    strangers = sorted(set(table["prompt"]) - known)
    if strangers:
        found.mismatches.append(f"prompt {strangers[0]!r} has rows, but no entry in the side table")
    found.checked.append(f"{len(DECIDED)} settings of the manifest")


def check_rows(
    run: RunFolder, manifest: Mapping[str, Any], table: pd.DataFrame, found: Verification
) -> list[Rows]:
    """The prompts and interventions whose rows are not those that were written."""
    if manifest.get("compact"):
        digests = manifest["digests"]["rows"]
    else:
        digests = {p: d for one in run.abouts(manifest) for p, d in one["digests"].items()}
    stamped, now = (
        {(p, name): digest for p, part in one.items() for name, digest in part.items()}
        for one in (digests, row_digests(table))
    )
    wrong = [rows for rows in {**stamped, **now} if stamped.get(rows) != now.get(rows)]
    for prompt, name in wrong[:NAMED]:
        found.mismatches.append(
            f"the rows of prompt {prompt!r}, intervention {name!r} are not those that were written"
        )
    if len(wrong) > NAMED:
        found.mismatches.append(f"and those of {len(wrong) - NAMED} more prompts and interventions")
    found.checked.append(f"rows of {len(digests)} prompts under {len(stamped)} digests")
    return [rows for rows in wrong if rows in now]


def check_model(manifest: Mapping[str, Any], model: TransformerBridge, found: Verification) -> bool:
    """Whether this is the run's model, so that its cells can be compared."""
    stamped, now = manifest["model"], describe(model)
    wrong = [key for key in (*SAME_MODEL, *SAME_PASS) if stamped.get(key) != now.get(key)]
    for key in wrong:
        ours, theirs = (str(one.get(key))[:12] for one in (now, stamped))
        found.mismatches.append(f"the model is another one: {key} is {ours}, in the run {theirs}")
    found.checked.append(f"model {stamped['name']} ({stamped['weights_digest'][:12]})")
    after = versions()
    for name, version in manifest["versions"].items():
        if version != after.get(name):
            found.notes.append(f"{name} was {version} and is {after.get(name)}")
    return not wrong


def check_cells(
    table: pd.DataFrame,
    manifest: Mapping[str, Any],
    model: TransformerBridge,
    known: Sequence[Any],
    suspects: Sequence[Rows],
    cells: int,
    seed: int,
    found: Verification,
) -> None:
    """Some cells once more, one full pass each, and all cells of prompts that do not fit."""
    usable = table.loc[table["status"] == "ok", ["prompt", "intervention", "layer"]]
    every = list(dict.fromkeys(usable.itertuples(index=False, name=None)))
    drawn = random.Random(seed).sample(every, min(cells, len(every)))
    drawn += [one for rows in suspects[:SUSPECTS] for one in every if one[:2] == rows]
    chosen: dict[str, list[Place]] = {}
    for prompt, name, layer in dict.fromkeys(drawn):
        chosen.setdefault(prompt, []).append((name, None if pd.isna(layer) else int(layer)))
    if not chosen:
        found.notes.append("no cell has a value, so none was computed anew")
        return
    metadata = metadata_of(table)
    own = {one.name: one for one in known if isinstance(one, Divergence)}
    layers = sorted({at for places in chosen.values() for _, at in places if at is not None})
    spec = Spec(
        layers=layers or [0],
        metrics=[own.get(name, name) for name in metadata["metrics"]],
        exact_answer=rules_from_data(metadata.get("exact_answer", "given"), known),
        **{name: metadata[name] for name in SAME},
    )
    rows = [from_data(one["data"], known) for one in manifest["interventions"]]
    # of all prompts, over which what is taken over the set is computed anew
    sweep = check(model, [prompt_from_data(side) for side in metadata["prompts"]], rows, spec)
    for scale, value in metadata["sigma"].items():
        now = sweep.settings.sigma.get(scale)
        if now is None or not math.isclose(now, value, rel_tol=1e-5):
            found.mismatches.append(f"sigma over {scale!r} is {value} in the run, {now} anew")
    for prompt, places in chosen.items():
        found.mismatches += compare(table, sweep, prompt, places)
    count = sum(map(len, chosen.values()))
    found.checked.append(f"{count} cells against the reference executor")


def rows_anew(sweep: Checked, prompt: str, wanted: Sequence[Place]) -> Iterator[Row]:
    """The rows of some cells of one prompt, one full pass each; free runs without a cache."""
    number = [one.prompt.id for one in sweep.ready].index(prompt)
    names = {name for name, _ in wanted}
    some = replace(
        sweep.settings,
        interventions=[one for one in sweep.settings.interventions if one.name in names],
        layers=list(dict.fromkeys(layer for _, layer in wanted if layer is not None)),
    )
    bound = bind(sweep.model, [sweep.ready[number]], [number], some)
    cells = [c for c in bound.cells if (c.intervention.name, c.layer) in wanted]
    bound = replace(bound, cells=cells)
    meter = anywhere_of(meter_of(sweep.model, bound, sweep, some), sweep.model, sweep)
    free = sweep.spec.mode == "free_run"
    executor = free_run_of(sweep.spec, cached=False) if free else reference
    for _, rows in finished(sweep.model, bound, meter, executor, 8):
        yield from rows


def compare(
    table: pd.DataFrame, sweep: Checked, prompt: str, places: Sequence[Place]
) -> Iterator[str]:
    """What differs between a prompt's stored cells and the same cells computed anew."""
    mine = table[(table["prompt"] == prompt) & (table["status"] == "ok")]
    stored = {_key(row): row for row in mine.to_dict("records")}
    stored = {key: row for key, row in stored.items() if key[:2] in places}
    anew = {_key(row): row for row in rows_anew(sweep, prompt, places) if row["status"] == "ok"}
    half = str(metadata_of(table)["model"]["dtype"]) in ("bfloat16", "float16")
    for key in {**anew, **stored}:
        before, now = stored.get(key), anew.get(key)
        where = _where(now or before or {}, sweep.spec.n_tokens)
        if before is None:
            yield f"{where}: computed anew it has a value, the table has none"
        elif now is None:
            yield f"{where}: the table has a value, computed anew there is none"
        else:
            for name in (n for n in metrics(table) if n in now):
                old, new = _number(before[name]), _number(now[name])
                if not near(measure_of(table, name), old, new, half):
                    yield f"{where}: {name} is {old:.6g} in the table, {new:.6g} anew"


def _where(row: Mapping[Any, Any], n_tokens: int) -> str:
    """A cell in words."""
    names = ["prompt", "intervention", *PLACE[:-1], *(["token"] if n_tokens > 1 else [])]
    said = [(name, row[name]) for name in names if not pd.isna(row[name])]
    words = ("prompt", "intervention")
    return ", ".join(f"{n} {value!r}" if n in words else f"{n} {value}" for n, value in said)


def _key(row: Mapping[Any, Any]) -> tuple:
    place = (None if pd.isna(row[name]) else row[name] for name in PLACE)
    return (row["intervention"], *place)


def _number(value: Any) -> float:
    return math.nan if pd.isna(value) else float(value)


OF_LOGITS = {"logit_diff": 1e-3, "recovered": 1e-2, "p_change": 0.1}
"""Least differences that are not rounding: a logit around 10, as a log-probability, may be off by
1e-4 of its size, however small its distance to another logit is; `recovered` divides that by 0.1 or
more, and a probability that is off by a thousandth changes by a tenth of a percent."""


def near(measure: Measure, stored: float, now: float, half: bool = False) -> bool:
    """Whether a stored number and the one computed anew differ by no more than rounding.

    Divergences may differ by 5e-6 and 1e-4 of their size (executors agree to 5e-6 nats), those that
    are unbounded by ten times as much, ranks by one in a hundred, as tokens with nearly equal
    logits change places; what is made of two logits by what rounds in these (`OF_LOGITS`); in half
    precision a hundred times as much.
    """
    if not (math.isfinite(stored) and math.isfinite(now)):
        return stored == now or (math.isnan(stored) and math.isnan(now))
    scale = 100.0 if half else 1.0
    if measure.unit == "rank":
        return abs(stored - now) <= scale * max(1.0, 0.01 * abs(stored))
    bounded = measure.lower is not None and measure.upper is not None
    absolute = OF_LOGITS.get(measure.name, 5e-6 if bounded else 5e-5)
    return abs(stored - now) <= scale * (absolute + 1e-4 * abs(stored))


def report(found: Verification) -> Iterator[str]:
    """A verification in lines."""
    yield from (f"checked: {line}" for line in found.checked)
    yield from (f"note: {line}" for line in found.notes)
    yield from (f"MISMATCH: {line}" for line in found.mismatches)
    n = len(found.mismatches)
    yield f"the run does not hold: {n} mismatch{'es' * (n != 1)}" if n else "the run holds"
