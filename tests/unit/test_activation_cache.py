"""Runs from TransformerLens's caches and caches from runs: nothing is lost or guessed."""

import copy

import jaxtyping
import pytest
import torch

import knockgrid as kg
from knockgrid.divergences.evaluate import evaluate
from knockgrid.edits.intervention import Cell
from knockgrid.engine.record import record_clean
from knockgrid.engine.settings import Settings
from knockgrid.passes.edit import Edit
from knockgrid.passes.prepared import prepare
from knockgrid.prompts.positions import resolve

ACTS = ("resid_pre", "resid_post", "attn_out", "mlp_out", "q", "k", "v", "z", "pattern")


@pytest.fixture(params=["tiny_llama", "tiny_gpt2"])
def model(request):
    return request.getfixturevalue(request.param)


def cached(model, prompt, bos=True, **options):
    """Logits and cache of TransformerLens, and the Run that they become."""
    logits, cache = model.run_with_cache(prompt.text, prepend_bos=bos)
    return logits, cache, kg.passes.from_activation_cache(cache, logits, prompt, model, **options)


def same_acts(one, other):
    assert set(one.acts) == set(other.acts)
    return all(torch.equal(one.acts[site], act) for site, act in other.acts.items())


def refused(says, *args, **options):
    with pytest.raises(kg.InputError, match=says):
        kg.passes.from_activation_cache(*args, **options)


@pytest.mark.parametrize("bos", [True, False])
def test_values_are_those_of_the_cache_there_and_back(model, tower, bos):
    logits, cache, run = cached(model, tower, bos)
    assert run.tokens.bos == int(bos)
    assert run.n_prompt == logits.shape[1] == len(run.ids)
    assert run.ids.tolist() == model.to_tokens(tower.text, prepend_bos=bos)[0].tolist()
    assert torch.equal(run.logits, logits[0, -1:])
    for layer in range(model.cfg.n_layers):
        for name in ACTS:
            assert torch.equal(run.acts[name, layer], cache[name, layer][0]), (name, layer)
    made = kg.passes.to_activation_cache(run, model)
    assert made.has_batch_dim
    assert made.model is model
    assert set(cache.keys()) == set(made.keys())
    assert all(torch.equal(value, cache[name]) for name, value in made.items())
    again = kg.passes.from_activation_cache(made, run.logits[None], tower, model)
    assert same_acts(again, run)
    assert (again.tokens, again.n_valid, again.named) == (run.tokens, run.n_valid, run.named)
    assert torch.equal(again.ids, run.ids)
    assert torch.equal(again.logits, run.logits)


def test_what_a_sweep_recorded_is_the_same(model, tower, telling):
    """A Run of knockgrid's own passes, to a cache and back, against `run_with_cache`."""
    rows = [kg.patch(name, "last") for name in ("resid_post", "mlp_out", "z", "q")]
    settings = Settings(rows, (0, 1), 3, 1, "noising", False, True, 0, keep_kv=True)
    (run,) = record_clean(model, prepare(model, [tower], True, 3), settings)
    made = kg.passes.to_activation_cache(run, model)
    _, cache = model.run_with_cache(run.ids[None])
    for name, value in made.items():
        assert torch.allclose(value.double(), cache[name].double(), atol=1e-10), name
    assert {name for name, _ in run.acts} <= {"resid_pre", "resid_post", "mlp_out", "z", "q"}
    again = kg.passes.from_activation_cache(made, run.logits[None], tower, model)
    assert set(again.acts) == set(run.acts)
    assert (again.generated, again.named, again.n_tokens) == (run.generated, run.named, 3)
    assert torch.equal(again.logits, run.logits)


def test_rows_of_a_batch(tiny_llama, prompts):
    pair = [prompts[0], prompts[2]]
    logits, cache = tiny_llama.run_with_cache([one.text for one in pair])
    for row, prompt in enumerate(pair):
        run = kg.passes.from_activation_cache(cache, logits, prompt, tiny_llama, row=row)
        assert torch.equal(run.acts["resid_post", 3], cache["resid_post", 3][row])
        assert torch.equal(run.logits, logits[row, -1:])
        refused(repr(prompt.id), cache, logits, prompt, tiny_llama, row=1 - row)
    refused("row is 2, and logits has 2 rows", cache, logits, pair[0], tiny_llama, row=2)


def test_a_cache_without_a_batch(tiny_llama, tower):
    logits, cache, batched = cached(tiny_llama, tower)
    cache.remove_batch_dim()
    assert same_acts(batched, kg.passes.from_activation_cache(cache, logits[0], tower, tiny_llama))


