"""Memory: running out of it, the bounds on it, and what a sweep of settings will take."""

import json
from dataclasses import replace
from functools import partial

import pandas as pd
import pytest
import torch

import knockgrid as kg
from knockgrid.engine import bounds, measure, preflight
from knockgrid.engine import collect as room
from knockgrid.engine.executors.staircase import Staircase
from knockgrid.engine.memory import (
    LessMemory,
    TooLittleMemory,
    bytes_of,
    is_out_of_memory,
    until_it_fits,
)
from knockgrid.engine.setup import set_up
from knockgrid.runs.estimate import estimate
from knockgrid.runs.running import run
from knockgrid.runs.study import read_spec
from knockgrid.spec import Spec

CPU = "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"
WINDOWS = "DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"
ERRORS = {
    "cpu": RuntimeError(CPU),
    "windows": RuntimeError(WINDOWS),
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "mps": RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    "python": MemoryError(),
}
OTHERS = [RuntimeError("shapes do not fit"), ValueError("out of memory"), KeyboardInterrupt()]


def compared(one, other):
    """The largest difference of two tables in their numbers; all else must be equal."""
    numbers = [name for name in one if one[name].dtype == "float64"]
    labels = [name for name in one if name not in numbers]
    pd.testing.assert_frame_equal(one[labels], other[labels])
    assert (one[numbers].isna() == other[numbers].isna()).all().all()
    return (one[numbers] - other[numbers]).abs().max().max()


@pytest.fixture(scope="module")
def four():
    """Four prompts of one length, partners in pairs."""
    names = ("France", "Italy", "Brazil", "Paris")
    made = [kg.Prompt(f"The city of {n} is", spans={"subject": n}, id=n) for n in names]
    return [made[i].replace(swap=made[i ^ 1]) for i in range(4)]


@pytest.fixture
def rows():
    return kg.information_flow()


class Wall:
    """Raises an allocator's error in passes of more than so many rows, and notes all of them."""

    def __init__(self, monkeypatch, model, most, error):
        self.seen, self.hit, wall = [], 0, self
        point = model.blocks[1].hook_out
        forward = type(point).forward

        def watched(own, x):
            if own is point:
                wall.seen.append(len(x))
                if len(x) > most:
                    wall.hit += 1
                    raise ERRORS[error]
            return forward(own, x)

        monkeypatch.setattr(type(point), "forward", watched)


@pytest.fixture
def wall(monkeypatch, tiny_llama):
    return lambda most, error="cpu": Wall(monkeypatch, tiny_llama, most, error)


@pytest.fixture
def failing(monkeypatch):
    """Makes a function fail where `when` says so of its arguments, and notes these."""

    def plant(owner, name, when, error="cpu"):
        right, seen = getattr(owner, name), []

        def call(*given, **options):
            seen.append(given)
            if when(*given):
                raise ERRORS[error]
            return right(*given, **options)

        monkeypatch.setattr(owner, name, call)
        return seen

    return plant


@pytest.fixture
def goes_on(sweep, four, rows):
    """Sweeps without and with less memory: equal but for rounding, and said once, as is given."""

    def check(plant, **options):
        whole = sweep(four, rows, **options)
        planted = plant()
        with pytest.warns(LessMemory) as caught:
            cut = sweep(four, rows, **options)
        assert compared(whole, cut) < 1e-12
        (said,) = [one for one in caught if one.category is LessMemory]
        return planted, str(said.message)

    return check


def prompts_of(cells):
    return len({cell.prompt for cell in cells})


@pytest.mark.parametrize("error", [*ERRORS.values(), *OTHERS], ids=repr)
def test_every_allocator_is_understood_and_nothing_else(error):
    wrapped = RuntimeError("a hook failed")
    wrapped.__cause__ = error
    assert is_out_of_memory(error) is is_out_of_memory(wrapped) is (error not in OTHERS)


def test_a_real_allocation_of_an_exabyte_is_understood():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**58)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), ValueError("no")])
def test_only_memory_is_tried_again(error):
    def call():
        raise error

    with pytest.raises(type(error)):
        until_it_fits(call, lambda: pytest.fail("something was made smaller"), "prompts")


@pytest.mark.parametrize(
    ("executor", "error"),
    [("staircase", "cpu"), ("staircase", "cuda"), ("rectangle", "python"), ("free_run", "mps")],
)
def test_rows_are_halved_until_passes_fit(goes_on, wall, executor, error):
    free = {"mode": "free_run", "n_tokens": 2}
    options = free if executor == "free_run" else {"executor": executor}
    met, said = goes_on(lambda: wall(5, error), **options)
    assert met.hit >= 1
    assert "of up to" in said


def test_the_warning_gives_both_numbers(goes_on, wall):
    _, said = goes_on(lambda: wall(20))  # after preflight, whose passes are small
    assert "up to 52 rows now have at most 26" in said


