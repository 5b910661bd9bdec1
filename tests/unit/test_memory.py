"""Memory: running out of it, the bounds on it, and what a sweep of settings will take."""

import json
from dataclasses import replace
from functools import partial

import pandas as pd
import pytest
import torch

import knockgrid.engine.bounds as bounds
import knockgrid.engine.collect as room
from knockgrid.engine.memory import (
    LessMemory,
    TooLittleMemory,
    bytes_of,
    is_out_of_memory,
    until_it_fits,
)

CPU = "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"
ERRORS = {
    "cpu": RuntimeError(CPU),
    "windows": RuntimeError(
        "DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"
    ),
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "mps": RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
    "python": MemoryError(),
}


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
    import knockgrid as kg

    names = ("France", "Italy", "Brazil", "Paris")
    made = [kg.Prompt(f"The city of {n} is", spans={"subject": n}, id=n) for n in names]
    return [made[i].replace(swap=made[i ^ 1]) for i in range(4)]


@pytest.fixture
def rows():
    import knockgrid as kg

    return kg.information_flow()


class Wall:
    """Raises an allocator's error in passes of more than so many rows, and notes all of them."""

    def __init__(self, monkeypatch, model, most, error=ERRORS["cpu"], hook="mlp.hook_out"):
        self.seen, self.most, self.error, self.hit = [], most, error, 0
        point = model.blocks[1].hook_out
        forward = type(point).forward
        wall = self

        def watched(own, x):
            if own is point:
                wall.seen.append(len(x))
                if len(x) > wall.most:
                    wall.hit += 1
                    raise wall.error
            return forward(own, x)

        monkeypatch.setattr(type(point), "forward", watched)


@pytest.fixture
def wall(monkeypatch, tiny_llama):
    def build(most, **options):
        return Wall(monkeypatch, tiny_llama, most, **options)

    return build


@pytest.mark.parametrize("name", ERRORS)
def test_every_allocator_is_understood(name):
    assert is_out_of_memory(ERRORS[name])
    wrapped = RuntimeError("a hook failed")
    wrapped.__cause__ = ERRORS[name]
    assert is_out_of_memory(wrapped)


@pytest.mark.parametrize(
    "other", [RuntimeError("shapes do not fit"), ValueError("out of memory"), KeyboardInterrupt()]
)
def test_other_errors_are_not(other):
    assert not is_out_of_memory(other)


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
def test_rows_are_halved_until_passes_fit(sweep, four, rows, wall, executor, error):
    options = {"mode": "free_run", "n_tokens": 2} if executor == "free_run" else {}
    options |= {} if executor == "free_run" else {"executor": executor}
    whole = sweep(four, rows, **options)
    met = wall(5, error=ERRORS[error])
    with pytest.warns(LessMemory) as said:
        cut = sweep(four, rows, **options)
    assert compared(whole, cut) < 1e-12
    assert met.hit >= 1
    assert len(said) == 1
    assert "of up to" in str(said[0].message)


def test_the_warning_gives_both_numbers(sweep, four, rows, wall):
    sweep(four, rows)  # so that preflight, whose passes are small, is not in the way
    wall(20)
    with pytest.warns(LessMemory, match="up to 52 rows now have at most 26"):
        sweep(four, rows)


def test_what_was_learned_lasts(sweep, four, rows, wall):
    """Batches of one prompt each: the first meets the wall, the others never do."""
    sweep(four, rows)
    met = wall(5)
    with pytest.warns(LessMemory):
        sweep(four, rows, batch=1)
    assert met.hit == 1  # thirteen rows, then six
    assert max(met.seen) == 7  # the staircase grew to seven rows when it was stopped
    assert max(met.seen[met.seen.index(7) + 1 :]) <= 5


