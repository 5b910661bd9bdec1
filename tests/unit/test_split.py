"""Several processes write one run folder: whose part is which, on which device, what comes out."""

import json
import multiprocessing
import os
import warnings

import pandas as pd
import pytest
import torch

import knockgrid as kg
from knockgrid.errors import InputError
from knockgrid.runs import job
from knockgrid.runs.run_folder import RunFolder
from knockgrid.runs.split import local_device, mine, part_of
from knockgrid.runs.store import UnfinishedRun
from knockgrid.spec import WHERE, Spec
from knockgrid.table.table import metadata_of

NAMES = ("Rome", "Paris", "Oslo", "Bern", "Lima", "Cairo", "Quito", "Delhi", "Tunis", "Seoul")


def array(id, count, low, high, step=1):
    values = {"ID": id, "COUNT": count, "MIN": low, "MAX": high, "STEP": step}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in values.items()}


def step(rank, of):
    return {"SLURM_PROCID": str(rank), "SLURM_STEP_NUM_TASKS": str(of), "SLURM_NTASKS": "99"}


def torchrun(rank, of):
    return {"RANK": str(rank), "WORLD_SIZE": str(of), "LOCAL_RANK": "0"}


@pytest.mark.parametrize(
    ("environment", "part"),
    [
        (array(1, 8, 1, 8), (1, 8)),
        (array(8, 8, 1, 8), (8, 8)),
        (array(0, 4, 0, 3), (1, 4)),
        (array(6, 4, 0, 6, 2), (4, 4)),  # --array=0-6:2
        (array(9, 4, 0, 9, 3), (4, 4)),  # --array=0-10:3, of which SLURM says that 9 is the last
        (array(6, 4, 0, 10, 3), (3, 4)),  # and if it should say 10, it is the same
        (array(7, 3, 5, 9, 2), (2, 3)),
        (array(5, 1, 5, 5), (1, 1)),  # one task tried again takes all that is missing
        (step(0, 2), (1, 2)),
        (step(1, 2), (2, 2)),
        (torchrun(3, 4), (4, 4)),
        ({**step(0, 2), **torchrun(3, 4)}, (4, 4)),  # torchrun within srun
        ({**array(2, 3, 1, 3), **step(1, 2)}, (4, 6)),  # an array whose tasks are two processes
        ({**array(3, 3, 1, 3), **torchrun(0, 2)}, (5, 6)),
        ({**array(2, 3, 1, 3), "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, (2, 3)),
    ],
)
def test_a_part_from_the_scheduler(environment, part):
    assert part_of("auto", environment) == part


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        (array(5, 3, 1, 9), "not evenly spaced .id 5, count 3, min 1, max 9, step 1.*--array=1-N"),
        (array(1, 3, 1, 9), "not evenly spaced"),  # the first of 1,5,9 must not go ahead either
        (array(4, 3, 1, 5, 2), "not evenly spaced"),
        (array(9, 4, 1, 4), "not evenly spaced"),
        (array(0, 4, 1, 4), "not evenly spaced"),
        (array(1, 4, 1, 4, 0), "not evenly spaced"),
        ({"SLURM_ARRAY_TASK_ID": "2"}, "not evenly spaced .id 2, count None"),
        (array(1, "many", 1, 4), "cannot be read"),
        (torchrun(4, 4), "RANK is 4 and WORLD_SIZE is 4, which cannot be"),
        (torchrun(-1, 4), "cannot be"),
        (torchrun("", 4), "cannot be read"),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, "no step of several; start it with srun"),
        ({}, "neither SLURM nor torchrun"),
        ({"RANK": "1"}, "neither SLURM nor torchrun"),
    ],
)
def test_a_place_that_is_not_known_is_refused(environment, says):
    with pytest.raises(InputError, match=says):
        part_of("auto", environment)


@pytest.mark.parametrize("given", ["0/2", "3/2", "2", "a/b", "1/0", "-1/2", "1/2/3", "", "²/3"])
def test_a_part_that_is_none_is_refused(given):
    with pytest.raises(InputError, match="write 1/8 to 8/8 for the parts of eight, or auto"):
        part_of(given, {})


