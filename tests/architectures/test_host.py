"""The hosts' cache under every name that it has had: the staircase is chosen on each of them.

`nox -s newest` runs this file on the newest packages.
"""

import json
import subprocess
import sys
import warnings
from inspect import signature
from pathlib import Path

import pytest
import torch
from families import bridge
from mixtures import BY_NAME
from transformers import LlamaForCausalLM
from words import word_tokenizer

import knockgrid as kg
from knockgrid.engine import slower as _slower
from knockgrid.engine.slower import FallbackWarning
from knockgrid.host.cache import (
    NEW,
    OLD,
    cache_arguments,
    cache_name,
    growing_cache,
    keys_and_values,
)
from knockgrid.passes.run import run_hooked

# Blocks of a host that has the newer name lose what attention is given under the older one.
TAKES = ["new", "both", *(["old"] if OLD in signature(LlamaForCausalLM.forward).parameters else [])]
ROWS = [kg.patch("resid_post", "subject"), kg.knockout(window=1), kg.edge_patch(window=1)]


def hosted(takes, hands):
    """A Llama of another `transformers`: what its forward takes, and what its blocks hand on."""
    model = bridge(BY_NAME["Llama"], word_tokenizer())
    inner, real = model.original_model.forward, cache_name(model)

    def forward(input_ids, past, use_cache, kwargs):
        found = {} if past is None else {real: past}
        return inner(input_ids=input_ids, use_cache=use_cache, **found, **kwargs)

    def new(input_ids=None, cache=None, use_cache=None, **kwargs):
        assert OLD not in kwargs
        return forward(input_ids, cache, use_cache, kwargs)

    def old(input_ids=None, past_key_values=None, use_cache=None, **kwargs):
        assert NEW not in kwargs
        return forward(input_ids, past_key_values, use_cache, kwargs)

    def both(input_ids=None, cache=None, past_key_values=None, use_cache=None, **kwargs):
        if past_key_values is not None:
            warnings.warn("`past_key_values` is deprecated", FutureWarning, stacklevel=2)
        return forward(input_ids, past_key_values if cache is None else cache, use_cache, kwargs)

    def none(input_ids=None, **kwargs):
        return inner(input_ids=input_ids, **kwargs)

    model.original_model.forward = {"new": new, "old": old, "both": both, "none": none}[takes]
    for block in model.blocks:
        block.attn.forward = renaming(block.attn, hands)
    return model


def renaming(part, hands):
    """The forward of a part whose block calls the cache what another version calls it."""

    def forward(*args, **kwargs):
        given = {hands if name in (NEW, OLD) else name: each for name, each in kwargs.items()}
        return type(part).forward(part, *args, **given)

    return forward


@pytest.fixture(scope="module")
def hosts():
    kinds = {"new": NEW, "old": OLD, "both": NEW, "none": OLD}
    return {takes: hosted(takes, hands) for takes, hands in kinds.items()}


@pytest.mark.parametrize("takes", TAKES)
def test_the_staircase_is_chosen_whatever_the_cache_is_called(hosts, prompts, takes):
    model = hosts[takes]
    # first, as TransformerLens notes some things on its modules in every pass
    slow = kg.sweep(model, prompts[0], ROWS, n_tokens=2, progress=False, executor="reference")
    before = [set(vars(part)) for part in model.modules()]
    table = kg.sweep(model, prompts[0], ROWS, n_tokens=2, progress=False)  # warnings are errors
    assert table.attrs["knockgrid"]["receipt"]["executor"] == "staircase"
    assert float((table["js"] - slow["js"]).abs().max()) < 1e-12
    assert (table.groupby("intervention")["js"].max() > 1e-6).all()
    assert [set(vars(part)) for part in model.modules()] == before
    free = kg.sweep(model, prompts[0], ROWS[0], n_tokens=3, mode="free_run", progress=False)
    assert float(free["js"].max()) > 1e-6


@pytest.mark.parametrize("takes", TAKES)
def test_a_pass_that_goes_on_equals_the_whole_pass(hosts, takes):
    model, ids = hosts[takes], torch.tensor([[1, 5, 6, 7, 8]])
    past, found = growing_cache(), []
    with torch.no_grad():
        for part in (ids[:, :3], ids[:, 3:]):
            with cache_arguments(model, past) as given:
                found.append(model(part, **given))
        whole = model(ids)
    assert [keys.shape[2] for keys, _ in keys_and_values(past)] == [5] * 3
    assert float((torch.cat(found, 1) - whole).abs().max()) < 1e-12