def test_memory_that_runs_out_while_runs_are_recorded_halves_the_prompts(
    sweep, four, rows, monkeypatch
):
    whole, right, seen = sweep(four, rows), room.bind, []

    def bind(model, batch, *rest):
        seen.append(len(batch))
        if len(batch) > 1:
            raise ERRORS["cuda"]
        return right(model, batch, *rest)

    monkeypatch.setattr(room, "bind", bind)
    with pytest.warns(LessMemory, match="4 prompts are computed 2 at a time") as said:
        cut = sweep(four, rows)
    assert (seen, len(said)) == ([4, 2, 1, 1, 1, 1], 1)
    assert compared(whole, cut) < 1e-12


def test_memory_that_runs_out_in_the_divergences_halves_the_rows(sweep, four, rows, monkeypatch):
    import knockgrid.engine.measure as measure

    whole, right, calls = sweep(four, rows), measure.evaluate, []

    def evaluate(*given, **options):
        calls.append(0)
        if len(calls) == 3:
            raise ERRORS["cpu"]
        return right(*given, **options)

    monkeypatch.setattr(measure, "evaluate", evaluate)
    with pytest.warns(LessMemory, match="52 rows now have at most 26"):
        cut = sweep(four, rows)
    assert compared(whole, cut) < 1e-12


def test_prompts_follow_where_rows_are_at_their_least(sweep, four, rows, monkeypatch):
    """A pass that fails as long as two prompts are bound, however few rows it has."""
    from knockgrid.engine.executors.staircase import Staircase

    whole, right, seen = sweep(four, rows), Staircase.__call__, []

    def call(self, model, runs, cells):
        seen.append((len({cell.prompt for cell in cells}), self.max_rows))
        if len({cell.prompt for cell in cells}) > 1:
            raise ERRORS["cpu"]
        return right(self, model, runs, cells)

    monkeypatch.setattr(Staircase, "__call__", call)
    with pytest.warns(LessMemory) as said:
        cut = sweep(four, rows)
    assert compared(whole, cut) < 1e-12
    # With three rows three prompts are recorded at once, as each of them is a row there.
    fewer = [*((4, rows) for rows in (None, 26, 13, 6)), (3, 3), (2, 2)]
    assert seen == [*fewer, *[(1, 2)] * 4]
    assert len(said) == 1


def test_an_executor_without_rows_gets_fewer_prompts(sweep, four, rows, telling, monkeypatch):
    whole, right = sweep(four, rows, executor=telling), type(telling).__call__

    def call(self, model, runs, cells):
        if len({cell.prompt for cell in cells}) > 2 and len(cells) > 40:
            raise ERRORS["mps"]
        return right(self, model, runs, cells)

    monkeypatch.setattr(type(telling), "__call__", call)
    with pytest.warns(LessMemory, match="4 prompts are computed 2 at a time"):
        cut = sweep(four, rows, executor=telling)
    assert compared(whole, cut) < 1e-12


def test_the_reference_gets_fewer_prompts_then_gives_up(sweep, four, rows, wall):
    sweep(four, rows, executor="reference")
    wall(0)
    with pytest.warns(LessMemory), pytest.raises(TooLittleMemory, match="smaller n_tokens"):
        sweep(four, rows, executor="reference")


def test_progress_takes_back_what_was_discarded(tiny_llama, four, rows, wall):
    setup = set_up_of(tiny_llama, four, rows)
    told = []
    wall(5)
    with pytest.warns(LessMemory):
        room.collect(setup, setup.batches()[0], range(4), told.append)
    assert sum(told) == 4 * setup.n_cells


def set_up_of(model, prompts, rows, **options):
    from knockgrid.engine.setup import set_up
    from knockgrid.spec import Spec

    return set_up(model, prompts, rows, Spec(metrics=["js"], top=0, **options))


