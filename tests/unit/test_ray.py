"""The Ray engine, on a real cluster of two CPUs on this machine that the whole module shares.

Faults are planted in the actors themselves: the function that loads the model may first change what
an actor does, or kill it.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections import Counter
from functools import partial

import pandas as pd
import pytest
import torch

import knockgrid as kg
from knockgrid.errors import InputError
from knockgrid.runs import ray_cluster, ray_engine, running
from knockgrid.runs.manifest import read_manifest
from knockgrid.runs.ray_cluster import connected
from knockgrid.runs.ray_engine import ActorDied
from knockgrid.runs.run_folder import RunFolder
from knockgrid.runs.study import read_spec
from knockgrid.runs.work import PromptsFailed, Work
from knockgrid.spec import rows_as_data
from knockgrid.table.table import metadata_of

# Ray asks Python for what Python means to drop, and leaves sockets to the end of its workers.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
]
NAMES = ("Rome", "Paris", "Oslo", "Bern", "Lima", "Cairo", "Quito", "Delhi", "Tunis", "Seoul")
PLAIN = {"noise_floor": False, "top": 0, "batch": 2, "progress": False}
TWO = kg.runs.RayEngine(workers=2, cpus=1, gpus=0)
ONE = kg.runs.RayEngine(workers=1, cpus=1, gpus=0)


@pytest.fixture(scope="module")
def cluster():
    """The one cluster; runs find it there and leave it."""
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        for name in ("RAY_ADDRESS", "RAY_AUTH_MODE"):
            patch.delenv(name, raising=False)
        with connected(None, 2):
            yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory, tiny_tokenizer, tiny_llama):
    """Two tiny models that differ in their last norm, as folders."""
    path, model = tmp_path_factory.mktemp("models"), tiny_llama.original_model
    plain = {k.replace("_original_component.", ""): v for k, v in model.state_dict().items()}
    made = type(model)(model.config)
    made.load_state_dict({name: plain[name] for name in made.state_dict()})
    for name in ("one", "other"):
        made.save_pretrained(path / name)
        tiny_tokenizer.save_pretrained(path / name)
        with torch.no_grad():
            made.model.norm.weight.mul_(1.5)
    return path


@pytest.fixture(scope="module")
def towns():
    """Ten prompts in seven batches of two sizes."""
    some = [
        kg.Prompt(f"The town of {name} is in", spans={"subject": name}, id=name, answers=["it"])
        for name in NAMES
    ]
    lengthened = kg.Prompt("So the capital of Oman is", spans={"subject": "Oman"}, id="Oman")
    return [*some, lengthened]


def loader(folders, log=None, fault=None):
    """A function that loads the model, notes the process and its number, and plants a fault."""

    def load():
        import knockgrid  # whose lazy module cannot be pickled with this function

        number = 0
        if log is not None:
            with open(log, "a") as file:
                file.write(f"{os.getpid()}\n")
            number = len(log.read_text().split()) - 1
        name = fault(number) if fault is not None else None
        return knockgrid.load(folders / (name or "one"))

    return load


def until(file, lines):
    """A wait in the first shard of an actor until so many actors are in theirs.

    These shards are so small that one actor would end the run before another has come up.
    """

    def wait(number=None, ids=None):
        with file.open("a+") as noted:
            noted.seek(0)
            if str(os.getpid()) not in noted.read().split():
                noted.write(f"{os.getpid()}\n")
        start = time.monotonic()
        while len(file.read_text().split()) < lines and time.monotonic() < start + 40:
            time.sleep(0.02)

    return wait


def in_shards(happens):
    """A fault that happens in `Work`, to the ids of a batch, in the actor of some number."""

    def plant(number):
        before = Work._collected

        def collected(self, batch, done):
            happens(number, [str(one.prompt.id) for one in batch])
            return before(self, batch, done)

        Work._collected = collected

    return plant


def run(model, towns, out, engine="single"):
    rows = [*kg.information_flow(), kg.patch("mlp_out", "last", kg.mean_activation(), name="mean")]
    return kg.sweep(model, towns, rows, out=out, engine=engine, **PLAIN)


@pytest.fixture(scope="module")
def single(folders, towns, tmp_path_factory):
    """The run folder of one process with one thread, and its table."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("single") / "run"
    table = run(folders / "one", towns, out)
    torch.set_num_threads(before)
    return out, table


def same(table, single):
    """Whether table and metadata are those of the single process, bit for bit."""
    pd.testing.assert_frame_equal(table, single[1], check_exact=True)
    return dict(metadata_of(table)) == dict(metadata_of(single[1]))