def test_what_was_learned_lasts(goes_on, wall):
    """Batches of one prompt each: the first meets the wall, the others never do."""
    met, _ = goes_on(lambda: wall(5), batch=1)
    assert met.hit == 1  # thirteen rows, then six
    assert max(met.seen) == 7  # the staircase grew to seven rows when it was stopped
    assert max(met.seen[met.seen.index(7) + 1 :]) <= 5


def test_memory_that_runs_out_while_runs_are_recorded_halves_the_prompts(goes_on, failing):
    seen, said = goes_on(lambda: failing(room, "bind", lambda _, batch, *rest: len(batch) > 1))
    assert "4 prompts are computed 2 at a time" in said
    assert [len(batch) for _, batch, *_ in seen] == [4, 2, 1, 1, 1, 1]


def test_memory_that_runs_out_in_the_divergences_halves_the_rows(goes_on, failing):
    calls = iter(range(10**9))
    _, said = goes_on(lambda: failing(measure, "evaluate", lambda *_: next(calls) == 2))
    assert "52 rows now have at most 26" in said


def test_prompts_follow_where_rows_are_at_their_least(goes_on, failing):
    """A pass that fails as long as two prompts are bound, however few rows it has."""

    def several(self, model, runs, cells):
        return prompts_of(cells) > 1

    seen, _ = goes_on(lambda: failing(Staircase, "__call__", several))
    # With three rows three prompts are recorded at once, as each of them is a row there.
    fewer = [*((4, rows) for rows in (None, 26, 13, 6)), (3, 3), (2, 2)]
    assert [(prompts_of(cells), one.max_rows) for one, _, _, cells in seen] == fewer + [(1, 2)] * 4


def test_an_executor_without_rows_gets_fewer_prompts(goes_on, telling, failing):
    def many(self, model, runs, cells):
        return prompts_of(cells) > 2 and len(cells) > 40

    _, said = goes_on(lambda: failing(type(telling), "__call__", many), executor=telling)
    assert "4 prompts are computed 2 at a time" in said


def test_the_reference_gets_fewer_prompts_then_gives_up(sweep, four, rows, wall):
    sweep(four, rows, executor="reference")
    wall(0)
    with pytest.warns(LessMemory), pytest.raises(TooLittleMemory, match="smaller n_tokens"):
        sweep(four, rows, executor="reference")


def set_up_of(model, prompts, rows, **options):
    return set_up(model, prompts, rows, Spec(metrics=["js"], top=0, **options))


def test_progress_takes_back_what_was_discarded(tiny_llama, four, rows, wall):
    setup, told = set_up_of(tiny_llama, four, rows), []
    wall(5)
    with pytest.warns(LessMemory):
        room.collect(setup, setup.batches()[0], range(4), told.append)
    assert sum(told) == 4 * setup.n_cells


def test_a_run_folder_goes_on_with_less(sweep, four, rows, wall, tmp_path):
    whole, met = sweep(four, rows), wall(5)
    with pytest.warns(LessMemory) as said:
        cut = sweep(four, rows, out=tmp_path / "run", batch=2, noise_floor=False)
    assert compared(whole, cut) < 1e-12
    assert (met.hit >= 1, len(said)) == (True, 1)


def test_a_prompt_that_never_fits_is_recorded_as_failed(sweep, four, rows, failing, tmp_path):
    failing(room, "bind", lambda _, batch, *rest: "Italy" in {one.prompt.id for one in batch})
    with pytest.warns(LessMemory), pytest.raises(kg.runs.PromptsFailed) as caught:
        sweep(four, rows, noise_floor=False, out=tmp_path / "run")
    assert list(caught.value.failed) == ["Italy"]
    assert "TooLittleMemory: memory ran out even with one" in caught.value.failed["Italy"]


def test_preflight_takes_smaller_passes_and_keeps_the_executor(sweep, four, rows, wall, tiny_llama):
    """Running out of memory says nothing of an executor, so it may not be refused for it."""
    preflight._RECEIPTS.pop(tiny_llama, None)
    wall(4)
    with pytest.warns(LessMemory) as said:
        table = sweep(four, rows)
    preflight._RECEIPTS.pop(tiny_llama, None)
    assert table.attrs["knockgrid"]["receipt"]["executor"] == "staircase"
    assert len(said) == 1


@pytest.mark.parametrize("most", [2, 3, 7])
def test_max_rows_bounds_every_pass(sweep, four, rows, wall, most):
    """Those that record runs as well, of which there are three for every prompt here."""
    options = {"samples": 3, "layers": [0, 3]}
    whole, met = sweep(four, rows, **options), wall(10**6)
    cut = sweep(four, rows, max_rows=most, **options)
    assert max(met.seen) == most
    assert compared(whole, cut) < 1e-12


def test_max_rows_leaves_room_for_an_edge_patch(sweep, four):
    rows = [kg.edge_patch("last", "subject", source=kg.corrupted_run())]
    assert len(sweep(four, rows, max_rows=3)) == 16
    with pytest.raises(kg.InputError, match="edge patch has 3 rows"):
        sweep(four, rows, max_rows=2)


