"""Prompts that raise: recorded, tried again, and told apart from a fault of the run."""

import pickle

import pandas as pd
import pytest

import knockgrid as kg
from knockgrid.engine import collect as _collect
from knockgrid.engine.memory import TooLittleMemory
from knockgrid.runs import PromptsFailed
from knockgrid.runs.work import Work
from knockgrid.table.table import metadata_of


@pytest.fixture(scope="module")
def pairs():
    """Two pairs of prompts of equal length each."""
    texts = {"a": "Rome is in", "b": "Rome is in", "c": "Rome is there x", "d": "Rome is there x"}
    return [kg.Prompt(t, spans={"subject": "Rome"}, id=i) for i, t in texts.items()]


@pytest.fixture(scope="module")
def run(tiny_llama, pairs):
    """A sweep of both pairs, a shard each, in memory or into a folder."""
    mean = kg.patch("mlp_out", "last", kg.mean_activation())
    rows = [kg.knockout(), kg.patch("resid_post", "subject"), mean]

    def go(out=None, **options):
        plain = {"noise_floor": False, "top": 0} if out else {}
        options = {"layers": [2, 0], "batch": 2, "progress": False, **plain, **options}
        return kg.sweep(tiny_llama, pairs, rows, out=out, **options)

    return go


@pytest.fixture(scope="module")
def undisturbed(run):
    return run()


@pytest.fixture
def raising(monkeypatch):
    """Call it with ids of prompts: from then on they raise; without any, none does."""
    inner, other = _collect.bind, RuntimeError("no such prompt")

    def plant(*ids, error=other):
        def bind(model, batch, places, settings):
            if any(one.prompt.id in ids for one in batch):
                raise error
            return inner(model, batch, places, settings)

        monkeypatch.setattr(_collect, "bind", bind)

    return plant


def same(one, other):
    """Whether two tables are the same, to the last bit and entry."""
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    return metadata_of(one) == metadata_of(other)


def test_a_part_without_shards_and_a_part_with_failures(
    run, undisturbed, raising, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    empty = run(out, shard="8/8")
    assert (len(empty), metadata_of(empty)["unfinished"]["finished"]) == (0, 0)
    raising("a")
    for part in ("1/2", "2/2"):  # the second one ends the run
        with pytest.raises(PromptsFailed, match="'a'"):
            run(out, shard=part)
    with pytest.raises(kg.InputError, match="1 prompt of .* failed"):
        kg.runs.compact(out)
    raising()
    with monkeypatch.context() as patch:  # mended, and killed before its end
        patch.setattr("knockgrid.runs.running.finish", lambda folder: None)
        with pytest.raises(PromptsFailed):
            run(out)
    there = kg.open_run(out)
    assert "failed" not in metadata_of(there)
    assert same(there, undisturbed)


def test_a_pair_that_always_raises_does_not_hold_up_its_run(
    run, undisturbed, raising, tmp_path, monkeypatch
):
    """Once anything was finished, the fault is the prompts'."""
    monkeypatch.setattr("random.SystemRandom.sample", lambda self, numbers, n: sorted(numbers))
    raising("c", "d")
    for _ in range(2):  # the second time only that shard is missing
        with pytest.raises(PromptsFailed) as caught:
            run(tmp_path / "run")
        assert set(caught.value.failed) == {"c", "d"}
    raising()
    assert same(run(tmp_path / "run"), undisturbed)


def test_a_fault_of_the_run_ends_it(run, undisturbed, raising, tmp_path):
    """When the first prompts all raise the same, the others would as well."""
    raising(*"abcd")
    with pytest.raises(RuntimeError, match="no such prompt"):
        run(tmp_path / "run")
    raising()
    assert same(run(tmp_path / "run"), undisturbed)


def test_too_little_memory_is_the_prompts_fault(run, raising, tmp_path):
    raising(*"abcd", error=TooLittleMemory("prompts of 5 tokens"))
    with pytest.raises(PromptsFailed) as caught:
        run(tmp_path / "run")
    assert set(caught.value.failed) == set("abcd")


def test_errors_that_travel_are_said_once():
    for error in (TooLittleMemory("prompts"), PromptsFailed({"a": "no"}, "runs/x")):
        assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_progress_counts_no_cell_twice(run, tmp_path, monkeypatch):
    told, compute, inner = [], Work.carry_out, _collect.finished

    def finished(model, bound, meter, executor, at_once):
        for i, one in enumerate(inner(model, bound, meter, executor, at_once)):
            if i == 3 and len(bound.clean) == 2:
                raise RuntimeError("in the middle")
            yield one

    monkeypatch.setattr(Work, "carry_out", lambda self, i, done=None: compute(self, i, told.append))
    monkeypatch.setattr(_collect, "finished", finished)
    run(tmp_path / "run")
    assert sum(told) == 4 * 3 * 2  # prompts, rows, layers
