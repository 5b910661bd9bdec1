"""RunFolder: where a run's plan, set-level statistics and shards lie, and what is still missing."""

import json
import os
import re
import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from knockgrid.errors import InputError
from knockgrid.table.parquet import table_bytes, whole_file
from knockgrid.prompts.prompt import Prompt
from knockgrid.engine.setup import SetLevel
from knockgrid.spec import BOUNDS, WHERE
from knockgrid.runs.digests import bytes_digest
from knockgrid.runs.manifest import (
    MANIFEST,
    differing,
    read_manifest,
    run_digest,
    write_manifest,
)
from knockgrid.prompts.data import prompt_as_data, prompt_from_data
from knockgrid.runs.shard import (
    Damaged,
    Shard,
    damage_said,
    read_about,
    read_shard,
    schema_of,
    write_shard,
)
from knockgrid.runs.start import Start, read_set_level

PLAN, STATISTICS, SHARDS = "plan.jsonl", "statistics.safetensors", "shards"
COMPACT, SIDES, LABELS, FIGURES = "table.parquet", "prompts.parquet", "labels.parquet", "figures"
TEXTS = "tokens.json"
SAME_MODEL = ("architecture", "n_layers", "d_vocab", "dtype", "weights_digest", "tokenizer_digest")
SAME_PASS = ("attn_implementation", "compatibility_mode", "matmul_precision")
SETTLED = (
    *("mode", "unit", "temperature", "measure", "metrics", "measures", "direction", "samples", "seed"),
    "sampled_runs",
    *("prepend_bos", "n_tokens"),
    *("layer_order", "intervention_order", "interventions", "labels"),
)
"""What a default may have decided, which another state of the model decides otherwise."""


class DamagedShard(UserWarning):
    """A shard that cannot be believed was set aside, and is computed anew."""


class OtherVersions(UserWarning):
    """A run goes on under other package versions than it was begun with."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What was decided before the first shard: prompts, their shards, and the set's statistics."""

    prompts: Sequence[Prompt]
    shards: Sequence[int]
    set_level: SetLevel


