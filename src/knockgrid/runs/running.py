"""run: a sweep that is computed shard by shard into a run folder, begun or resumed."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from itertools import takewhile
from pathlib import Path
from typing import Any

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from knockgrid.display.progress import bar
from knockgrid.errors import InputError, unknown
from knockgrid.evidence import with_noise_floor
from knockgrid.evidence.noise_floor import floor_of_nulls
from knockgrid.host.bridge import describe
from knockgrid.passes.exclusive import exclusive
from knockgrid.runs.choose import check_prompts
from knockgrid.runs.disk import disk_errors_said
from knockgrid.runs.finish import finish
from knockgrid.runs.in_process import Engine, Task
from knockgrid.runs.interrupt import Stopped, asked_to_stop
from knockgrid.runs.job import Job, check_treatments, data_digest, wants_floor
from knockgrid.runs.manifest import SCHEMA, hardware, now
from knockgrid.runs.run_folder import RunFolder
from knockgrid.runs.shard import Shard, pandas_of, schema, schema_of
from knockgrid.runs.split import mine, part_of
from knockgrid.runs.store import open_run
from knockgrid.runs.work import PromptsFailed
from knockgrid.spec import BOUNDS, ENGINES, Spec, digest
from knockgrid.table.table import KEY, metadata_of


def run(
    spec: Spec,
    out: str | Path,
    *,
    shard: str | None = None,
    engine: Any = "single",
    progress: bool = True,
    load: Callable[[], TransformerBridge] | None = None,
) -> pd.DataFrame:
    """Sweep as a spec says, shard by shard; a run that was begun in the folder is resumed.

    Example:
        >>> import knockgrid as kg
        >>> kg.runs.run(kg.Spec(mode="none"), "runs/nowhere")
        Traceback (most recent call last):
        ...
        knockgrid.errors.InputError: unknown mode 'none'. Allowed: prompt_only, persistent, free_run

    What can be refused is refused before a model is loaded, and a finished run loads none. `shard`
    is a part such as "2/8", or "auto"; `load` gives the model where several runs share one.

    Raises:
        InputError: a bad spec, a folder that holds a different run, or no prompts.
        PromptsFailed: some prompts raised; the others are kept.
        Stopped: it was asked to stop, and did after the shard in hand.
    """
    check_treatments(spec)
    part, folder, plain = part_of(shard), RunFolder(Path(out)), spec.but(**dict.fromkeys(BOUNDS)).plain()
    folder.check(plain)
    folder.check_data(data_digest(spec))
    given = isinstance(spec.model, TransformerBridge)  # one that is loaded here is ours anyway
    if not folder.begun:
        check_prompts(spec)
    elif given:
        folder.check_model(describe(spec.model))
    held = exclusive(spec.model, "sweep") if given else nullcontext()
    with held, engine_of(engine, Job(spec, shard, load)) as chosen:
        begin(folder, plain, chosen)
        table = resume(folder, part, progress, chosen)
    return with_floor_of_nulls(folder, spec, table)


def with_floor_of_nulls(folder: RunFolder, spec: Spec, table: pd.DataFrame) -> pd.DataFrame:
    """The table with the floor that its own nulls give, which is known only when all are there."""
    manifest = folder.manifest
    wanted = wants_floor(spec) and spec.nulls and manifest["finished"]
    if not wanted or "noise_floor" in manifest:
        return table
    table = with_noise_floor(table, floor_of_nulls(table))
    with disk_errors_said(folder.path):
        folder.update(noise_floor=metadata_of(table)["noise_floor"])
    return table


def engine_of(engine: Any, job: Job) -> Engine:
    """The engine that a name or its options stand for."""
    if engine == "single":
        return Engine(job)
    from knockgrid.runs.ray_engine import OnRay, RayEngine

    options = RayEngine() if engine == "ray" else engine
    if not isinstance(options, RayEngine):
        raise unknown("engine", engine, ENGINES)
    if isinstance(job.spec.model, TransformerBridge):
        raise InputError(
            "engine is 'ray', whose actors load the model themselves, but model is a bridge that "
            "lives in this process; give its name, its folder, or a function that loads it, as "
            "functools.partial(kg.load, 'gpt2', dtype=torch.bfloat16)"
        )
    return OnRay(job, options)


def begin(folder: RunFolder, config: Mapping[str, Any], engine: Engine) -> None:
    """Begin a run unless it was begun before: set-level statistics, plan, manifest.

    Of several processes that begin a run at once one writes the manifest; the others go on with
    what it has written.
    """
    if not folder.begun:
        start = engine.start()
        manifest = {
            "schema": SCHEMA,
            "config": config,
            "config_digest": digest(config),
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


def resume(
    folder: RunFolder, part: tuple[int, int], progress: bool, engine: Engine
) -> pd.DataFrame:
    """Carry out this part's missing shards; whoever finds all of them there ends the run."""
    manifest = folder.manifest
    total = manifest["plan"]["shards"]
    if manifest.get("compact"):
        return table_of(folder)
    with disk_errors_said(folder.path):
        wanted = [i for i in mine(total, part) if folder.state(i, manifest) != "finished"]
    if wanted:
        compute(folder, manifest, wanted, progress, engine)
    if all(folder.shard_path(i).exists() for i in range(total)):
        with disk_errors_said(folder.path):
            finish(folder)
    return table_of(folder, mine(total, part))


def table_of(folder: RunFolder, part: Sequence[int] = ()) -> pd.DataFrame:
    """The table of a run, as far as it is there, if no prompt failed in it or in this part of it."""
    manifest = folder.manifest
    failed = manifest.get("failed")
    if not manifest["finished"]:
        abouts = [one for one in folder.abouts(manifest) if one["number"] in part]
        failed = {id: said for one in abouts for id, said in one["failed"].items()}
    if failed:
        raise PromptsFailed(failed, folder.path)
    if manifest.get("compact") or folder.shards(manifest):
        return open_run(folder.path)
    plan = manifest["plan"]  # a part that has no shard may be the first to end
    table = pandas_of(schema(plan["columns"]).empty_table())
    table.attrs = {KEY: {"unfinished": {"shards": plan["shards"], "finished": 0}}}
    return table


def compute(
    folder: RunFolder,
    manifest: Mapping[str, Any],
    wanted: Sequence[int],
    progress: bool,
    engine: Engine,
) -> None:
    """Compute shards and keep each as it comes, until all are there or the user asks to stop."""
    kept, before = 0, {number: stamp(folder.shard_path(number)) for number in wanted}
    with asked_to_stop() as asked, disk_errors_said(folder.path):
        stopping, proven = (lambda: asked.number is not None), bool(folder.shards(manifest))
        task = Task(folder.plan(), manifest, len(wanted), folder.check_same, stopping, proven)
        missing = takewhile(lambda _: not stopping(), still_missing(folder, before))
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


def stamp(path: Path) -> int | None:
    """When a shard was last written; None where there is none."""
    return path.stat().st_mtime_ns if path.exists() else None


def still_missing(folder: RunFolder, before: Mapping[int, int | None]) -> Iterator[int]:
    """Shards that no other process has written meanwhile, in random order.

    So two processes rarely meet at the same shard, and what is there is a fair sample of the run.
    """
    for number in random.SystemRandom().sample(list(before), len(before)):
        if stamp(folder.shard_path(number)) == before[number]:
            yield number