def test_a_run_folder_goes_on_with_less(tiny_llama, four, rows, wall, tmp_path):
    import knockgrid as kg

    whole = kg.sweep(tiny_llama, four, rows, progress=False)
    met = wall(5)
    with pytest.warns(LessMemory) as said:
        cut = kg.sweep(
            tiny_llama, four, rows, progress=False, out=tmp_path / "run", batch=2, noise_floor=False
        )
    assert compared(whole, cut) < 1e-12
    assert (met.hit >= 1, len(said)) == (True, 1)


def test_a_prompt_that_never_fits_is_recorded_as_failed(
    tiny_llama, four, rows, monkeypatch, tmp_path
):
    import knockgrid as kg

    right = room.bind

    def bind(model, batch, *rest):
        if any(one.prompt.id == "Italy" for one in batch):
            raise ERRORS["cpu"]
        return right(model, batch, *rest)

    monkeypatch.setattr(room, "bind", bind)
    with pytest.warns(LessMemory), pytest.raises(kg.runs.PromptsFailed) as caught:
        kg.sweep(tiny_llama, four, rows, progress=False, noise_floor=False, out=tmp_path / "run")
    assert list(caught.value.failed) == ["Italy"]
    assert "TooLittleMemory: memory ran out even with one" in caught.value.failed["Italy"]


def test_preflight_takes_smaller_passes_and_keeps_the_executor(sweep, four, rows, wall, tiny_llama):
    """Running out of memory says nothing of an executor, so it may not be refused for it."""
    from knockgrid.engine import preflight as _preflight

    _preflight._RECEIPTS.pop(tiny_llama, None)
    wall(4)
    with pytest.warns(LessMemory) as said:
        table = sweep(four, rows)
    _preflight._RECEIPTS.pop(tiny_llama, None)
    assert table.attrs["knockgrid"]["receipt"]["executor"] == "staircase"
    assert len(said) == 1


@pytest.mark.parametrize("most", [2, 3, 7])
def test_max_rows_bounds_every_pass(sweep, four, rows, wall, most):
    """Those that record runs as well, of which there are three for every prompt here."""
    whole = sweep(four, rows, samples=3, layers=[0, 3])
    met = wall(10**6)
    cut = sweep(four, rows, samples=3, layers=[0, 3], max_rows=most)
    assert max(met.seen) == most
    assert compared(whole, cut) < 1e-12


def test_max_rows_leaves_room_for_an_edge_patch(sweep, four):
    import knockgrid as kg

    rows = [kg.edge_patch("last", "subject", source=kg.corrupted_run())]
    assert len(sweep(four, rows, max_rows=3)) == 16
    with pytest.raises(kg.InputError, match="edge patch has 3 rows"):
        sweep(four, rows, max_rows=2)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("4GB", 4 * 10**9),
        ("800MiB", 800 * 2**20),
        ("1.5 kib", 1536),
        (" 2TB ", 2 * 10**12),
        ("2000000000", 2 * 10**9),
        (7, 7),
        (None, None),
    ],
)
def test_bytes(given, expected):
    assert bytes_of(given) == expected


@pytest.mark.parametrize("given", ["", "GB", "4 apples", "-4GB", 0, -1, True, "0MB", "4GBB"])
def test_other_bytes_are_refused(sweep, four, rows, given):
    import knockgrid as kg

    with pytest.raises(kg.InputError, match="write '4GB', '800MiB' or a number of bytes"):
        sweep(four, rows, max_memory=given)


@pytest.mark.parametrize("given", [1, 0, -3, True])
def test_other_rows_are_refused(sweep, four, rows, given):
    import knockgrid as kg

    with pytest.raises(kg.InputError, match="max_rows is .*whole number of at least 2"):
        sweep(four, rows, max_rows=given)


def test_too_small_a_bound_is_refused_with_what_is_needed(sweep, four, rows):
    import knockgrid as kg

    with pytest.raises(kg.InputError, match=r"max_memory is 2.0 kB, and prompt .* takes about"):
        sweep(four, rows, max_memory="2kB")


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
def broad(tiny_tokenizer):
    """A random Llama of three blocks, a few megabytes a row."""
    return llama_of(tiny_tokenizer, 3, 96, 256)