IN_BYTES = {"4GB": 4 * 10**9, "800MiB": 800 * 2**20, "1.5 kib": 1536, " 2TB ": 2 * 10**12}


@pytest.mark.parametrize(
    ("given", "expected"), [*IN_BYTES.items(), ("2000000000", 2 * 10**9), (7, 7), (None, None)]
)
def test_bytes(given, expected):
    assert bytes_of(given) == expected


BYTES = "write '4GB', '800MiB' or a number of bytes"
ROWS = "max_rows is .*whole number of at least 2"


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        *(("max_memory", n, BYTES) for n in ("", "GB", "4 apples", "-4GB", "0MB", "4GBB")),
        *(("max_memory", n, BYTES) for n in (0, -1, True)),
        ("max_memory", "2kB", r"max_memory is 2.0 kB, and prompt .* takes about"),
        *(("max_rows", n, ROWS) for n in (1, 0, -3, True)),
    ],
)
def test_other_bounds_are_refused(sweep, four, rows, name, given, says):
    with pytest.raises(kg.InputError, match=says):
        sweep(four, rows, **{name: given})


# What is allocated, from the allocator itself


def allocated(call):
    """Result, and the peak of what was allocated during a call, by the profiler's own count."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        result = call()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda one: one.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return result, peak


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tiny_tokenizer):
    """A random Llama of three blocks, a few megabytes a row, and a file of long prompts."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    path = tmp_path_factory.mktemp("saved")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(**sizes, **heads, vocab_size=400)).save_pretrained(path)
    tiny_tokenizer.save_pretrained(path)
    tail = " is located in the city of" * 6
    lines = [{"id": str(i), "text": f"The France {i}{tail}", "subject": "France"} for i in range(8)]
    (path / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.fixture(scope="module")
def broad(saved):
    return kg.load(saved)


@pytest.mark.parametrize(
    "options", [{}, {"executor": "rectangle"}, {"n_tokens": 2, "mode": "free_run"}]
)
def test_max_memory_holds_when_it_is_measured(broad, saved, rows, options):
    long = list(kg.read_prompts(saved / "prompts.jsonl"))[:3]

    def call(**more):
        given = {"progress": False, "metrics": ["js"], "layers": [0, 1, 2], **options}
        return kg.sweep(broad, long, rows[:2], **given, **more)

    setup = set_up_of(broad, long, rows[:2])
    longest = max(setup.ready, key=lambda one: len(one.tokens))
    settings = replace(setup.settings, n_tokens=options.get("n_tokens", 1))
    limit = int(1.3 * bounds.need(broad, settings, [longest]).least)
    call()  # preflight is over
    whole, free = allocated(call)
    cut, bound = allocated(lambda: call(max_memory=limit))
    assert bound <= limit < free
    assert compared(whole, cut) < 1e-5


def test_runs_are_counted_by_their_storage(tiny_llama, four, rows):
    """Runs are views of what was recorded for the whole batch, which must count once."""
    setup = set_up_of(tiny_llama, four, rows)
    bound = room.bind(setup.model, setup.batches()[0], range(4), setup.settings)
    assert bounds.bytes_held(bound.clean) == bounds.bytes_held(bound.clean[:1])
    need = bounds.need(tiny_llama, setup.settings, setup.batches()[0])
    held = bounds.bytes_held([*bound.runs, *bound.sources.values()])
    assert held == pytest.approx(4 * need.kept, rel=0.15)


# Identity: bounds are no part of it


def test_a_run_goes_on_under_other_bounds(sweep, four, rows, tmp_path):
    out = {"out": tmp_path / "run", "batch": 1}
    whole = sweep(four, rows, **out)
    (tmp_path / "run" / "shards" / "00002.parquet").unlink()
    cut = sweep(four, rows, max_rows=3, max_memory="1GB", **out)
    assert compared(whole, cut) < 1e-12


def test_the_digest_of_settings_has_no_bounds():
    plain, bound = Spec(), read_spec(None, {"max_rows": 4, "max_memory": "1GB"})
    assert plain.digest() == bound.digest() != Spec(batch=4).digest()
    assert bound.max_memory == 10**9


# What a sweep will take


def test_estimates_against_a_measured_run(saved, broad, tmp_path):
    """Disk within a fifth; memory an upper bound within three times, time of the right order."""
    config = Spec(model=str(saved), prompts=str(saved / "prompts.jsonl"), noise_floor=False)
    found, blind = (
        estimate(config, load=lambda: broad),
        estimate(config, 1.0, lambda: pytest.fail("weights were loaded")),
    )
    for name in ("parameters", "cells", "runs"):
        assert getattr(blind, name) == getattr(found, name)
    run(config, tmp_path / "warm", load=lambda: broad, progress=False)
    again = partial(run, config, tmp_path / "run", load=lambda: broad, progress=False)
    _, peak = allocated(again)
    disk = sum(path.stat().st_size for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert found.disk == pytest.approx(disk, rel=0.2)
    assert peak <= found.memory - found.weights <= 3 * peak
