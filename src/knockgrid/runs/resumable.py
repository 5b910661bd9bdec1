"""resumable: a sweep that is carried out shard by shard into a run folder."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.errors import InputError, unknown
from knockgrid.passes.exclusive import exclusive
from knockgrid.engine.executors.executor import Executor
from knockgrid.edits.intervention import Intervention, listed
from knockgrid.host.bridge import describe
from knockgrid.display.progress import bar
from knockgrid.prompts.prompt import Prompt
from knockgrid.engine.setup import SetLevel, Setup, set_up
from knockgrid.engine.in_memory import Model, loaded
from knockgrid.table.table import KEY
from knockgrid.runs.closed import ENGINES
from knockgrid.runs.config import BOUNDS
from knockgrid.runs.disk import disk_errors_said
from knockgrid.runs.in_process import Engine, InProcess, Recipe, Task
from knockgrid.runs.finish import finish
from knockgrid.runs.identity import digest, digest_of, identity
from knockgrid.runs.interrupt import Stopped, asked_to_stop
from knockgrid.runs.manifest import SCHEMA, hardware, now
from knockgrid.runs.run_folder import Plan, RunFolder
from knockgrid.runs.shard import Shard, pandas_of, schema, schema_of
from knockgrid.runs.split import local_device, mine, part_of
from knockgrid.runs.start import Start, start_of
from knockgrid.runs.store import open_run
from knockgrid.runs.work import PromptsFailed


def resumable(
    out: str | Path,
    model: Model,
    prompts: Sequence[Prompt] | Prompt,
    interventions: Sequence[Intervention] | Intervention,
    options: Mapping[str, Any],
    shard: str | None = None,
    progress: bool = True,
    engine: Any = "single",
) -> pd.DataFrame:
    """Begin a sweep in a folder, or go on with it, and read its table.

    Raises:
        InputError: as `sweep`; a folder that holds another run.
        PromptsFailed: some prompts raised.
        Stopped: it was asked to stop, and did after the shard in hand.
    """
    part = part_of(shard)
    folder = RunFolder(Path(out))
    rows = listed(interventions)
    executor = options["executor"]
    named = executor.name if isinstance(executor, Executor) else executor
    # Bounds are no part of what a run is: it may go on where there is less memory.
    deciding = {name: value for name, value in options.items() if name not in BOUNDS}
    given = [prompts] if isinstance(prompts, Prompt) else list(prompts)
    config = identity(rows, {**deciding, "executor": named})
    config["prompts"] = digest_of(given)
    folder.check(config)
    if folder.begun and isinstance(model, TransformerBridge):
        folder.check_model(describe(model))
    recipe = Given(model, given, rows, options, shard)
    with held(model), engine_of(engine, recipe) as chosen:
        begun(folder, config, digest(config), chosen)
        return carried_on(folder, part, progress, chosen)


def held(model: Model) -> AbstractContextManager[Any]:
    """A model of the caller's for this thread alone; one that is loaded here is ours anyway."""
    return exclusive(model, "sweep") if isinstance(model, TransformerBridge) else nullcontext()


@dataclass(frozen=True, eq=False)
class Given:
    """A sweep as it was asked for from Python."""

    model: Model
    prompts: Sequence[Prompt]
    rows: Sequence[Intervention]
    options: Mapping[str, Any]
    shard: str | None = None

    @cached_property
    def loaded(self) -> TransformerBridge:
        """The model, which is loaded when it is needed, and once."""
        return loaded(self.model, local_device(self.shard))

    def start(self) -> Start:
        """What the run begins with."""
        return start_of(self._set_up(None))

    def set_up(self, plan: Plan) -> Setup:
        """The sweep, with the statistics that the run was begun with."""
        return self._set_up(plan.set_level)

    def _set_up(self, level: SetLevel | None) -> Setup:
        return set_up(self.loaded, self.prompts, self.rows, **self.options, set_level=level)


def engine_of(engine: Any, recipe: Recipe) -> Engine:
    """The engine that a name or its options stand for.

    Raises:
        InputError: there is no such engine, or it cannot carry out this recipe.
    """
    if engine == "single":
        return InProcess(recipe)
    from knockgrid.runs.ray_engine import RayEngine

    options = RayEngine() if engine == "ray" else engine
    if not isinstance(options, RayEngine):
        raise unknown("engine", engine, ENGINES)
    if isinstance(getattr(recipe, "model", None), TransformerBridge):
        raise InputError(
            "engine is 'ray', whose actors load the model themselves, but model is a bridge that "
            "lives in this process; give its name, its folder, or a function that loads it, as "
            "functools.partial(kg.load, 'gpt2', dtype=torch.bfloat16)"
        )
    return options.carrying_out(recipe)