def test_two_actors_give_the_table_of_one_process(
    cluster, folders, towns, single, tmp_path, monkeypatch
):
    taken, kept, most = [], [], []
    missing, write = running.still_missing, RunFolder.write

    def counted(folder, before):
        for number in missing(folder, before):
            taken.append(number)
            most.append(len(taken) - len(kept))
            yield number

    def counted_write(folder, shard):
        write(folder, shard)
        kept.append(shard.about["number"])

    monkeypatch.setattr(running, "still_missing", counted)
    monkeypatch.setattr(RunFolder, "write", counted_write)
    log, out = tmp_path / "log", tmp_path / "run"
    table = run(loader(folders, log, in_shards(until(tmp_path / "at", 2))), towns, out, TWO)
    assert same(table, single)
    assert (table["js"] > 1e-3).mean() > 0.3  # that two tables of zeros are equal says nothing

    # the model was loaded once in each actor, and in this process not at all
    loads = log.read_text().split()
    assert len(loads) == len(set(loads)) == 2
    assert str(os.getpid()) not in loads

    # back-pressure: two shards in flight per actor, never more, and really two
    shards, reference = (RunFolder(path).shards() for path in (out, single[0]))
    assert sorted(taken) == sorted(kept) == list(range(len(shards))) == list(range(6))
    assert max(most) == 4

    # what decides of the numbers is what one process decided, and one thread was at work
    ours, theirs = (read_manifest(path) for path in (out, single[0]))
    same_names = ("config_digest", "run_digest", "receipt", "plan", "sigma", "model")
    assert {n: ours[n] for n in same_names} == {n: theirs[n] for n in same_names}
    abouts = RunFolder(out).abouts(ours)
    assert {about["computed"]["hardware"]["threads"] for about in abouts} == {1}
    assert [one.read_bytes() for one in shards] == [one.read_bytes() for one in reference]


def test_a_killed_actor_costs_nothing_but_its_time(cluster, folders, towns, single, tmp_path):
    log, out, died = tmp_path / "log", tmp_path / "run", tmp_path / "died"
    wait = until(tmp_path / "at", 2)

    def kill(number, ids):
        wait()
        if "Lima" in ids and not died.exists():
            died.write_text("x")
            os.kill(os.getpid(), signal.SIGKILL)

    def plant(number):
        warnings.warn("told by an actor", UserWarning, stacklevel=1)
        in_shards(kill)(number)

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        table = run(loader(folders, log, plant), towns, out, TWO)
    assert same(table, single)
    assert died.exists()
    (death,) = (str(one.message) for one in said if one.category is ActorDied)
    assert re.fullmatch(r"an actor died over shard \d+ \(.+\); another takes its place", death)
    assert [str(one.message) for one in said].count("told by an actor") == 1
    assert len(log.read_text().split()) in (2, 3)  # the third may come too late to be of use


def test_prompts_that_raise_or_kill_are_recorded(
    cluster, folders, towns, single, tmp_path, monkeypatch
):
    """As in one process; and what was recorded is tried again by the same call."""
    monkeypatch.setattr(ray_engine, "DEATHS", 2)
    monkeypatch.setattr(running, "still_missing", lambda folder, before: iter(sorted(before)))
    plan, out = RunFolder(single[0]).plan(), tmp_path / "run"
    of = {str(prompt.id): shard for prompt, shard in zip(plan.prompts, plan.shards, strict=True)}
    together = Counter(of.values())
    killer = next(one for one in of if together[of[one]] == 1 and of[one] > 0)
    raiser = next(one for one in of if together[of[one]] == 2)

    def fault(number, ids):
        if raiser in ids:
            raise ValueError(f"not {raiser}")
        if killer in ids:
            time.sleep(0.5)  # else the shard before, whose reply is on its way, may be charged
            os.kill(os.getpid(), signal.SIGKILL)

    log = tmp_path / "log"
    model = loader(folders, log, in_shards(fault))
    with pytest.raises(PromptsFailed) as raised, pytest.warns(ActorDied) as said:
        run(model, towns, out, ONE)
    deaths = [str(one.message) for one in said if one.category is ActorDied]
    # An actor may die of its next shard before its last one was fetched, which is then charged.
    assert sum(f"over shard {of[killer]} " in death for death in deaths) == 2, deaths
    loads = log.read_text().split()  # each that takes a place loads the model again
    assert len(loads) == len(set(loads)) == 1 + len(deaths)
    failed = raised.value.failed
    assert set(failed) == {raiser, killer}
    assert failed[raiser] == f"ValueError: not {raiser}"
    assert failed[killer].startswith("ActorDied: 2 actors died of its shard, the last one since")

    def raise_it(self, batch, done):
        for one in batch:
            if one.prompt.id in (raiser, killer):
                raise ValueError(f"not {one.prompt.id}")
        return before(self, batch, done)

    before = Work._collected
    monkeypatch.setattr(Work, "_collected", raise_it)
    with pytest.raises(PromptsFailed) as raised:
        run(folders / "one", towns, tmp_path / "here")
    assert raised.value.failed == {raiser: failed[raiser], killer: "ValueError: not " + killer}
    parts = [kg.open_run(path) for path in (out, tmp_path / "here")]
    pd.testing.assert_frame_equal(*parts, check_exact=True)
    assert set(parts[0]["prompt"]) == {one.id for one in towns} - {raiser, killer}
    monkeypatch.setattr(Work, "_collected", before)
    assert same(run(folders / "one", towns, out), single)