def test_what_was_put_on_for_a_pass_comes_off_when_it_fails(hosts):
    model = hosts["new"]
    before = [set(vars(part)) for part in model.modules()]
    with pytest.raises(IndexError), torch.no_grad():  # no such token
        run_hooked(model, torch.tensor([[10**6]]), [], growing_cache())
    with cache_arguments(model, growing_cache()):
        assert [set(vars(part)) for part in model.modules()] != before
    assert [set(vars(part)) for part in model.modules()] == before


def test_the_package_is_imported_where_the_classes_of_the_cache_are_gone():
    code = (
        "import transformers.cache_utils as gone; del gone.DynamicLayer\n"
        "import knockgrid as kg; kg.sweep, kg.executors.staircase\n"
        "from knockgrid.host import cache; assert not cache.THERE"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


EIGHT = (
    *("GPT-2", "GPT-NeoX, Pythia", "Llama", "Mistral", "Qwen 3", "Gemma 2", "Phi-3"),
    "DeepSeek V3",
)


@pytest.mark.parametrize("name", EIGHT)
def test_the_staircase_is_chosen_on_eight_families(name, boot, prompts):
    model, rows = boot(BY_NAME[name]), kg.patch("resid_post", "subject")
    table = kg.sweep(model, prompts[1], rows, progress=False)  # warnings are errors
    assert table.attrs["knockgrid"]["receipt"]["executor"] == "staircase"
    slow = kg.sweep(model, prompts[1], rows, progress=False, executor="reference")
    assert float((table["js"] - slow["js"]).abs().max()) < max(1e-11, BY_NAME[name].within)
    assert float(table["js"].max()) > 1e-6


STORED = Path(__file__).parents[1] / "data" / "demo_rows.json"


def test_the_demo_gives_the_rows_that_the_reference_gave_with_pinned_versions(demo_model):
    """In float32; written down by executor="reference" with transformers 5.23 and PyTorch 2.13."""
    france, italy = (
        kg.Prompt(f"The capital of {name} is", spans={"subject": name}, id=name.lower())
        for name in ("France", "Italy")
    )
    rows = kg.information_flow(kg.corrupted_run(by=kg.swap()))
    table = kg.sweep(demo_model, france.replace(swap=italy), rows, progress=False)
    assert table.attrs["knockgrid"]["receipt"]["executor"] == "staircase"
    stored = json.loads(STORED.read_text(encoding="utf-8"))
    assert [len(values) for values in stored.values()] == [30, 30, 30]
    for name, values in stored.items():
        row = table[table["intervention"] == name].sort_values("layer")["js"]
        assert row.tolist() == pytest.approx(values, abs=5e-6, rel=0)
        assert max(values) > 0.01


class TestSlow:
    """What is said and asked for where the hosts' versions keep the staircase away."""

    def test_one_line_says_why_what_it_costs_and_what_helps(self, hosts, prompts):
        with pytest.warns(FallbackWarning) as said:
            table = kg.sweep(hosts["none"], prompts[0], ROWS[0], progress=False)
        assert table.attrs["knockgrid"]["receipt"]["executor"] == "reference"
        (one,) = (str(each.message) for each in said if each.category is FallbackWarning)
        assert "\n" not in one
        assert "takes no cache" in one
        assert "times as long" in one
        assert "models of this kind have a cache, but transformers 5" in one
        assert 'pip install "transformers==' in one

    def test_a_long_one_asks_for_the_reference_executor(self, hosts, prompts, monkeypatch):
        monkeypatch.setattr(_slower, "passed", lambda model, ids: 60.0 + len(ids))
        with pytest.raises(kg.InputError, match=r"times as long.*--set executor=reference"):
            kg.sweep(hosts["none"], prompts, ROWS, progress=False)
        kg.sweep(hosts["none"], prompts[0], ROWS[0], progress=False, executor="reference")

    def test_a_kind_of_model_without_cache_asks_for_nothing(self, boot, prompts, monkeypatch):
        monkeypatch.setattr(_slower, "passed", lambda model, ids: 60.0 + len(ids))
        with pytest.warns(FallbackWarning, match="no version or option changes that"):
            kg.sweep(boot(BY_NAME["Mamba"]), prompts[0], ROWS[0], progress=False)

    def test_the_estimate_follows_from_the_passes(self, boot, prompts, monkeypatch):
        """A pass costs 1 s and 1 s a row: 3 cells are 6 s, or 1 + 2.5 s as a staircase."""
        from agree import prepared

        monkeypatch.setattr(_slower, "passed", lambda model, ids: 1.0 + len(ids))
        model = boot(BY_NAME["Llama"])
        ready, settings = prepared(model, prompts[:1], ROWS[:1])
        found = _slower.cost(model, ready, settings, whole=True)
        assert (found.seconds, found.times) == (pytest.approx(6), pytest.approx(6 / 3.5))