@pytest.mark.parametrize("pad", ["eos", "own"])
def test_padding_is_no_continuation(tiny_llama, prompts, pad, monkeypatch):
    tokenizer = copy.deepcopy(tiny_llama.tokenizer)
    own = next(i for i in range(len(tokenizer)) if i not in tokenizer.all_special_ids)
    token = {"eos": tokenizer.eos_token_id, "own": own}[pad]
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(token)
    # not the property: assigning it would change the model's configuration for good
    monkeypatch.setattr(tiny_llama, "_tokenizer", tokenizer)
    ids = tiny_llama.to_tokens(prompts[0].text)[0]
    for count in (1, 2, 5):
        padded = torch.cat([ids, torch.full((count,), token)])
        logits, cache = tiny_llama.run_with_cache(padded[None])
        if (count, pad) == (1, "eos"):  # the end of a text
            run = kg.passes.from_activation_cache(cache, logits, prompts[0], tiny_llama)
            assert (run.n_tokens, run.n_valid) == (2, 1)
        else:
            refused(f"{count} tokens of padding", cache, logits, prompts[0], tiny_llama)


def test_what_is_no_cache_is_refused(tiny_llama, tower, monkeypatch):
    """Outside of tests nothing checks types but the functions themselves."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    logits, cache, _ = cached(tiny_llama, tower)
    for says, *given in (
        ("cache is a dict.*ActivationCache", dict(cache.items()), logits, tower),
        ("prompt is a str.*Prompt", cache, logits, tower.text),
        ("cache is a Tensor", logits, cache, tower),
        (r"logits have shape \(10, 400\)", cache, logits[0], tower),
    ):
        refused(says, *given, tiny_llama)
    with pytest.raises(kg.InputError, match="run is a ActivationCache.*Run"):
        kg.passes.to_activation_cache(cache, tiny_llama)


def test_no_name_is_lost_in_compatibility_mode(boot, tower):
    model = boot()
    model.enable_compatibility_mode()
    _, cache, run = cached(model, tower)
    made = kg.passes.to_activation_cache(run, model)
    assert set(cache.keys()) <= set(made.keys())
    assert all(torch.equal(made[name], cache[name]) for name in cache)


def test_a_cache_of_some_activations(tiny_llama, tower, prompts):
    logits, cache = tiny_llama.run_with_cache(
        tower.text, names_filter=lambda name: name.endswith("hook_resid_post")
    )
    run = kg.passes.from_activation_cache(cache, logits, tower, tiny_llama)
    assert set(run.acts) == {("resid_post", layer) for layer in range(4)}
    refused(r"10 positions.*'italy' has \d or \d", cache, logits, prompts[2], tiny_llama)
    ids = tiny_llama.to_tokens(f"{tower.text} Paris")[0]
    refused("10 positions for 11 tokens", cache, logits, tower, tiny_llama, ids=ids)


def test_executors_take_it(tiny_llama, tower):
    """A cell on a Run from a cache is what the sweep measures there."""
    _, _, run = cached(tiny_llama, tower)
    row = kg.patch("resid_post", "last", kg.zero())
    table = kg.sweep(tiny_llama, [tower], row, layers=[1], progress=False)
    assert table["js"][0] > 0
    width = run.acts["resid_post", 1].shape[-1]
    edit = Edit("resid_post", 1, (run.n_prompt - 1,), value=torch.zeros(1, width))
    (outcome,) = kg.executors.reference(
        tiny_llama, [run], [Cell(0, 0, (0,), row, 1, (1,), ((edit,),))]
    )
    found = float(evaluate([kg.js], outcome.null, outcome.logits)["js"][0])
    assert found == pytest.approx(table["js"][0], abs=1e-12)


def test_a_continuation_that_was_run_has_its_places(tiny_llama):
    """A cache of the prompt alone holds none of its continuation, and says so."""
    prompt = kg.Prompt("The capital of Italy is", continuation=" Rome.", spans={"city": "Rome"})
    runs = {}
    for text in (prompt.text, prompt.whole):
        logits, cache = tiny_llama.run_with_cache(text)
        runs[text] = kg.passes.from_activation_cache(cache, logits, prompt, tiny_llama)
    run = runs[prompt.whole]
    assert resolve(prompt, run.tokens, "city") == (6,)
    assert (run.n_prompt, run.tokens.given) == (6, tuple(run.ids[6:].tolist()))
    with pytest.raises(kg.InputError, match="no token overlaps span 'city'"):
        resolve(prompt, runs[prompt.text].tokens, "city")
