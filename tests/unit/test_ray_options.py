"""The Ray engine's options, its room on a cluster and its line of shards, without a cluster."""

import importlib.util
import warnings

import pytest

import knockgrid as kg
from knockgrid.cli.given import engine_of
from knockgrid.engine.setup import SetLevel
from knockgrid.errors import InputError
from knockgrid.runs import RayEngine
from knockgrid.runs.in_process import Task
from knockgrid.runs.ray_actor import heard
from knockgrid.runs.ray_cluster import Room, room
from knockgrid.runs.ray_engine import Line, why
from knockgrid.runs.run_folder import Plan

ROME = kg.Prompt("Rome is", spans={"subject": "Rome"}, id="rome")


@pytest.mark.parametrize(
    ("model", "engine", "says"),
    [
        (None, "ray", "give its name, its folder, or a function that loads it"),
        ("demo", "rai", "unknown engine 'rai'; did you mean 'ray'"),
    ],
)
def test_sweeps_that_are_refused(tiny_llama, tmp_path, model, engine, says):
    with pytest.raises(InputError, match=says):
        kg.sweep(model or tiny_llama, ROME, kg.knockout(), out=tmp_path / "run", engine=engine)
    assert not (tmp_path / "run").exists()


def test_a_sweep_without_a_folder_is_refused():
    with pytest.raises(InputError, match="there is no folder to write; give out="):
        kg.sweep("demo", ROME, kg.information_flow(), engine="ray")


def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "ray" else found(name)
    )
    with pytest.raises(InputError, match=r'needs Ray, .*; pip install "knockgrid\[ray\]"$'):
        kg.sweep("demo", ROME, kg.knockout(), out=tmp_path / "run", engine="ray")


@pytest.mark.parametrize("options", [{"workers": 0}, {"cpus": 0}, {"gpus": -1}])
def test_options_out_of_range(options):
    with pytest.raises(InputError, match=f"{next(iter(options))} is .*; give [01] or more"):
        RayEngine(**options)


def test_devices():
    assert RayEngine().on("cpu").gpus == 0
    assert RayEngine(gpus=2).on("cuda").gpus == RayEngine(gpus=2).on(None).gpus == 2
    with pytest.raises(InputError, match="an actor sees only the GPUs that Ray gives it"):
        RayEngine().on("cuda:1")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("single:workers=2", "only ray takes options"),
        ("ray:wrokers=2", "did you mean 'workers'"),
        ("ray:cpus=x", "'x'"),
    ],
)
def test_options_that_the_shell_refuses(given, says):
    with pytest.raises(InputError, match=says):
        engine_of(given, None)


def test_options_of_the_shell():
    assert engine_of("single", None) == "single"
    asked = RayEngine(2, 3, 0.5, "10.0.0.1:6379")
    assert engine_of("ray:workers=2,cpus=3,gpus=0.5,address=10.0.0.1:6379", None) == asked
    assert engine_of("ray", "cpu") == RayEngine(gpus=0)


@pytest.mark.parametrize(
    ("nodes", "asked", "expected"),
    [
        ([{"CPU": 2}], (None, None, None), Room(1, 2, 0)),
        ([{"CPU": 1}], (None, None, None), Room(1, 1, 0)),
        ([{"CPU": 7}, {"CPU": 4}], (None, None, None), Room(5, 2, 0)),
        ([{"CPU": 7}, {"CPU": 4}], (None, 4, None), Room(2, 4, 0)),
        ([{"CPU": 7}, {"CPU": 4}], (3, None, None), Room(3, 3, 0)),
        ([{"CPU": 2}], (5, None, None), Room(5, 1, 0)),
        ([{"CPU": 8, "GPU": 4}, {"CPU": 64}], (None, None, None), Room(4, 1, 1)),
        ([{"CPU": 8, "GPU": 4}], (None, 4, None), Room(2, 4, 1)),
        ([{"CPU": 8, "GPU": 5}], (None, None, 2), Room(2, 1, 2)),
        ([{"CPU": 8, "GPU": 1}], (None, None, 0.5), Room(2, 1, 0.5)),
        ([{"CPU": 8, "GPU": 4}], (None, None, 0), Room(4, 2, 0)),
        ([], (None, None, None), Room(1, 1, 0)),
    ],
)
def test_room(nodes, asked, expected):
    assert room(nodes, *asked) == expected


def line(numbers, wanted=5, stopping=lambda: False):
    """Shards in a line, of a run of nine prompts with a shard each."""
    prompts = [kg.Prompt("Rome is", spans={"subject": "Rome"}, id=f"p{i}") for i in range(9)]
    plan = Plan(prompts, range(9), SetLevel({}, {}))
    manifest = {"config_digest": "c", "run_digest": "r", "receipt": {"executor": "staircase"}}
    manifest["plan"] = {"columns": ["js"]}
    task = Task(plan, manifest, wanted, lambda start: None, stopping)
    return Line(iter(numbers), task)


def test_shards_of_a_dead_actor_come_first_again():
    queue = line([0, 1, 2, 3])
    assert [queue.next(), queue.next()] == [0, 1]
    assert queue.given_back([0, 1], "why") is None
    assert [queue.next() for _ in range(4)] == [0, 1, 2, 3]
    assert not queue.empty
    assert queue.next() is None
    assert queue.empty
    queue.given_back([3], "why")
    assert not queue.empty
    assert queue.deaths == {0: 1, 3: 1}  # shard 1 was not in hand


def test_a_shard_that_three_actors_died_of_is_recorded_unless_nothing_was_finished():
    queue = line([4])
    queue.finished = 1
    assert [queue.given_back([4], "why"), queue.given_back([4], "why")] == [None, None]
    shard = queue.given_back([4, 5], "it was killed.")
    assert dict(shard.failed) == {
        "p4": "ActorDied: 3 actors died of its shard, the last one since it was killed."
    }
    assert (shard.about["number"], shard.about["run"], len(shard.table)) == (4, "r", 0)
    assert queue.next() == 5
    none_finished = line([4])
    for _ in range(2):
        none_finished.given_back([4], "why")
    with pytest.raises(InputError, match="3 actors died of shard 4 and none has finished any"):
        none_finished.given_back([4], "why")
    alone = line([4], wanted=1)
    assert [alone.given_back([4], "why") for _ in range(3)][-1].failed


def test_nothing_is_begun_any_more_once_asked_to_stop():
    asked = []
    queue = line([0, 1, 2], stopping=lambda: bool(asked))
    queue.next()
    queue.given_back([0], "why")
    asked.append(True)
    assert queue.next() is None
    assert queue.empty


def test_warnings_of_actors_are_heard():
    def call():
        warnings.warn("mind this", UserWarning, stacklevel=1)
        warnings.warn("not that", DeprecationWarning, stacklevel=1)
        return 3

    told = heard(call)
    assert told.value == 3
    assert [str(warning) for warning in told.warnings] == ["mind this"]


def test_why_an_actor_died():
    said = "The actor is dead because it was killed. Some common causes: x"
    assert why(Exception(f"The actor died.\n\tpid: 7\n{said}")) == said.split(" Some")[0]