@dataclass(frozen=True)
class RunFolder:
    """A run folder; all of its files are there whole or not at all."""

    path: Path

    @property
    def begun(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / MANIFEST).is_file()

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest; an `InputError` where there is none, or it cannot be read."""
        return read_manifest(self.path)

    def check(self, config: Mapping[str, Any]) -> None:
        """Refuse, before anything is computed, a folder that this run may not be written to."""
        if self.begun:
            differ = differing(self.manifest.get("config", {}), config)
            self._refuse("holds a run with other settings", set(differ) - {*WHERE, *BOUNDS})
        there = next(path for path in (self.path, *self.path.absolute().parents) if path.exists())
        if not there.is_dir():
            raise InputError(f"{there} is a file, not a folder; choose another --out")
        if not os.access(there, os.W_OK):
            raise InputError(f"{there} cannot be written to; choose another --out")

    def _refuse(self, why: str, differ: Iterable[str], more: str = "") -> None:
        """Refuse to go on with a run from which something differs."""
        if names := sorted(differ):
            raise InputError(
                f"{self.path} {why} ({', '.join(names)}{more}); choose another folder with --out"
            )

    def begin(self, manifest: Mapping[str, Any], start: Start) -> bool:
        """Write plan, statistics and manifest; False if another process has begun a run here.

        Several may be at it at once, with other settings even. So each puts its files down under
        names of their own; whoever creates the manifest has begun the run, and the files that it
        vouches for get their place.
        """
        (self.path / SHARDS).mkdir(parents=True, exist_ok=True)
        lines = start.lines()
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        files = {PLAN: text.encode("utf-8"), STATISTICS: start.statistics}
        if start.labels is not None:
            files[LABELS] = table_bytes(start.labels)
        plan = {
            "prompts": len(lines),
            "shards": len(set(start.shards)),
            "columns": list(start.columns),
            "digests": {name: bytes_digest(content) for name, content in files.items()},
        }
        whole = {**manifest, "plan": plan, "begun_by": uuid.uuid4().hex[:8]}
        try:
            for name, content in files.items():
                with whole_file(self._unsettled(name, whole)) as file:
                    file.write(content)
            with suppress(FileExistsError):  # another process was faster
                write_manifest(self.path, {**whole, "run_digest": run_digest(whole)}, replace=False)
        finally:  # what has failed may have been a flush after the manifest was there
            began = self.begun and self.manifest.get("begun_by") == whole["begun_by"]
            for name in () if began else files:
                self._unsettled(name, whole).unlink(missing_ok=True)
        return began

    def settle(self, manifest: Mapping[str, Any]) -> None:
        """Give the files that the manifest vouches for their place, unless they have it."""
        for name in decided(manifest):
            with suppress(FileNotFoundError):  # they have it
                os.replace(self._unsettled(name, manifest), self.path / name)

    def _decided(self, name: str, manifest: Mapping[str, Any]) -> bytes:
        """A file that the manifest vouches for, which may be given its place this very moment."""
        path = self.path / name
        for place in (path, self._unsettled(name, manifest), path):
            with suppress(FileNotFoundError):
                content = place.read_bytes()
                if bytes_digest(content) == manifest["plan"]["digests"][name]:
                    return content
        raise InputError(
            f"{path} is not the file that the run was begun with; restore it, or begin anew in "
            "another folder"
        )

    def _unsettled(self, name: str, manifest: Mapping[str, Any]) -> Path:
        return self.path / f".{name}.{manifest.get('begun_by')}.part"

    def plan(self) -> Plan:
        """The plan of a run that was begun, if its files are those that the manifest vouches for."""
        manifest = self.manifest
        files = {name: self._decided(name, manifest) for name in decided(manifest)}
        # not `splitlines`, which also cuts at separators that a prompt may hold
        lines = [json.loads(one) for one in files[PLAN].decode("utf-8").split("\n") if one]
        level = read_set_level(files[STATISTICS], manifest["sigma"])
        return Plan([prompt_from_data(one) for one in lines], [one["shard"] for one in lines], level)

    def check_same(self, start: Start) -> None:
        """Refuse to go on with another model, other prompts or another executor."""
        manifest, plan, computed = self.manifest, self.plan(), start.metadata
        self.check_model(computed["model"])
        before, now = (
            {name: one.get(name) for name in SETTLED}
            | {"receipt": {"user_hooks": one["receipt"].get("user_hooks")}}
            for one in (manifest, computed)
        )
        because = " differ here, as the model is set now"
        self._refuse("was begun with other settings", differing(before, now), because)
        theirs = zip(plan.prompts, plan.shards, strict=True)
        if start.lines() != [prompt_as_data(prompt, shard=shard) for prompt, shard in theirs]:
            raise InputError(
                f"{self.path} was begun with other prompts; choose another folder with --out"
            )
        before, now = manifest["receipt"]["executor"], computed["receipt"]["executor"]
        if before != now:
            raise InputError(
                f"{self.path} was begun with the {before} executor, which does not hold here, "
                f"where it would be the {now} one; choose another folder with --out"
            )
        versions = differing(manifest["versions"], computed["versions"])
        if versions:
            warnings.warn(
                f"the run was begun under other versions of {', '.join(versions)}; every shard "
                "says which ones computed it",
                OtherVersions,
                stacklevel=2,
            )

    def check_model(self, model: Mapping[str, Any]) -> None:
        """Refuse a model that is not the one that the run was begun with."""
        begun = self.manifest["model"]
        differ = [k for k in (*SAME_MODEL, *SAME_PASS) if begun.get(k) != model.get(k)]
        self._refuse("was begun with another model", differ, " differ")

    def check_data(self, data: str | None) -> None:
        """Refuse a prompt file that has changed since the run was begun."""
        if self.begun and data is not None and self.manifest.get("data") != data:
            raise InputError(
                f"{self.path} was begun with other prompts (the file has another sha256); choose "
                "another folder with --out, or restore the file"
            )

    def shard_path(self, number: int) -> Path:
        """Where a shard lies."""
        return self.path / SHARDS / f"{number:05d}.parquet"

    def write(self, shard: Shard) -> None:
        """Keep a shard, unless another process has written one that is no worse.

        One that is finished is never written again. One in which prompts have failed gives way to
        one with no more of them.
        """
        path = self.shard_path(shard.about["number"])
        try:
            before = len(read_about(path, shard.about["run"])["failed"])
        except FileNotFoundError:
            try:
                write_shard(shard, path, replace=False)
            except FileExistsError:  # by now
                self.write(shard)
            return
        except Damaged:
            before = len(shard.about["prompts"])
        if before and len(shard.failed) <= before:
            write_shard(shard, path)

    def state(self, number: int, manifest: Mapping[str, Any]) -> str:
        """Whether a shard is `finished`, `failed` in part, or `missing`.

        Every row is held against its digest. A shard that is damaged is set aside, with a warning,
        and missing from then on.
        """
        path = self.shard_path(number)
        try:
            return "failed" if self._read(path, number, manifest).failed else "finished"
        except FileNotFoundError:
            return "missing"
        except Damaged as reason:
            aside = self._set_aside(path, number, manifest)
            if aside is None:
                return self.state(number, manifest)
            warnings.warn(
                f"{path.name}: {reason}; it was set aside as {aside.name} and is computed anew",
                DamagedShard,
                stacklevel=2,
            )
            return "missing"

    def _read(self, path: Path, number: int, manifest: Mapping[str, Any]) -> Shard:
        """A shard, once all of its rows were looked at."""
        shard = read_shard(path, manifest["run_digest"], schema_of(manifest))
        check_number(shard.about, number)
        return shard

    def _set_aside(self, path: Path, number: int, manifest: Mapping[str, Any]) -> Path | None:
        """Give a damaged file another name; None if another process was faster.

        That one may have computed it anew by now, in which case the new one gets its name back.
        """
        names = (path.with_name(f"{path.name}.damaged-{i}") for i in count(1))
        aside = next(name for name in names if not name.exists())
        try:
            os.rename(path, aside)
            self._read(aside, number, manifest)
        except FileNotFoundError:
            return None
        except Damaged:
            return aside
        os.replace(aside, path)
        return None

    def shards(self, manifest: Mapping[str, Any] | None = None) -> list[Path]:
        """The planned shards that are there, in order."""
        planned = (manifest or self.manifest)["plan"]["shards"]
        paths = map(self.shard_path, range(planned))
        return [path for path in paths if path.exists()]

    def abouts(self, manifest: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """What the shards that are there say of themselves; a damaged one is an `InputError`."""
        for path in self.shards(manifest):
            with damage_refused(path):
                about = read_about(path, manifest["run_digest"])
                check_number(about, int(path.stem))
            yield about

    def read(self, manifest: Mapping[str, Any]) -> Iterator[Shard]:
        """The shards that are there, every row held against its digest, as `abouts`."""
        for path in self.shards(manifest):
            with damage_refused(path):
                shard = self._read(path, int(path.stem), manifest)
            yield shard

    def update(self, **changes: Any) -> None:
        """Change entries of the manifest."""
        write_manifest(self.path, {**self.manifest, **changes})


def decided(manifest: Mapping[str, Any]) -> list[str]:
    """The names of the files that were written before the first shard."""
    names = list(manifest["plan"]["digests"])
    strange = set(names) - {PLAN, STATISTICS, LABELS}
    if strange or not re.fullmatch(r"[0-9a-f]{8}", str(manifest.get("begun_by"))):
        raise InputError("the manifest was not written by knockgrid; sweep into another folder")
    return names


@contextmanager
def damage_refused(path: Path) -> Iterator[None]:
    """An `InputError` in one sentence for a shard, or a file of a run, that cannot be believed."""
    try:
        with damage_said("a file"):
            yield
    except Damaged as reason:
        raise InputError(
            f"{path} is damaged ({reason}); the command that made the run computes anew what "
            "cannot be read, and `knockgrid verify` names it"
        ) from None


def check_number(about: Mapping[str, Any], number: int) -> None:
    """Refuse a copy of another shard, whose prompts would be there twice."""
    if about["number"] != number:
        raise Damaged(f"it is shard {about['number']} under another name")
