"""resumable: a sweep that is carried out shard by shard into a run folder."""

import errno
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm
from transformer_lens.model_bridge import TransformerBridge

from knockgrid._errors import InputError
from knockgrid._executor import Executor
from knockgrid._intervention import Intervention
from knockgrid._prompt import Prompt
from knockgrid._setup import SetLevel, Setup, set_up
from knockgrid.edge.finish import finish
from knockgrid.edge.identity import digest, identity
from knockgrid.edge.interrupt import Stopped, asked_to_stop
from knockgrid.edge.manifest import SCHEMA, hardware
from knockgrid.edge.run_folder import RunFolder
from knockgrid.edge.shard import Shard
from knockgrid.edge.split import mine, part_of
from knockgrid.edge.store import open_run
from knockgrid.edge.work import PromptsFailed, Work

Engine = Callable[[Work, Iterable[int], Callable[[int], Any]], Iterator[Shard]]
"""Computes shards, in any order, and tells of cells that are done."""
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


def resumable(
    out: str | Path,
    model: TransformerBridge,
    prompts: Sequence[Prompt] | Prompt,
    interventions: Sequence[Intervention] | Intervention,
    options: Mapping[str, Any],
    shard: str | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Begin a sweep in a folder, or go on with it, and read its table.

    Raises:
        InputError: as `sweep`; a folder that holds another run.
        PromptsFailed: some prompts raised.
        Stopped: it was asked to stop, and did after the shard in hand.
    """
    part = part_of(shard)
    folder = RunFolder(Path(out))
    rows = list(interventions) if isinstance(interventions, Sequence) else [interventions]
    executor = options["executor"]
    named = executor.name if isinstance(executor, Executor) else executor
    named_options = {**options, "executor": named}
    if not options["top"]:  # as runs that were begun before there was this option
        del named_options["top"]
    config = identity(rows, named_options)
    folder.check(config)

    def setup(level: SetLevel | None) -> Setup:
        return set_up(model, prompts, rows, **options, set_level=level)

    begun(folder, config, digest(config), setup)
    return carried_on(folder, setup, part, progress)


def begun(
    folder: RunFolder,
    config: Mapping[str, Any],
    config_digest: str,
    setup: Callable[[SetLevel | None], Setup],
    more: Callable[[Setup], Mapping[str, Any]] = lambda setup: {},
) -> None:
    """Begin a run unless it was begun before: set-level statistics, plan, manifest.

    Of several processes that begin the same run at once one writes the manifest; the others go on
    with what it has written.
    """
    if folder.begun:
        return
    made = setup(None)
    manifest = {
        "schema": SCHEMA,
        "config": config,
        "config_digest": config_digest,
        "started": now(),
        "finished": None,
        "hardware": hardware(),
        **made.metadata(),
    }
    with disk_errors_said(folder):
        folder.begin({**manifest, **more(made)}, made)


def carried_on(
    folder: RunFolder,
    setup: Callable[[SetLevel | None], Setup],
    part: tuple[int, int],
    progress: bool,
    engine: Engine | None = None,
) -> pd.DataFrame:
    """Carry out this part's missing shards; whoever finds all of them there ends the run."""
    manifest = folder.manifest
    total = manifest["plan"]["shards"]
    if manifest.get("compact"):
        return of_whole(folder)
    wanted = [i for i in mine(total, part) if folder.state(i, manifest) != "finished"]
    if wanted:
        made = setup(folder.plan().set_level)
        folder.check_same(made, made.metadata())
        work = Work(made, manifest["config_digest"], manifest["run_digest"])
        keep(folder, work, wanted, progress, engine or one_by_one)
    if all(folder.shard_path(i).exists() for i in range(total)):
        with disk_errors_said(folder):
            finish(folder)
    return of_whole(folder)


def of_whole(folder: RunFolder) -> pd.DataFrame:
    """The table of a run, if none of its prompts failed.

    Raises:
        PromptsFailed: some did.
    """
    failed = folder.manifest.get("failed")
    if failed:
        raise PromptsFailed(failed, folder.path)
    return open_run(folder.path)


def one_by_one(work: Work, numbers: Iterable[int], done: Callable[[int], Any]) -> Iterator[Shard]:
    """Shards in this process."""
    for number in numbers:
        yield work.carry_out(number, done)


def keep(
    folder: RunFolder, work: Work, wanted: Sequence[int], progress: bool, engine: Engine
) -> None:
    """Compute shards and keep each as it comes, until all are there or the user asks to stop."""
    kept, before = 0, stamps(folder, wanted)
    with (
        asked_to_stop() as asked,
        disk_errors_said(folder),
        tqdm(
            total=sum(map(work.cells, wanted)), unit=" cells", disable=not progress, desc="sweep"
        ) as bar,
    ):
        for shard in engine(work, still_missing(folder, before), bar.update):
            folder.write(shard)
            kept += 1
            if asked.number is not None and kept < len(wanted):
                raise Stopped(
                    f"stopped after {kept} of {len(wanted)} missing shards; nothing is lost, and "
                    f"the same command goes on with {folder.path}",
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


@contextmanager
def disk_errors_said(folder: RunFolder) -> Iterator[None]:
    """A full or read-only disk in one sentence.

    Raises:
        InputError: instead of the system's error.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in DISK:
            raise
        raise InputError(
            f"{folder.path} could not be written ({error.strerror}); finished shards are kept: "
            "make room or rights, and give the same command again"
        ) from None


def now() -> str:
    """The time, as manifests give it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
