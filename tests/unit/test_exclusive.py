"""One model, one thread: refused while another thread runs it, free again whatever happens."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import recipes
import torch

import knockgrid as kg
from knockgrid.engine.statistics import embeddings
from knockgrid.errors import InputError
from knockgrid.passes import exclusive as _exclusive
from knockgrid.passes.exclusive import exclusive, of_this_thread
from knockgrid.passes.run import run_hooked

WAIT = 30  # seconds, after which a thread that waits for another gives up
IDS = torch.tensor([[1, 40, 41]])


@pytest.fixture(autouse=True)
def warm(tiny_llama, tiny_gpt2):
    for model in (tiny_llama, tiny_gpt2):
        model(IDS)


def in_thread(call, name="other"):
    """What a call gives, or raises, in a thread of its own."""
    found = []

    def run():
        try:
            found.append(call())
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run, name=name)
    thread.start()
    thread.join(WAIT)
    assert not thread.is_alive()
    return found[0]


def entered(model, doing="known"):
    with exclusive(model, doing):
        pass


def swept(model, tower, **options):
    options = {"layers": [0], "progress": False, **options}
    return kg.sweep(model, tower, kg.knockout(), **options)


class Meeting:
    """A hook of the user's that stops in its first call until it is told to go on."""

    def __init__(self, model):
        self.arrived, self.go_on, self.model = threading.Event(), threading.Event(), model

    def __enter__(self):
        self.model.add_hook("blocks.0.hook_mlp_out", self.hook)
        return self

    def __exit__(self, *error):
        self.go_on.set()
        self.model.reset_hooks()

    def hook(self, activation, hook):
        if not self.arrived.is_set():
            self.arrived.set()
            assert self.go_on.wait(WAIT)


@pytest.mark.parametrize("what", ["sweep", "known", "off_manifold", "reference", "noise"])
@pytest.mark.filterwarnings("ignore::knockgrid.engine.slower.FallbackWarning")
def test_a_second_thread_is_refused_in_the_middle_of_a_pass(tiny_llama, tower, what):
    calls = {
        "sweep": lambda: swept(tiny_llama, tower),
        "known": lambda: kg.known(tiny_llama, [tower]),
        "off_manifold": lambda: kg.evidence.off_manifold(
            tiny_llama, [tower], kg.knockout(), layers=[0], progress=False
        ),
        "reference": lambda: swept(tiny_llama, tower, executor="reference"),
        "noise": lambda: embeddings(tiny_llama, IDS),
    }
    expected = swept(tiny_llama, tower)
    with ThreadPoolExecutor(1, "first") as pool, Meeting(tiny_llama) as meeting:
        first = pool.submit(swept, tiny_llama, tower)
        assert meeting.arrived.wait(WAIT)
        refused = in_thread(calls[what], "second")
        meeting.go_on.set()
        table = first.result(WAIT)
    assert isinstance(refused, InputError)
    said = str(refused)
    assert "'second'" in said
    assert "'first" in said
    assert "wait for that thread, or load a second model" in said
    assert (table.js - expected.js).abs().max() < 1e-12
    assert isinstance(in_thread(calls[what]), type(calls[what]()))  # it is free again


def test_a_pass_of_the_user_s_own_does_not_meet_the_edits(tiny_llama, tower):
    """It is stopped at the first hook of knockgrid's, instead of being edited in silence."""
    own, met = tiny_llama(IDS), threading.Event()

    def hold(activation, hook):
        met.set()
        assert done.wait(WAIT)

    done = threading.Event()

    def held():
        edit = ("blocks.1.hook_resid_pre", lambda activation, hook: activation * 0)
        return run_hooked(tiny_llama, IDS, [("hook_embed", hold), edit])

    # the held thread stands at the embedding; the other passes from the first block on
    with ThreadPoolExecutor(1, "first") as pool:
        first = pool.submit(held)
        assert met.wait(WAIT)
        refused = in_thread(lambda: tiny_llama(IDS), "second")
        done.set()
        first.result(WAIT)
    assert isinstance(refused, InputError)
    assert "a forward pass in thread 'second' met the hooks that knockgrid has set" in str(refused)
    assert torch.equal(tiny_llama(IDS), own)


def test_a_hook_of_this_thread_is_called(tiny_llama):
    seen = of_this_thread(lambda activation, hook: (activation, hook))(1, hook="name")
    assert seen == (1, "name")


