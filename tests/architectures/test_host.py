"""The hosts' cache under every name that it has had: the staircase is chosen on each of them."""

import subprocess
import sys
import warnings

import pytest
import torch
from families import bridge
from mixtures import FAMILIES
from words import word_tokenizer

import knockgrid as kg
from knockgrid._run import run_hooked
from knockgrid.host.cache import NEW, OLD, cache_name, growing_cache, handed, held

BY_NAME = {family.name: family for family in FAMILIES}
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

    def neither(input_ids=None, **kwargs):
        return inner(input_ids=input_ids, **kwargs)

    model.original_model.forward = {"new": new, "old": old, "both": both, "none": neither}[takes]
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


@pytest.mark.parametrize("takes", ["new", "old", "both"])
def test_the_staircase_is_chosen_whatever_the_cache_is_called(hosts, prompts, takes):
    model = hosts[takes]
    before = [set(vars(part)) for part in model.modules()]
    table = kg.sweep(model, prompts[0], ROWS, n_tokens=2, progress=False)  # warnings are errors
    assert table.attrs["knockgrid"]["receipt"]["executor"] == "staircase"
    slow = kg.sweep(model, prompts[0], ROWS, n_tokens=2, progress=False, executor="reference")
    assert float((table["js"] - slow["js"]).abs().max()) < 1e-12
    assert (table.groupby("intervention")["js"].max() > 1e-6).all()
    assert [set(vars(part)) for part in model.modules()] == before
    free = kg.sweep(model, prompts[0], ROWS[0], n_tokens=3, mode="free_run", progress=False)
    assert float(free["js"].max()) > 1e-6


@pytest.mark.parametrize("takes", ["new", "old", "both"])
def test_a_pass_that_goes_on_equals_the_whole_pass(hosts, takes):
    model, ids = hosts[takes], torch.tensor([[1, 5, 6, 7, 8]])
    past, found = growing_cache(), []
    with torch.no_grad():
        for part in (ids[:, :3], ids[:, 3:]):
            with handed(model, past) as given:
                found.append(model(part, **given))
        whole = model(ids)
    assert [keys.shape[2] for keys, _ in held(past)] == [5] * 3
    assert float((torch.cat(found, 1) - whole).abs().max()) < 1e-12


def test_what_was_put_on_for_a_pass_comes_off_when_it_fails(hosts):
    model = hosts["new"]
    before = [set(vars(part)) for part in model.modules()]
    with pytest.raises(IndexError), torch.no_grad():  # no such token
        run_hooked(model, torch.tensor([[10**6]]), [], growing_cache())
    with handed(model, growing_cache()):
        assert [set(vars(part)) for part in model.modules()] != before
    assert [set(vars(part)) for part in model.modules()] == before


def test_the_package_is_imported_where_the_classes_of_the_cache_are_gone():
    code = (
        "import transformers.cache_utils as gone; del gone.DynamicLayer\n"
        "import knockgrid as kg; kg.sweep, kg.staircase\n"
        "from knockgrid.host import cache; assert not cache.THERE"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