def begun(folder: RunFolder, config: Mapping[str, Any], config_digest: str, engine: Engine) -> None:
    """Begin a run unless it was begun before: set-level statistics, plan, manifest.

    Of several processes that begin a run at once one writes the manifest; the others go on with
    what it has written.

    Raises:
        InputError: another process has begun a run with other settings here meanwhile.
    """
    if not folder.begun:
        start = engine.start()
        manifest = {
            "schema": SCHEMA,
            "config": config,
            "config_digest": config_digest,
            "started": now(),
            "finished": None,
            "hardware": hardware(),
            **start.metadata,
            **start.more,
        }
        with disk_errors_said(folder.path):
            folder.begin(manifest, start)
    folder.check(config)
    with disk_errors_said(folder.path):
        folder.settle(folder.manifest)


def carried_on(
    folder: RunFolder, part: tuple[int, int], progress: bool, engine: Engine
) -> pd.DataFrame:
    """Carry out this part's missing shards; whoever finds all of them there ends the run."""
    manifest = folder.manifest
    total = manifest["plan"]["shards"]
    if manifest.get("compact"):
        return of_whole(folder)
    with disk_errors_said(folder.path):
        wanted = [i for i in mine(total, part) if folder.state(i, manifest) != "finished"]
    if wanted:
        keep(folder, manifest, wanted, progress, engine)
    if all(folder.shard_path(i).exists() for i in range(total)):
        with disk_errors_said(folder.path):
            finish(folder)
    return of_whole(folder, mine(total, part))


def of_whole(folder: RunFolder, part: Sequence[int] = ()) -> pd.DataFrame:
    """The table of a run, as far as it is there, if no prompt failed in it or in this part of it.

    Raises:
        PromptsFailed: some did.
    """
    manifest = folder.manifest
    failed = manifest.get("failed")
    if not manifest["finished"]:
        abouts = [one for one in folder.abouts(manifest) if one["number"] in part]
        failed = {id: said for one in abouts for id, said in one["failed"].items()}
    if failed:
        raise PromptsFailed(failed, folder.path)
    return open_run(folder.path) if has_rows(folder, manifest) else nothing_yet(manifest)


def has_rows(folder: RunFolder, manifest: Mapping[str, Any]) -> bool:
    """Whether any shard is there; a part that has none may be the first to end."""
    return bool(manifest.get("compact") or folder.shards(manifest))


def nothing_yet(manifest: Mapping[str, Any]) -> pd.DataFrame:
    """The table of a run of which no shard is there."""
    plan = manifest["plan"]
    table = pandas_of(schema(plan["columns"]).empty_table())
    table.attrs = {KEY: {"unfinished": {"shards": plan["shards"], "finished": 0}}}
    return table


def keep(
    folder: RunFolder,
    manifest: Mapping[str, Any],
    wanted: Sequence[int],
    progress: bool,
    engine: Engine,
) -> None:
    """Compute shards and keep each as it comes, until all are there or the user asks to stop."""
    kept, before = 0, stamps(folder, wanted)
    with asked_to_stop() as asked, disk_errors_said(folder.path):
        task = Task(
            folder.plan(),
            manifest["config_digest"],
            manifest["run_digest"],
            manifest["receipt"]["executor"],
            tuple(manifest["plan"]["columns"]),
            len(wanted),
            len(manifest["intervention_order"]) * len(manifest["layer_order"]),
            folder.check_same,
            lambda: asked.number is not None,
            proven=bool(folder.shards(manifest)),
        )
        missing = takewhile(lambda _: asked.number is None, still_missing(folder, before))
        cells = sum(map(task.cells, wanted))
        with bar(cells, " cells", "sweep", progress) as done:
            for shard in engine.shards(task, missing, done.update):
                # a run that an older version has begun keeps its columns
                rows = shard.table.select(schema_of(manifest).names)
                folder.write(Shard(rows, shard.about))
                kept += 1
        if asked.number is not None and kept < len(wanted):
            raise Stopped(
                f"stopped after {kept} of {len(wanted)} missing shards; nothing is lost, and the "
                f"same command goes on with {folder.path}",
                asked.number,
            )


def stamps(folder: RunFolder, numbers: Iterable[int]) -> dict[int, int | None]:
    """When each shard was last written; None where there is none."""
    paths = {number: folder.shard_path(number) for number in numbers}
    return {i: path.stat().st_mtime_ns if path.exists() else None for i, path in paths.items()}


def still_missing(folder: RunFolder, before: Mapping[int, int | None]) -> Iterator[int]:
    """Shards that no other process has written meanwhile, in random order.

    So two processes that carry out the same part rarely meet at the same shard, and what is there
    of a run that has not ended is a fair sample of its prompts.
    """
    for number in random.SystemRandom().sample(list(before), len(before)):
        if stamps(folder, [number])[number] == before[number]:
            yield number