@pytest.mark.filterwarnings("ignore::knockgrid.engine.slower.FallbackWarning")
def test_two_threads_with_a_model_each(tiny_llama, tiny_gpt2, tower):
    """At the same time, until both are in the middle of a pass."""
    expected = [swept(model, tower) for model in (tiny_llama, tiny_gpt2)]
    barrier = threading.Barrier(2, timeout=WAIT)
    with ThreadPoolExecutor(2) as pool, Meeting(tiny_llama) as one, Meeting(tiny_gpt2) as other:
        for mine, theirs in ((one, other), (other, one)):
            mine.go_on = theirs.arrived  # neither goes on before the other is in its pass
        run = [
            pool.submit(lambda m: (barrier.wait(), swept(m, tower))[1], model)
            for model in (tiny_llama, tiny_gpt2)
        ]
        tables = [future.result(WAIT) for future in run]
    for table, alone in zip(tables, expected, strict=True):
        assert (table.js - alone.js).abs().max() < 1e-12


def test_one_thread_after_another(tiny_llama, tower):
    here = swept(tiny_llama, tower)
    for _ in range(3):
        there = in_thread(lambda: swept(tiny_llama, tower))
        assert (there.js == here.js).all()


@pytest.mark.parametrize("name", ["reference", "staircase", "rectangle"])
def test_an_executor_left_half_way_holds_nothing(tiny_llama, prompts, name, tmp_path):
    """Not even while its generator is alive: a model is kept for a pass, never between passes."""
    kept = []

    def begun(model, runs, cells):
        outcomes = getattr(kg.executors, name)(model, runs, cells)
        kept.extend((next(outcomes), outcomes))
        return iter(())

    given = recipes.Given(tiny_llama, tmp_path, [prompts[0], prompts[2]], tmp_path, tmp_path)
    recipes.carried_out(given, begun)
    assert len(in_thread(lambda: swept(tiny_llama, prompts[0]))) == 1
    assert next(kept[1]) is not None  # it goes on where it was
    assert len(in_thread(lambda: swept(tiny_llama, prompts[0]))) == 1


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, GeneratorExit])
def test_it_is_free_after_any_error(tiny_llama, error):
    def failing():
        with exclusive(tiny_llama, "sweep"), exclusive(tiny_llama, "a forward pass"):
            raise error

    assert isinstance(in_thread(failing), error)
    entered(tiny_llama)
    with pytest.raises(error):
        failing()
    assert in_thread(lambda: entered(tiny_llama)) is None


def test_nested_in_one_thread_and_named_by_the_outer(tiny_llama):
    def other():
        entered(tiny_llama)

    with exclusive(tiny_llama, "sweep"):
        for _ in range(2):
            with exclusive(tiny_llama, "a forward pass"):
                said = str(in_thread(other, "second"))
            assert said.startswith("known cannot run the model in thread 'second' while sweep runs")
            assert "in thread 'MainThread'" in said
        assert isinstance(in_thread(other), InputError), "the inner one gave the model away"
    assert in_thread(other) is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forks beside threads
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_may_run_what_a_thread_of_its_parent_ran(tiny_llama):
    started, done = threading.Event(), threading.Event()

    def hold():
        with exclusive(tiny_llama, "sweep"):
            started.set()
            done.wait(WAIT)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert started.wait(WAIT)
        child = os.fork()
        if not child:
            code = 1
            try:
                with exclusive(tiny_llama, "sweep"):
                    code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        done.set()
        thread.join(WAIT)


def test_it_keeps_no_model_alive_and_costs_microseconds(tiny_llama):
    class Model(torch.nn.Module):
        pass

    before, model = len(_exclusive._USES), Model()
    with exclusive(model, "sweep"):
        assert len(_exclusive._USES) == before + 1
    del model
    assert len(_exclusive._USES) == before
    times = []
    for _ in range(200):
        start = time.perf_counter()
        with exclusive(tiny_llama, "a forward pass"):
            pass
        times.append(time.perf_counter() - start)
    assert sorted(times)[100] < 1e-4


def test_no_pass_goes_past_the_one_place():
    """Nothing else in the package runs a bridge; a study may, as a user's script does."""
    source = Path(kg.__file__).parent
    run = [
        (path.name, line.strip())
        for path in source.rglob("*.py")
        if "experiments" not in path.relative_to(source).parts
        for line in path.read_text("utf-8").splitlines()
        if any(f".{call}(" in line for call in ("run_with_hooks", "run_with_cache", "forward"))
        and ">>>" not in line
    ]
    assert [name for name, _ in run] == ["run.py"], run
