"""RunFolder: where a run's plan, set-level statistics and shards lie, and what is still missing."""

import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from knockgrid._errors import InputError
from knockgrid._parquet import whole_file
from knockgrid._prompt import Prompt
from knockgrid._setup import SetLevel, Setup
from knockgrid.edge.digests import file_digest
from knockgrid.edge.manifest import (
    MANIFEST,
    create_manifest,
    differing,
    read_manifest,
    run_digest,
    write_manifest,
)
from knockgrid.edge.prompt_lines import line_of, prompt_of
from knockgrid.edge.set_level import read_set_level, write_set_level
from knockgrid.edge.shard import (
    Damaged,
    Shard,
    file_name,
    read_about,
    read_shard,
    schema,
    write_shard,
)

PLAN, STATISTICS, SHARDS = "plan.jsonl", "statistics.safetensors", "shards"
COMPACT, SIDES, LABELS, FIGURES = "table.parquet", "prompts.parquet", "labels.parquet", "figures"
TEXTS = "tokens.json"
SAME_MODEL = ("architecture", "n_layers", "d_vocab", "dtype", "weights_digest", "tokenizer_digest")
SAME_PASS = ("attn_implementation", "compatibility_mode")


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
        """The manifest.

        Raises:
            InputError: there is none, or it cannot be read.
        """
        return read_manifest(self.path)

    def check(self, config: Mapping[str, Any]) -> None:
        """Refuse, before anything is computed, a folder that this run may not be written to.

        Raises:
            InputError: the folder holds a run with other settings, or cannot be written.
        """
        if self.begun:
            differ = differing(self.manifest.get("config", {}), config)
            if differ:
                raise InputError(
                    f"{self.path} holds a run with other settings ({', '.join(differ)}); choose "
                    "another folder with --out"
                )
        there = next(path for path in (self.path, *self.path.absolute().parents) if path.exists())
        if not there.is_dir():
            raise InputError(f"{there} is a file, not a folder; choose another --out")
        if not os.access(there, os.W_OK):
            raise InputError(f"{there} cannot be written to; choose another --out")

    def begin(self, manifest: Mapping[str, Any], setup: Setup) -> bool:
        """Write plan, statistics and manifest; False if another process has begun the same run."""
        (self.path / SHARDS).mkdir(parents=True, exist_ok=True)
        place = {one.prompt.id: i for i, batch in enumerate(setup.batches()) for one in batch}
        lines = [line_of(one.prompt, shard=place[one.prompt.id]) for one in setup.ready]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        files = {PLAN: text.encode("utf-8"), STATISTICS: write_set_level(setup.set_level)}
        for name, content in files.items():
            with whole_file(self.path / name) as file:
                file.write(content)
        plan = {
            "prompts": len(lines),
            "shards": len(setup.batches()),
            "columns": setup.columns,
            "digests": {name: file_digest(self.path / name) for name in files},
        }
        whole = {**manifest, "plan": plan}
        return create_manifest(self.path, {**whole, "run_digest": run_digest(whole)})

    def plan(self) -> Plan:
        """The plan of a run that was begun.

        Raises:
            InputError: its files are not those that the manifest vouches for.
        """
        manifest = self.manifest
        for name, digest in manifest["plan"]["digests"].items():
            path = self.path / name
            if not path.is_file() or file_digest(path) != digest:
                raise InputError(
                    f"{path} is not the file that the run was begun with; restore it, or begin "
                    "anew in another folder"
                )
        # not `splitlines`, which also takes U+2028 inside a prompt for the end of a line
        text = (self.path / PLAN).read_text("utf-8")
        lines = [json.loads(one) for one in text.split("\n") if one]
        level = read_set_level((self.path / STATISTICS).read_bytes(), manifest["sigma"])
        return Plan([prompt_of(one) for one in lines], [one["shard"] for one in lines], level)

    def check_same(self, setup: Setup, computed: Mapping[str, Any]) -> None:
        """Refuse to go on with what is not the run that was begun here.

        Raises:
            InputError: another model, other prompts, another executor.
        """
        manifest, plan = self.manifest, self.plan()
        model = computed["model"]
        differ = [k for k in (*SAME_MODEL, *SAME_PASS) if manifest["model"].get(k) != model.get(k)]
        if differ:
            raise InputError(
                f"{self.path} was begun with another model ({', '.join(differ)} differ); choose "
                "another folder with --out"
            )
        place = {one.prompt.id: i for i, batch in enumerate(setup.batches()) for one in batch}
        mine = [line_of(one.prompt, shard=place[one.prompt.id]) for one in setup.ready]
        theirs = zip(plan.prompts, plan.shards, strict=True)
        if mine != [line_of(prompt, shard=shard) for prompt, shard in theirs]:
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

    def shard_path(self, number: int) -> Path:
        """Where a shard lies."""
        return self.path / SHARDS / file_name(number)

    def write(self, shard: Shard) -> None:
        """Keep a finished shard."""
        write_shard(shard, self.shard_path(shard.about["number"]))

    def state(self, number: int, manifest: Mapping[str, Any]) -> str:
        """Whether a shard is `finished`, `failed` in part, or `missing`.

        Every row is held against its digest. A shard that is damaged is set aside, with a warning,
        and missing from then on.
        """
        path = self.shard_path(number)
        if not path.exists():
            return "missing"
        columns = schema(manifest["plan"]["columns"])
        try:
            about = read_shard(path, manifest["run_digest"], columns).about
        except Damaged as reason:
            aside = self._set_aside(path)
            if aside is not None:
                warnings.warn(
                    f"{path.name}: {reason}; it was set aside as {aside.name} and is computed anew",
                    DamagedShard,
                    stacklevel=2,
                )
            return "missing"
        return "failed" if about["failed"] else "finished"

    def _set_aside(self, path: Path) -> Path | None:
        """Give a damaged file another name; None if another process was faster."""
        names = (path.with_name(f"{path.name}.damaged-{i}") for i in count(1))
        aside = next(name for name in names if not name.exists())
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            return None
        return aside

    def shards(self, manifest: Mapping[str, Any]) -> list[Path]:
        """The planned shards that are there, in order."""
        paths = map(self.shard_path, range(manifest["plan"]["shards"]))
        return [path for path in paths if path.exists()]

    def abouts(self, manifest: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """What the shards that are there say of themselves.

        Raises:
            InputError: one of them cannot be read.
        """
        for path in self.shards(manifest):
            try:
                yield read_about(path, manifest["run_digest"])
            except Damaged as reason:
                raise InputError(
                    f"{path} is damaged ({reason}); the command that made the run computes it anew"
                ) from None

    def update(self, **changes: Any) -> None:
        """Change entries of the manifest."""
        write_manifest(self.path, {**self.manifest, **changes})
