"""Runs that are killed, crowded out, cut short and raced for; `nox -s faults` does all of it."""

import errno
import gc
import os
import shutil
import sys
import time
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

import fault_compact
import fault_damage
import fault_disk
import fault_kill
import fault_prompt
import fault_race
import fault_soak
from fault_bench import Bench, Line, command, shards_of

import knockgrid as kg
from knockgrid.runs import finish as finishing
from knockgrid.runs.finish import finish, remove_leftovers
from knockgrid.runs.manifest import read_manifest
from knockgrid.runs.run_folder import DamagedShard, RunFolder
from knockgrid.runs.shard import Shard, read_shard, write_rows
from knockgrid.table import parquet as _parquet
from knockgrid.table.parquet import whole_file

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="processes under test are forked"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]
SHARD = "00002.parquet"


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A tiny model and its undisturbed run of four shards."""
    yield Bench(tmp_path_factory.mktemp("faults"), count=8)
    gc.unfreeze()


@pytest.fixture(scope="module")
def small(bench, tmp_path_factory):
    """The same with two shards, for what is tried step by step."""
    return Bench(tmp_path_factory.mktemp("small"), count=4, model=bench.model)


@pytest.fixture
def run(bench):
    """A copy of the undisturbed run."""
    path = bench.copy()
    yield path
    shutil.rmtree(path)


@pytest.fixture
def shard(run):
    """A finished shard of that run."""
    return read_shard(run / "shards" / SHARD, read_manifest(run)["run_digest"])


def zeros(line):
    assert line.tried
    assert not line.bad, line.notes


FAULTS = {
    "killed": lambda b, small: fault_kill.killed(b, Random(1), 2, writers=1),
    "killed, two writers": lambda b, small: fault_kill.killed(b, Random(2), 1, writers=2),
    "killed at some steps": lambda b, small: fault_kill.killed_at_every_step(small, every=13),
    "stopped with a shard in hand": lambda b, small: fault_kill.stopped_in_hand(b),
    "no room at some call": lambda b, small: fault_disk.injected(small, every=11),
    "cut short": lambda b, small: fault_damage.truncated(b, every=5),
    "a flipped bit": lambda b, small: fault_damage.flipped(b, Random(3), 4),
    "misplaced, foreign and missing": lambda b, small: fault_damage.misplaced(b),
    "two begin one run": lambda b, small: fault_race.same_run(b, 2),
    "two begin different runs": lambda b, small: fault_race.different_runs(b, 2, kinds=1),
    "a prompt that raises": lambda b, small: fault_prompt.raised(b, [("p0", "p3")]),
    "a prompt that raises once": lambda b, small: fault_prompt.raised_once(b),
    "compact killed": lambda b, small: fault_compact.compacted(small, every=5),
    "compact over damage": lambda b, small: fault_compact.compacted_damage(b, 1),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_fault(bench, small, fault):
    zeros(fault(bench, small))


def test_a_folder_of_somebody_else(bench):
    room = bench.room
    for path in (room, *room.parents):  # pytest keeps its folders to its user
        if path != Path("/tmp") and os.access(path, os.W_OK) and path.stat().st_mode & 0o77 == 0:
            path.chmod(path.stat().st_mode | 0o55)
    line = Line("somebody else's folder")
    fault_disk.locked_out(bench, line, "run")
    zeros(line)


def test_prompts_soak(tmp_path):
    line = fault_soak.soak(200, tmp_path)
    assert line.lost + line.unequal == 0, line.notes  # too few for a slope


# What the mends promise, one by one.


def test_a_new_file_does_not_replace_another(tmp_path):
    path = tmp_path / "a"
    path.write_text("theirs")
    with pytest.raises(FileExistsError), whole_file(path, replace=False) as file:
        file.write(b"mine")
    assert path.read_text() == "theirs"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_a_file_system_without_links(tmp_path, monkeypatch):
    def link(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", link)
    with whole_file(tmp_path / "a", replace=False) as file:
        file.write(b"mine")
    assert (tmp_path / "a").read_bytes() == b"mine"
    with pytest.raises(FileExistsError), whole_file(tmp_path / "a", replace=False):
        pass
    monkeypatch.setattr(os, "fsync", lambda handle: link() if handle else None)
    with pytest.raises(OSError, match="no links here"):
        _parquet._appear(tmp_path / "a", tmp_path / "b")
    assert not (tmp_path / "b").exists()  # a half-written manifest would be one that is damaged


@pytest.mark.parametrize("replace", [True, False])
def test_names_are_flushed_too(tmp_path, monkeypatch, replace):
    folders, plain = [], os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda handle: folders.append(os.path.isdir(f"/proc/self/fd/{handle}"))
    )
    with whole_file(tmp_path / "a", replace=replace) as file:
        file.write(b"mine")
    monkeypatch.setattr(os, "fsync", plain)
    assert folders == [False, True]  # what a power cut would do cannot be seen here


def test_a_finished_shard_is_never_written_again(run, shard):
    before = shards_of(run)
    RunFolder(run).write(shard)
    worse = Shard(shard.table, {**shard.about, "failed": {"p0": "ValueError: no"}})
    RunFolder(run).write(worse)
    assert shards_of(run) == before


def test_a_shard_with_failures_gives_way_to_a_better_one_only(run, shard):
    folder, path = RunFolder(run), run / "shards" / SHARD
    ids = shard.about["prompts"]
    failed = [
        Shard(shard.table, {**shard.about, "failed": dict.fromkeys(ids[:n], "E: e")})
        for n in range(3)
    ]
    path.unlink()
    folder.write(failed[1])
    folder.write(failed[2])
    digest = read_manifest(run)["run_digest"]
    assert len(read_shard(path, digest).failed) == 1
    folder.write(failed[0])
    assert not read_shard(path, digest).failed


def test_a_sound_shard_set_aside_by_mistake_gets_its_name_back(run):
    """Another process has computed it anew between the look at it and the rename."""
    folder, path = RunFolder(run), run / "shards" / SHARD
    sound, manifest = path.read_bytes(), read_manifest(run)
    path.write_bytes(b"damaged")
    plain = folder._set_aside

    def late(self, *given):
        path.write_bytes(sound)
        return plain(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "_set_aside", late)
        assert folder.state(2, manifest) == "finished"
    assert path.read_bytes() == sound
    assert not list(path.parent.glob("*damaged*"))


def test_damage_is_set_aside_and_kept_and_what_is_gone_is_missing(run):
    path = run / "shards" / SHARD
    for i in (1, 2):
        path.write_bytes(b"damaged")
        with pytest.warns(DamagedShard, match=f"set aside as {SHARD}.damaged-{i}"):
            assert RunFolder(run).state(2, read_manifest(run)) == "missing"
    assert (path.parent / f"{SHARD}.damaged-1").read_bytes() == b"damaged"
    assert RunFolder(run).state(2, read_manifest(run)) == "missing"  # without a warning


def test_rows_that_were_written_again_with_another_number(run, shard):
    """Footer and checksums are in order, so that only the digests of the rows can tell."""
    path, place = run / "shards" / SHARD, shard.table.schema.get_field_index("js")
    stamps = pq.read_schema(path).metadata
    numbers = pa.array([0.5, *shard.table["js"].to_pylist()[1:]])
    table = shard.table.set_column(place, shard.table.schema.field("js"), numbers)
    with path.open("wb") as file:
        write_rows(table.replace_schema_metadata(stamps), file)
    with pytest.raises(kg.InputError, match="the footer of shards/00002.parquet is not"):
        kg.open_run(run)
    with pytest.warns(DamagedShard, match="its rows are not those that were written"):
        assert RunFolder(run).state(2, read_manifest(run)) == "missing"
    path.write_bytes((path.parent / f"{SHARD}.damaged-1").read_bytes())
    with pytest.raises(kg.InputError, match="its rows are not those that were written"):
        kg.runs.compact(run)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.EACCES])
def test_errors_of_the_system_are_no_damage(run, monkeypatch, number):
    def broken(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("knockgrid.runs.shard.pq.ParquetFile", broken)
    with pytest.raises(OSError, match=os.strerror(number)):
        RunFolder(run).state(2, read_manifest(run))
    assert (run / "shards" / SHARD).exists()


def test_temporary_files_of_the_dead_are_removed_and_those_in_hand_are_not(run):
    old, new = (run / "shards" / f".{SHARD}.{i}.part" for i in range(2))
    table = run / ".table.parquet.1.part"
    for path in (old, new, table):
        path.write_bytes(b"")
    long_ago = time.time() - finishing.IN_HAND - 60
    for path in (old, table):
        os.utime(path, (long_ago, long_ago))
    remove_leftovers(run, run / "shards")
    assert [path.exists() for path in (old, new, table)] == [False, True, False]


def test_a_part_of_a_run_does_not_end_it(bench):
    path = bench.folder()
    assert bench.ended(path, "--shard", "1/2")[0] == 0
    manifest = read_manifest(path)
    assert manifest["finished"] is None
    assert "digests" not in manifest
    assert not (path / "prompts.parquet").exists()
    assert bench.ended(path, "--shard", "2/2")[0] == 0
    assert read_manifest(path)["finished"]


def test_an_ended_run_is_not_ended_again(run):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    finish(RunFolder(run))
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_a_side_table_that_was_changed_is_written_anew(run):
    path = run / "prompts.parquet"
    sound = path.read_bytes()
    path.write_bytes(sound[:-1])
    with pytest.raises(kg.InputError, match="is damaged"):
        kg.open_run(run)
    finish(RunFolder(run))
    assert path.read_bytes() == sound


def test_an_ended_run_without_one_of_its_shards_is_no_whole_one(run, bench):
    (run / "shards" / SHARD).unlink()
    with pytest.warns(UserWarning, match="is not finished: 3 of 4 shards"):
        table = kg.open_run(run)
    assert set(table["prompt"]) < set(bench.table["prompt"])
    with pytest.raises(kg.InputError, match="is not finished"):
        kg.runs.compact(run)


def test_the_whole_run_before_its_files_have_their_place(bench):
    """Killed between the manifest and the last rename: the plan lies under its first name."""
    path = bench.copy()
    token = read_manifest(path)["begun_by"]
    for name in ("plan.jsonl", "statistics.safetensors"):
        (path / name).rename(path / f".{name}.{token}.part")
    assert len(RunFolder(path).plan().prompts) == 8
    assert bench.ended(path)[0] == 0
    assert (path / "plan.jsonl").exists()
    assert not list(path.glob(".*.part"))


def test_the_command_line_says_what_the_disk_says(bench, capsys, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "figure.svg")

    monkeypatch.setattr("knockgrid.runs.store.export", full)
    code = command(["export", str(bench.undisturbed), "--out", "x"])
    assert code == 2
    assert "figure.svg cannot be read or written (No space left" in capsys.readouterr().err