def test_another_model_on_an_actor_is_refused(cluster, folders, towns, tmp_path):
    """The first actor's shards never end, so it is the second one's set-up that is refused."""
    log = tmp_path / "log"
    first = in_shards(until(tmp_path / "at", 99))
    model = loader(folders, log, lambda number: "other" if number == 1 else first(number))
    with pytest.raises(InputError, match="begun with another model .weights_digest differ."):
        run(model, towns, tmp_path / "run", TWO)
    assert len(log.read_text().split()) == 2


def test_actors_that_cannot_come_up_end_the_run(cluster, folders, towns, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_engine, "DEATHS", 2)
    log, out = tmp_path / "log", tmp_path / "run"
    model = loader(folders, log, lambda number: os._exit(1))
    with (
        pytest.warns(ActorDied, match="while it prepared the run") as said,
        pytest.raises(InputError, match="2 actors in a row died before their first shard"),
    ):
        run(model, towns, out, ONE)
    assert len(said) == len(log.read_text().split()) == 2
    assert not RunFolder(out).begun


def test_ctrl_c_on_the_command_line(cluster, folders, tmp_path):
    """The shards in hand are kept, the exit code is 130, and one process goes on."""
    import ray

    lines = [
        {"id": f"{name} {i}", "text": f"In {i} {name} is in", "subject": name}
        for name in NAMES
        for i in range(10, 13)
    ]
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "run"
    prompts.write_text("\n".join(map(json.dumps, lines)))
    address = ray.get_runtime_context().gcs_address
    command = [
        *(sys.executable, "-m", "knockgrid.cli.app", "sweep", "--model", folders / "one"),
        *("--prompts", prompts, "--set", "batch=1", "--row", "last", "--no-noise-floor"),
        *("--out", out, "--engine", f"ray:address={address},workers=1,cpus=1"),
    ]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = subprocess.Popen(list(map(str, command)), start_new_session=True, **streams)
    try:
        end = time.monotonic() + 300  # an actor takes long to come up on a machine that is busy
        while not list(out.glob("shards/*.parquet")):
            assert time.monotonic() < end
            assert started.poll() is None, started.stderr.read()
            time.sleep(0.01)
        os.killpg(started.pid, signal.SIGINT)
        _, said = started.communicate(timeout=60)
    finally:  # an orphan would be met by the tests that follow
        if started.poll() is None:
            os.killpg(started.pid, signal.SIGKILL)
            started.communicate()
    assert started.returncode == 130, said
    last = said.strip().splitlines()[-1]
    assert "missing shards; nothing is lost, and the same command goes on" in last
    assert "Traceback" not in said
    kept = len(RunFolder(out).shards())
    assert f"stopped after {kept} of 30" in last
    assert 1 <= kept < 30

    # its actor is gone from the cluster, which itself is still there
    end = time.monotonic() + 30
    while ray.available_resources().get("CPU") != 2:
        assert time.monotonic() < end
        time.sleep(0.1)

    flags = {"model": str(folders / "one"), "prompts": str(prompts), "batch": 1}
    spec = read_spec(None, {**flags, "noise_floor": False, "interventions": rows_as_data(["last"])})
    begun = {path: path.stat().st_mtime_ns for path in RunFolder(out).shards()}
    tables = [running.run(spec, path, progress=False) for path in (out, tmp_path / "undisturbed")]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert {path: path.stat().st_mtime_ns for path in begun} == begun


def test_the_cluster_of_this_machine_is_fenced(cluster):
    """It listens on the loopback address only, without a dashboard, and wants a token."""
    import psutil
    import ray

    assert ray.get_runtime_context().gcs_address.startswith("127.0.0.1:")
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert not ray._private.worker._global_node.webui_url
    processes = psutil.Process().children(recursive=True)
    names = {process.name() for process in processes}
    assert {"gcs_server", "raylet"} <= names
    ours = {os.getpid(), *(process.pid for process in processes)}
    heard = {
        connection.laddr.ip
        for connection in psutil.net_connections("inet")
        if connection.status == "LISTEN" and connection.pid in ours
    }
    assert heard
    assert {address.removeprefix("::ffff:") for address in heard} == {"127.0.0.1"}


def test_what_cannot_be_sent_to_actors_is_said(cluster, folders, towns, tmp_path):
    model = partial(lambda lock: None, threading.Lock())
    with pytest.raises(InputError, match="cannot be sent to Ray's actors .*pickle"):
        run(model, towns, tmp_path / "run", ONE)


def test_handlers_and_connection_are_the_callers(cluster):
    import ray

    before = signal.getsignal(signal.SIGTERM)
    with ray_cluster.handlers_kept():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGTERM) is before
    assert "sigterm_handler" not in str(before)
    with connected(None, 1):
        pass
    assert ray.is_initialized()
