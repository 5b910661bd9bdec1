"""The model: what load takes, what a table remembers of it, where its activations are."""

import copy
import json

import numpy as np
import pandas as pd
import pytest
import torch

import knockgrid as kg
from knockgrid.engine.setup import versions
from knockgrid.host.bridge import describe, hook_name
from knockgrid.host.digests import weights_digest
from knockgrid.host.hooks import user_hooks
from knockgrid.host.sizes import sizes_of


def test_a_bridge_is_taken_as_it_is(tiny_llama):
    assert kg.load(tiny_llama) is tiny_llama


def test_a_local_folder(plain, tiny_tokenizer, tmp_path, ids_of):
    plain.save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    ids = ids_of("The capital of France is")
    for given in (tmp_path, str(tmp_path)):
        model = kg.load(given, dtype=torch.float64)
        with torch.no_grad():
            torch.testing.assert_close(model(ids), plain(ids).logits, rtol=0, atol=1e-10)
    half = kg.load(tmp_path, dtype=torch.bfloat16)
    assert next(half.original_model.parameters()).dtype == torch.bfloat16


def test_the_demo_model(demo_model):
    assert (demo_model.cfg.n_layers, demo_model.cfg.d_model, demo_model.cfg.n_heads) == (30, 576, 9)
    assert not demo_model.training


@pytest.mark.parametrize("name", ["no/such-model-anywhere", "/no/such/folder"])
def test_a_model_that_cannot_be_loaded(name):
    with pytest.raises(kg.InputError) as caught:
        kg.load(name)
    assert f"model {name!r} could not be loaded (" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_compatibility_mode_changes_no_knockout_and_is_recorded(boot, sweep, prompts):
    """Folding norms leaves probabilities alone, but for the float32 that it computes in."""
    model = boot()
    before = sweep(prompts, kg.knockout(), model=model)
    model.enable_compatibility_mode()
    after = sweep(prompts, kg.knockout(), model=model)
    assert before.js.min() > 1e-4
    np.testing.assert_allclose(after.js, before.js, rtol=0, atol=1e-7)
    modes = [t.attrs["knockgrid"]["model"]["compatibility_mode"] for t in (before, after)]
    assert modes == [False, True]


def test_a_hook_name_is_canonical_in_both_modes(boot):
    """In compatibility mode a hook under an alias is called once per name."""
    model = boot()
    for compatible in (False, True):
        if compatible:
            model.enable_compatibility_mode()
        for act_name in ("resid_pre", "resid_post", "mlp_out", "attn_scores", "q", "z"):
            name = hook_name(model, act_name, 1)
            calls = []
            model.run_with_hooks(
                torch.tensor([[1, 40, 50]]),
                fwd_hooks=[(name, lambda act, hook, calls=calls: calls.append(act))],
            )
            assert len(calls) == 1, (act_name, compatible)


def test_an_unknown_activation(tiny_llama):
    with pytest.raises(kg.InputError) as caught:
        hook_name(tiny_llama, "resid_pots", 1)
    assert "'resid_pots'" in str(caught.value)
    assert "did you mean 'resid_post'?" in str(caught.value)


def test_a_digest_tells_models_apart(boot, tiny_llama):
    def nudge(model):
        with torch.no_grad():
            model.model.layers[2].mlp.down_proj.weight.add_(1e-6)

    assert weights_digest(boot()) == weights_digest(tiny_llama)
    assert weights_digest(boot(nudge)) != weights_digest(tiny_llama)
    half = boot()
    half.original_model.to(torch.float32)
    assert weights_digest(half) != weights_digest(tiny_llama)


def test_a_tokenizer_assigned_anew_changes_no_result(boot, sweep, prompts):
    """TransformerLens then sets `cfg.d_vocab` to the tokens there are, fewer than the rows."""
    model = boot()
    row = kg.patch("resid_post", "last", kg.corrupted_run(by=kg.noise(scale_from="vocabulary")))

    def seen():
        table = sweep(prompts, row, model=model, layers=[1])
        return describe(model), sizes_of(model), table.attrs["knockgrid"]["sigma"], table

    before = seen()
    model.tokenizer = copy.deepcopy(model.tokenizer)
    assert model.cfg.d_vocab == len(model.tokenizer) < 400
    after = seen()
    assert after[:3] == before[:3]
    pd.testing.assert_frame_equal(after[3], before[3])


def test_the_description_is_plain(tiny_gpt2):
    found = describe(tiny_gpt2)
    assert json.loads(json.dumps(found)) == found
    assert (found["architecture"], found["n_layers"]) == ("GPT2LMHeadModel", 3)
    assert (found["d_model"], found["d_vocab"], found["device"]) == (32, 400, "cpu")


def test_the_build_of_pytorch_is_remembered(monkeypatch):
    """The package's own version may leave out which CUDA it was built for."""
    monkeypatch.setattr(torch, "__version__", "2.13.0+cu999")
    assert versions()["torch"] == "2.13.0+cu999"


def test_user_hooks_are_seen(tiny_llama):
    assert user_hooks(tiny_llama) == []
    tiny_llama.add_hook("blocks.1.hook_resid_post", lambda act, hook: None)
    try:
        (name,) = user_hooks(tiny_llama)
    finally:
        tiny_llama.reset_hooks()
    assert name.startswith("blocks.1.")
    assert user_hooks(tiny_llama) == []
