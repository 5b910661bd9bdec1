"""Temperature: both distributions are those of logits / T, by SciPy on the model's own logits."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import log_softmax, rel_entr

import knockgrid as kg
from knockgrid.reports.methods import methods

T = 0.6
PROMPT = kg.Prompt("The Eiffel Tower is in the city of", spans={"subject": "The Eiffel Tower"})
LAYERS = [0, 7]
ROWS = [
    kg.patch("resid_post", "last", kg.zero(), name="zero"),
    kg.patch("resid_post", "subject", kg.corrupted_run(), name="subject"),
]


@pytest.fixture(scope="module")
def model():
    return kg.load("demo", dtype="float64")


def logits_of(model, hooks=()):
    ids = torch.tensor([model.tokenizer(PROMPT.text).input_ids])
    with torch.no_grad():
        return model.run_with_hooks(ids, fwd_hooks=list(hooks))[0, -1].numpy()


def zero_last(activation, hook):
    activation = activation.clone()
    activation[:, -1] = 0
    return activation


def at(logits):
    return log_softmax(logits / T)


def js(p, q):
    m = np.logaddexp(p, q) - np.log(2)
    return (rel_entr(np.exp(p), np.exp(m)).sum() + rel_entr(np.exp(q), np.exp(m)).sum()) / 2


def test_both_distributions_are_taken_at_it(model):
    table = kg.sweep(
        model, PROMPT, ROWS, layers=LAYERS, temperature=T, metrics=["js", "kl", "logp_clean"]
    )
    clean = at(logits_of(model))
    for layer in LAYERS:
        edited = at(logits_of(model, [(f"blocks.{layer}.hook_out", zero_last)]))
        row = table[(table["intervention"] == "zero") & (table["layer"] == layer)].iloc[0]
        assert row["kl"] == pytest.approx(rel_entr(np.exp(clean), np.exp(edited)).sum(), rel=1e-9)
        assert row["js"] == pytest.approx(js(clean, edited), rel=1e-9)
        assert row["logp_clean"] == pytest.approx(edited[clean.argmax()], rel=1e-9)
    told = table.attrs["knockgrid"]
    assert told["temperature"] == T
    assert told["prompts"][0]["logp_clean"] == pytest.approx(clean.max())
    assert kg.grid(table, metric="kl").attrs["knockgrid"]["temperature"] == T


@pytest.mark.parametrize("options", [{"direction": "denoising"}, {"samples": 2}])
def test_in_the_other_direction_and_over_samples(model, options):
    """Temperature 1 of a model whose logits are divided is temperature T of this one."""
    table = kg.sweep(model, PROMPT, ROWS[1], layers=LAYERS, temperature=T, **options)
    hook = model.get_submodule("unembed").register_forward_hook(lambda m, i, out: out / T)
    try:
        other = kg.sweep(model, PROMPT, ROWS[1], layers=LAYERS, executor="reference", **options)
    finally:
        hook.remove()
    values = [c for c in ("js", "kl", "js_to_source", "js_mean_dist") if c in table]
    pd.testing.assert_frame_equal(table[values], other[values], rtol=1e-9, atol=1e-12)
    assert float(table["js"].min()) > 1e-6


@pytest.mark.parametrize("given", [0, -1, float("nan"), float("inf"), "warm", True, None])
def test_what_is_no_temperature_is_refused(model, given):
    with pytest.raises(kg.InputError, match="temperature"):
        kg.sweep(model, PROMPT, ROWS, layers=[0], temperature=given)


def test_tables_of_two_temperatures_are_not_put_together(model):
    tables = [kg.sweep(model, PROMPT, ROWS, layers=[0], temperature=t) for t in (1, T)]
    with pytest.raises(kg.InputError, match="nats and nats at T = 0.6"):
        pd.concat(tables)
    with pytest.raises(kg.InputError, match="one temperature"):
        kg.stats.difference(*tables)


def test_it_is_in_the_folder_and_in_its_methods(model, tmp_path):
    kg.sweep("demo", [PROMPT], ROWS, layers=[0], temperature=T, out=tmp_path / "run")
    assert json.loads((tmp_path / "run/manifest.json").read_text())["temperature"] == T
    assert "temperature of 0.6" in methods(tmp_path / "run")
    assert kg.verify(tmp_path / "run").ok
    label = kg.layer_heatmap(kg.open_run(tmp_path / "run"))
    assert "at T = 0.6" in label.figure.axes[-1].get_ylabel()