def llama_of(tokenizer, depth, width, mlp, heads=4):
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": width, "intermediate_size": mlp, "num_hidden_layers": depth}
    config = LlamaConfig(
        **sizes, vocab_size=400, num_attention_heads=heads, num_key_value_heads=heads // 2
    )
    config._attn_implementation = "eager"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval()
    return TransformerBridge.boot_transformers(
        "broad", hf_model=model, tokenizer=tokenizer, dtype=torch.float32, device="cpu"
    )


@pytest.fixture(scope="module")
def long():
    """Three prompts of 56 tokens and more, their subject at the beginning."""
    import knockgrid as kg

    tail = "is located in the city of" * 6
    return [
        kg.Prompt(f"The France {i} {tail}", spans={"subject": "France"}, id=str(i))
        for i in range(3)
    ]


@pytest.mark.parametrize(
    "options", [{}, {"executor": "rectangle"}, {"n_tokens": 2, "mode": "free_run"}]
)
def test_max_memory_holds_when_it_is_measured(broad, long, rows, options):
    import knockgrid as kg

    def call(**more):
        given = {"progress": False, "metrics": ["js"], "layers": [0, 1, 2], **options}
        return kg.sweep(broad, long, rows[:2], **given, **more)

    setup = set_up_of(broad, long, rows[:2])
    longest = max(setup.ready, key=lambda one: len(one.tokens))
    n_tokens = options.get("n_tokens", 1)
    settings = replace(setup.settings, n_tokens=n_tokens)
    least = bounds.need(broad, settings, [longest], setup.settings.keep_kv).least
    limit = int(1.3 * least)
    call()  # preflight is over
    whole, free = allocated(call)
    cut, bound = allocated(lambda: call(max_memory=limit))
    assert bound <= limit < free
    assert compared(whole, cut) < 1e-5


def test_runs_are_counted_by_their_storage(tiny_llama, four, rows):
    """Runs are views of what was recorded for the whole batch, which must count once."""
    setup = set_up_of(tiny_llama, four, rows)
    bound = bounded_of(setup)
    assert bounds.bytes_held(bound.clean) == bounds.bytes_held(bound.clean[:1])
    need = bounds.need(tiny_llama, setup.settings, setup.batches()[0], True)
    held = bounds.bytes_held(bound.every_run)
    assert held == pytest.approx(4 * need.kept, rel=0.15)


def bounded_of(setup):
    return room.bind(setup.model, setup.batches()[0], range(4), setup.settings)


# Identity: bounds are no part of it


def test_a_run_goes_on_under_other_bounds(tiny_llama, four, rows, tmp_path):
    import knockgrid as kg

    out = {"out": tmp_path / "run", "progress": False}
    whole = kg.sweep(tiny_llama, four, rows, batch=1, **out)
    (tmp_path / "run" / "shards" / "00002.parquet").unlink()
    cut = kg.sweep(tiny_llama, four, rows, batch=1, max_rows=3, max_memory="1GB", **out)
    assert compared(whole, cut) < 1e-12


def test_the_digest_of_settings_has_no_bounds():
    from knockgrid.runs.study import read_spec
    from knockgrid.spec import Spec

    plain, bound = Spec(), read_spec(None, {"max_rows": 4, "max_memory": "1GB"})
    assert plain.digest() == bound.digest()
    assert bound.max_memory == 10**9
    assert plain.digest() != Spec(batch=4).digest()


# What a sweep will take


@pytest.fixture(scope="module")
def seven(tmp_path_factory):
    """The config of a model of seven billion parameters, and nothing else."""
    from transformers import LlamaConfig

    path = tmp_path_factory.mktemp("seven")
    sizes = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32}
    LlamaConfig(**sizes, num_attention_heads=32, vocab_size=32000).save_pretrained(path)
    return path


