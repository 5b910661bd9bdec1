"""Threads: the better number is measured, kept to, recorded, and given back."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from weakref import WeakKeyDictionary

import pytest
import torch

import knockgrid as kg
from knockgrid.engine import setup as _setup
from knockgrid.engine.setup import WORTH, set_up
from knockgrid.engine.threads import MINUTE, SHARE, Look, Threads
from knockgrid.errors import InputError
from knockgrid.runs.run_folder import RunFolder
from knockgrid.runs.running import run
from knockgrid.runs.study import read_spec
from knockgrid.spec import Spec, rows_as_data

ALL = 3


@pytest.fixture(autouse=True)
def all_threads(monkeypatch):
    """As many as torch has for a sweep here, whatever the machine has."""
    monkeypatch.setattr(os, "cpu_count", lambda: ALL)
    torch.set_num_threads(ALL)
    yield
    torch.set_num_threads(1)


class Machine:
    """A clock, and a pass that takes so many seconds by the number of threads."""

    def __init__(self, one, every):
        self.now, self.takes, self.passes = 0.0, {1: one, ALL: every}, []

    def threads(self, **options):
        return Threads(small_pass=self.small_pass, clock=lambda: self.now, **options)

    def small_pass(self):
        n = torch.get_num_threads()
        self.passes.append(n)
        self.now += self.takes[n]

    def work(self, threads, seconds, cells=10):
        """Some work, and the threads that it was done with."""
        with threads.at_work(cells):
            self.now += seconds
            return torch.get_num_threads()


@pytest.mark.parametrize(("one", "every", "better"), [(1.0, 0.6, ALL), (1.0, 5.0, 1), (1, 1, 1)])
def test_the_faster_is_taken_in_a_few_passes(one, every, better):
    machine = Machine(one, every)
    threads = machine.threads()
    assert machine.work(threads, 1) == machine.work(threads, 1) == better
    assert machine.passes == [ALL, ALL, 1, ALL, 1]  # the first is not timed
    assert threads.describe() == {"given": None, "used": [better]}
    assert torch.get_num_threads() == ALL


def test_one_slow_pass_decides_nothing():
    machine = Machine(1.0, 0.6)
    right = machine.small_pass

    def hiccup():
        right()
        machine.now += 30 * (len(machine.passes) == 2)

    machine.small_pass = hiccup
    assert machine.work(machine.threads(), 1) == ALL
    assert len(machine.passes) == 7


def test_another_look_when_a_cell_takes_half_as_long_again():
    machine = Machine(1.0, 0.6)
    threads = machine.threads()
    looked = [machine.work(threads, 100) for _ in range(3)] and len(machine.passes)
    machine.takes[ALL] = 9.0  # a neighbour arrives
    assert machine.work(threads, 149) == ALL
    assert machine.work(threads, 151) == ALL
    assert len(machine.passes) == looked  # until then nothing was slow enough
    assert machine.work(threads, 100) == 1
    assert len(machine.passes) == 2 * looked
    assert machine.work(threads, 10, cells=1) == 1
    assert len(machine.passes) == 2 * looked  # as long per cell
    assert threads.describe()["used"] == [ALL, 1]


def test_looking_stays_below_a_twentieth():
    machine = Machine(1.0, 0.6)
    threads = machine.threads()
    for k in range(1, 8):
        machine.work(threads, 2.0**k)  # slower each time
    assert (machine.now - 254) < 254 / SHARE + 4.2 + 1  # and the look that has just been taken


def test_one_thread_is_reconsidered_after_a_while():
    machine = Machine(1.0, 9.0)
    threads = machine.threads()
    machine.work(threads, MINUTE / 2)
    machine.takes[ALL] = 0.6  # the neighbour has gone
    assert machine.work(threads, 30 * MINUTE) == 1
    assert machine.work(threads, 1) == ALL
    machine.takes[1] = 0.1
    machine.work(threads, 30 * MINUTE, cells=10**6)
    assert machine.work(threads, 30 * MINUTE, cells=10**6) == ALL  # there are no more to gain


def test_sweeps_of_a_model_share_a_look_for_a_minute():
    machine, last = Machine(0.1, 0.06), Look()
    for seconds, looks in ((5, 1), (MINUTE, 1), (5, 2), (5, 2)):
        assert machine.work(machine.threads(last=last), seconds) == ALL
        assert len(machine.passes) == 5 * looks
    torch.set_num_threads(2)
    machine.takes[2] = 0.05
    assert machine.work(machine.threads(last=last), 5) == 2
    assert len(machine.passes) == 15  # of other threads nothing is known


def test_nothing_is_measured_where_there_is_no_choice():
    machine = Machine(1.0, 0.1)
    assert machine.work(machine.threads(given=2), 1) == 2
    assert machine.work(machine.threads(given=500), 1) == ALL  # processors
    torch.set_num_threads(1)
    assert machine.work(machine.threads(), 1) == 1
    assert machine.passes == []


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("where", ["look", "work"])
def test_the_users_number_is_back_whatever_happens(error, where):
    def small_pass():
        if where == "look" and torch.get_num_threads() == 1:
            raise error

    def work():
        with Threads(small_pass=small_pass).at_work():
            assert where == "work"
            torch.set_num_threads(1)
            raise error

    with pytest.raises(error):
        work()
    assert torch.get_num_threads() == ALL


# In a sweep


@pytest.fixture
def busy(monkeypatch):
    """Passes with all threads seem slow; how many threads each pass had."""

    class Clock:
        now = 0.0

    had, found, made = [], _setup.small_pass, _setup.Threads
    clocked = lambda *given: made(*given, clock=lambda: Clock.now)  # noqa: E731
    monkeypatch.setattr(_setup, "Threads", clocked)

    def small_pass(*given):
        one = found(*given)

        def timed():
            had.append(torch.get_num_threads())
            Clock.now += 1 if torch.get_num_threads() == 1 else 5
            return one()

        return timed if one is not None else None

    monkeypatch.setattr(_setup, "small_pass", small_pass)
    monkeypatch.setattr(_setup, "WORTH", 1)
    monkeypatch.setattr(_setup, "_LOOKS", WeakKeyDictionary())
    return had


def rows_of(**options):
    return kg.information_flow(kg.corrupted_run(by=kg.swap()), **options)


def named(rows, i):
    return [replace(row, name=f"{row.name} {i}") for row in rows]


class Watching:
    """The reference executor, and with how many threads it was called; it may raise."""

    name, needs_kv = "watching", False

    def __init__(self, error=None):
        self.had, self.error = [], error

    def __call__(self, model, runs, cells):
        self.had.append(torch.get_num_threads())
        if self.error is not None:
            raise self.error
        yield from kg.executors.reference(model, runs, cells)


@pytest.mark.parametrize("n", [None, 1, 2])
def test_a_sweep_takes_the_better_or_what_is_fixed_and_gives_the_users_back(
    sweep, prompts, busy, n
):
    watching = Watching()
    table = sweep(prompts, rows_of(), executor=watching, threads=n)
    assert set(watching.had) == {n or 1}
    assert busy == ([ALL, ALL, 1, ALL, 1] if n is None else [])
    assert table.attrs["knockgrid"]["threads"] == {"given": n, "used": [n or 1]}
    assert torch.get_num_threads() == ALL


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()])
@pytest.mark.parametrize("folder", [False, True])
def test_a_sweep_that_ends_early_gives_them_back(sweep, prompts, busy, error, folder, tmp_path):
    options = {"out": tmp_path / "run"} if folder else {}
    with pytest.raises((type(error), InputError)):
        sweep(prompts, rows_of(), executor=Watching(error), **options)
    assert torch.get_num_threads() == ALL


@pytest.mark.parametrize("given", [0, -1, True])
def test_threads_is_a_count(sweep, prompts, given):
    with pytest.raises(InputError, match=f"threads is {given!r}; give a whole number"):
        sweep(prompts, rows_of(), threads=given)
    with pytest.raises(ValueError, match="threads"):
        read_spec(None, {"threads": 0})


def test_little_work_is_not_worth_a_look(tiny_llama, prompts):
    spec = Spec(metrics=["js"], executor="reference")
    few = set_up(tiny_llama, prompts, rows_of(), spec)
    assert few.n_cells * len(prompts) < WORTH
    assert few.threads.small_pass is None
    rows = [row for i in range(15) for row in named(rows_of(), i)]
    many = set_up(tiny_llama, prompts, rows, spec)
    assert many.n_cells * len(prompts) >= WORTH
    assert many.threads.small_pass is not None
    many.threads.small_pass()


def test_a_run_goes_on_with_other_threads(sweep, prompts, busy, tmp_path):
    out, rows = tmp_path / "run", rows_of()
    whole = sweep(prompts, rows, threads=1)
    sweep(prompts, rows, out=out, batch=1, noise_floor=False)
    manifest = json.loads((out / "manifest.json").read_text("utf-8"))
    assert manifest["threads"] == {"given": None, "used": [1]}
    assert manifest["config"]["threads"] is None
    gone = sorted((out / "shards").glob("*.parquet"))[0]
    gone.unlink()
    table = sweep(prompts, rows, out=out, batch=1, noise_floor=False, threads=2)
    again = json.loads((out / "manifest.json").read_text("utf-8"))
    for name in ("config_digest", "run_digest"):
        assert again[name] == manifest[name]
    assert (table["js"] - whole["js"]).abs().max() < 1e-12

    used = [about["computed"]["threads"] for about in RunFolder(out).abouts(again)]
    assert used.count({"given": 2, "used": [2]}) == 1
    assert used.count({"given": None, "used": [1]}) == len(used) - 1 > 0


def test_settings_with_other_threads_begin_the_same_run(tiny_llama, tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"text": "The capital of Italy is", "subject": "Italy", "id": "italy"}\n')
    begun = []
    for given in (1, 2, None):
        out = tmp_path / str(given)
        more = {"threads": given, "noise_floor": False, "executor": "reference", "layers": (0,)}
        spec = Spec(prompts=str(file), interventions=rows_as_data(sources=["zero"]), **more)
        for one in (spec, spec.but(threads=3)):
            run(one, out, load=lambda: tiny_llama, progress=False)
        begun.append(json.loads((out / "manifest.json").read_text("utf-8")))
    assert [one["threads"]["given"] for one in begun] == [1, 2, None]
    for one in begun:
        one["config"].pop("threads")
    for name in ("config_digest", "config"):
        assert begun[0][name] == begun[1][name] == begun[2][name]
    assert torch.get_num_threads() == ALL


def test_settings_with_other_threads_are_the_same_run():
    assert Spec(threads=1).digest() == Spec().digest()
    with pytest.raises(ValueError, match="threads"):
        read_spec(None, {"threads": 0})


# Before torch is loaded


def from_the_shell(**environment):
    """What OpenMP's variables are, and what GNU's says of itself, once a command has run."""
    code = (
        "import os, sys; from knockgrid.cli import app as cli; assert 'torch' not in sys.modules\n"
        "sys.argv = ['knockgrid', '--version']\n"
        "try: cli.main()\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules\n"
        "import json, torch\n"
        "print(json.dumps({k: v for k, v in os.environ.items() if k[:4] in OURS}))"
    ).replace("OURS", "('OMP_', 'KMP_', 'GOMP')")
    others = {k: v for k, v in os.environ.items() if k[:4] not in ("OMP_", "KMP_", "GOMP")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**others, **environment, "OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_the_command_line_lets_waiting_threads_sleep():
    found, said = from_the_shell()
    assert (found["OMP_WAIT_POLICY"], found["KMP_BLOCKTIME"]) == ("PASSIVE", "0")
    assert "GOMP_SPINCOUNT" not in said or "GOMP_SPINCOUNT = '0'" in said


@pytest.mark.parametrize(
    "own", [{"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "7"}, {"KMP_BLOCKTIME": "5"}], ids=str
)
def test_what_the_user_has_said_of_waiting_holds(own):
    found, said = from_the_shell(**own)
    del found["OMP_DISPLAY_ENV"]
    assert found == own
    for name, value in own.items():
        if name[0] != "K" and "GOMP_SPINCOUNT" in said:
            assert f"{name} = '{value}'" in said