@pytest.mark.parametrize("of", [1, 2, 3, 7, 20])
def test_parts_have_every_shard_once(of):
    parts = [list(mine(10, (i, of))) for i in range(1, of + 1)]
    assert sorted(sum(parts, [])) == list(range(10))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("shard", "environment", "gpus", "device"),
    [
        ("auto", {"LOCAL_RANK": "2"}, 4, "cuda:2"),
        ("auto", {"SLURM_LOCALID": "1"}, 4, "cuda:1"),
        ("auto", {"LOCAL_RANK": "3", "SLURM_LOCALID": "0"}, 4, "cuda:3"),
        ("auto", {"LOCAL_RANK": "5"}, 4, "cuda:1"),  # two processes share a GPU
        ("auto", {"LOCAL_RANK": "2"}, 1, None),  # the scheduler shows each its own
        ("auto", {"LOCAL_RANK": "2"}, 0, None),
        ("auto", {}, 4, None),
        ("2/4", {"LOCAL_RANK": "2"}, 4, None),
        (None, {"LOCAL_RANK": "2"}, 4, None),
    ],
)
def test_every_local_process_takes_its_own_gpu(shard, environment, gpus, device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert local_device(shard, environment) == device


def test_the_local_gpu_is_where_the_model_goes(monkeypatch, tmp_path, towns):
    def load(model, device, **options):
        raise InputError(f"to {device}")

    monkeypatch.setattr(job, "loaded", load)
    given = ({}, {"device": "cpu"}, {"device_map": "auto"})
    for settings, device in zip(given, ("cuda:1", "cpu", None), strict=True):
        with pytest.raises(InputError, match=f"^to {device}$"):
            job.load_model(Spec(**settings), "cuda:1")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in torchrun(1, 2).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(InputError, match="to cuda:1"):
        run("demo", towns, tmp_path / "run", shard="auto")
    with pytest.raises(InputError, match="to None"):
        run("demo", towns, tmp_path / "run")


def test_a_run_goes_on_on_another_device(tmp_path):
    assert set(WHERE) == {"device", "device_map"}
    one, other = Spec(), Spec(device="cpu", device_map="auto")
    assert one.digest() == other.digest()
    assert one.digest() != Spec(dtype="bfloat16").digest()
    nothing = dict.fromkeys(("plan", "model", "receipt", "versions", "sigma"), {})
    nothing |= dict.fromkeys(("config_digest", "run_digest", "begun_by"), "")
    manifest = {"schema": 2, **nothing, "config": one.plain()}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    RunFolder(tmp_path).check(other.plain())
    with pytest.raises(InputError, match=r"with other settings \(seed\)"):
        RunFolder(tmp_path).check(Spec(device="cpu", seed=1).plain())


@pytest.fixture(scope="module")
def towns():
    return [
        kg.Prompt(f"The town of {name} is in", spans={"subject": name}, id=name) for name in NAMES
    ]


def run(model, towns, out, **more):
    rows = kg.information_flow()
    return kg.sweep(model, towns, rows, out=out, batch=1, noise_floor=False, progress=False, **more)


@pytest.fixture(scope="module")
def undisturbed(tiny_llama, towns, tmp_path_factory):
    """The run folder of one process, and its table."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("one") / "run"
    table = run(tiny_llama, towns, out)
    torch.set_num_threads(before)
    return out, table


def part(model, towns, out, log, environment, wait):
    """One of several processes, under the variables of its scheduler."""
    for name in [name for name in os.environ if name.startswith("SLURM_") or "RANK" in name]:
        del os.environ[name]
    os.environ.update(environment)
    write = RunFolder.write

    def noted(folder, shard):
        write(folder, shard)
        with log.open("a") as file:
            file.write(f"{shard.about['number']}\n")

    RunFolder.write = noted
    warnings.simplefilter("ignore", UnfinishedRun)
    wait.wait()
    run(model, towns, out, shard="auto")


ENVIRONMENTS = {
    "torchrun": [torchrun(i, 3) for i in range(3)],
    "array": [array(i, 3, 4, 8, 2) for i in (4, 6, 8)],
    "srun in an array": [{**array(i, 2, 1, 2), **step(j, 2)} for i in (1, 2) for j in (0, 1)],
}


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("environments", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_processes_write_one_run(environments, tiny_llama, towns, undisturbed, tmp_path):
    """They begin at the same moment, each does its part once, and the last one ends the run."""
    fork = multiprocessing.get_context("fork")
    out, log, wait = tmp_path / "run", tmp_path / "log", fork.Barrier(len(environments))
    processes = [
        fork.Process(target=part, args=(tiny_llama, towns, out, log, environment, wait))
        for environment in environments
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * len(environments)
    manifest = RunFolder(out).manifest
    assert manifest["finished"]
    assert sorted(map(int, log.read_text().split())) == list(range(len(NAMES)))
    table = kg.open_run(out)
    pd.testing.assert_frame_equal(table, undisturbed[1], check_exact=True)
    assert dict(metadata_of(table)) == dict(metadata_of(undisturbed[1]))
    assert not list(out.rglob("*.part"))


def test_a_part_that_is_missing_is_said(tiny_llama, towns, tmp_path):
    with pytest.warns(UnfinishedRun, match="5 of 10 shards"):
        table = run(tiny_llama, towns, tmp_path, shard="1/2")
    plan = RunFolder(tmp_path).plan()
    shards = zip(plan.prompts, plan.shards, strict=True)
    assert set(table["prompt"]) == {prompt.id for prompt, shard in shards if shard % 2 == 0}
    assert not RunFolder(tmp_path).manifest["finished"]
    whole = run(tiny_llama, towns, tmp_path)
    assert list(whole["prompt"].unique()) == list(NAMES)