def never():
    pytest.fail("weights were loaded")


def test_seven_billion_parameters_from_the_config_alone(seven):
    from knockgrid.runs.estimate import estimate
    from knockgrid.spec import Spec

    config = Spec(model=str(seven), dtype="bfloat16", limit=100)
    found = estimate(config, 100.0, never)
    assert found.parameters == pytest.approx(6.74e9, rel=0.01)
    assert found.weights == 2 * found.parameters
    assert (found.prompts, found.cells) == (100, 100 * 3 * 32)
    assert any("100 TFLOP/s that were given" in one for one in found.assumed)
    assert any("no tokenizer" in one for one in found.assumed)
    half = estimate(config, 1000.0, never)
    assert half.seconds < found.seconds
    text = str(found)
    for part in ("100 prompts, 9600 cells, about", "6.74 billion", "13.5 GB of weights", "disk:"):
        assert part in text


@pytest.mark.parametrize("flops", [0.0, -1.0])
def test_no_device_computes_nothing(seven, flops):
    from knockgrid import InputError
    from knockgrid.runs.estimate import estimate
    from knockgrid.spec import Spec

    with pytest.raises(InputError, match="give the device's TFLOP/s"):
        estimate(Spec(model=str(seven)), flops, never)


def test_a_folder_without_a_config_is_refused(tmp_path):
    from knockgrid import InputError
    from knockgrid.runs.estimate import estimate
    from knockgrid.spec import Spec

    with pytest.raises(InputError, match=r"config of model .* could not be read"):
        estimate(Spec(model=str(tmp_path)), load=never)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tiny_tokenizer, broad):
    """The broad model in a folder, with its tokenizer and a file of long prompts."""
    path = tmp_path_factory.mktemp("saved")
    config = broad.original_model.config
    from transformers import LlamaForCausalLM

    LlamaForCausalLM(config).save_pretrained(path / "model")
    tiny_tokenizer.save_pretrained(path / "model")
    tail = " is located in the city of" * 5
    lines = [{"id": str(i), "text": f"The France {i}{tail}", "subject": "France"} for i in range(8)]
    (path / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.mark.parametrize("top", [0, 10, 20])
def test_the_disk_of_a_run(demo_model, tmp_path, top):
    """Within a tenth; the most probable tokens, which a report needs, take as much as the rest."""
    from knockgrid.runs.estimate import estimate
    from knockgrid.runs.running import run
    from knockgrid.spec import Spec

    config = Spec(
        relations=("country_language", "element_symbol"), limit=8, top=top, noise_floor=False
    )
    found = estimate(config, load=lambda: demo_model)
    run(config, tmp_path / "run", load=lambda: demo_model, progress=False)
    assert found.disk == pytest.approx(bytes_in(tmp_path / "run"), rel=0.1)


def bytes_in(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_estimates_against_a_measured_run(saved, tmp_path):
    """Disk within a fifth; memory an upper bound within three times, time of the right order."""
    import knockgrid as kg
    from knockgrid.runs.estimate import estimate
    from knockgrid.runs.running import run
    from knockgrid.spec import Spec

    config = Spec(
        model=str(saved / "model"), prompts=str(saved / "prompts.jsonl"), noise_floor=False
    )
    model = kg.load(saved / "model")
    found = estimate(config, load=lambda: model)
    blind = estimate(config, 1.0, never)
    assert (blind.parameters, blind.cells, blind.runs) == (
        found.parameters,
        found.cells,
        found.runs,
    )
    run(config, tmp_path / "warm", load=lambda: model, progress=False)
    again = partial(run, config, tmp_path / "run", load=lambda: model, progress=False)
    _, peak = allocated(again)
    assert found.disk == pytest.approx(bytes_in(tmp_path / "run"), rel=0.2)
    assert peak <= found.memory - found.weights <= 3 * peak
