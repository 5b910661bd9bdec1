"""Every executor equals the reference executor and the stored tables, edit by edit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from stored import assert_stored

import knockgrid as kg

pytestmark = pytest.mark.usefixtures("portable")
LAST = {"n_tokens": 3}
FIXED = kg.fixed(torch.linspace(-2, 2, 32, dtype=torch.float64))


def noisy(at):
    return kg.corrupted_run(by=kg.noise(pos=at))


def elsewhere(at):
    return kg.patch("resid_post", at, noisy(at))


CASES = {
    "resid_pre": lambda p: kg.patch("resid_pre", "subject"),
    "resid_post": lambda p: kg.patch("resid_post", "subject"),
    "resid_post last": lambda p: kg.patch("resid_post", "last"),
    "mlp_out": lambda p: kg.patch("mlp_out", "subject"),
    "attn_out": lambda p: kg.patch("attn_out", "last"),
    "q": lambda p: kg.patch("q", "last"),
    "k": lambda p: kg.patch("k", "subject"),
    "v": lambda p: kg.patch("v", "subject"),
    "z": lambda p: kg.patch("z", "last"),
    "one head": lambda p: kg.patch("z", "last", kg.zero(), heads=[2]),
    "window": lambda p: kg.patch("resid_post", "subject", kg.zero(), window=3),
    "alpha": lambda p: kg.patch("resid_post", "subject", alpha=0.25),
    "zero": lambda p: kg.patch("mlp_out", "last", kg.zero()),
    "mean": lambda p: kg.patch("resid_post", "subject_last", kg.mean_activation()),
    "noise": lambda p: kg.patch("resid_post", "subject", kg.noise(1.0)),
    "direction": lambda p: kg.patch("resid_post", "subject", kg.sources.random_direction()),
    "noise at rest": lambda p: elsewhere("rest"),
    "noise at random": lambda p: elsewhere("random"),
    "noise at BOS": lambda p: elsewhere("bos"),
    "edge noise at rest": lambda p: kg.edge_patch(src="rest", source=noisy("rest")),
    "knockout random": lambda p: kg.knockout("last", "random", window=2),
    "donor": lambda p: kg.patch("resid_post", "subject_last", kg.donor(p[1])),
    "fixed": lambda p: kg.patch("resid_post", "last", FIXED),
    "every token": lambda p: kg.patch("resid_post", "all", kg.noise(0.5)),
    "knockout 1": lambda p: kg.knockout(window=1),
    "knockout 5": lambda p: kg.knockout(window=5),
    "knockout even": lambda p: kg.knockout(window=2),
    "knockout all_but": lambda p: kg.knockout(window="all_but"),
    "knockout from": lambda p: kg.knockout(window="from"),
    "knockout up_to": lambda p: kg.knockout(window="up_to"),
    "knockout heads": lambda p: kg.knockout(heads=[0, 3], window=1),
    "knockout rest": lambda p: kg.knockout("rest", "bos", window=2),
    "knockout many": lambda p: kg.knockout("all", "subject_last", heads=[1], window=2),
    "edge noise": lambda p: kg.edge_patch(window=1),
    "edge window": lambda p: kg.edge_patch(window=3),
    "edge swap": lambda p: kg.edge_patch(source=kg.corrupted_run(by=kg.swap())),
    "edge alpha": lambda p: kg.edge_patch(alpha=0.5, window=1),
    "edge heads": lambda p: kg.edge_patch(heads=[1], window=1),
    "edge middle": lambda p: kg.edge_patch(["rest", "last"], "subject", window=2),
}
ON_GPT2 = (
    *("resid_pre", "resid_post last", "k", "one head", "knockout 1", "knockout 5"),
    *("knockout heads", "edge noise", "edge window", "direction", "noise at rest", "noise at BOS"),
)
OPTIONS = {
    "samples": ("resid_post", {"samples": 2}),
    "later tokens": ("resid_post", LAST),
    "later tokens blocked": ("knockout 1", LAST),
    "persistent": ("knockout 1", {**LAST, "mode": "persistent"}),
    "persistent edge": ("edge noise", {**LAST, "mode": "persistent"}),
    "denoise": ("resid_post", {"direction": "denoising"}),
    "denoise edge": ("edge noise", {"direction": "denoising"}),
    "denoise elsewhere": ("noise at BOS", {"direction": "denoising"}),
    "denoise edge elsewhere": ("edge noise at rest", {"direction": "denoising"}),
    "denoise heads": ("edge heads", {"direction": "denoising"}),
    "denoise swap": ("edge swap", {"direction": "denoising"}),
    "denoise last": ("resid_post last", {**LAST, "direction": "denoising"}),
    "without BOS": ("resid_post", {"prepend_bos": False}),
    "without BOS blocked": ("knockout 5", {"prepend_bos": False}),
    "bits": ("resid_post", {"unit": "bits"}),
}
FREE = ("resid_post", "zero", "knockout 1", "knockout from", "edge noise", "edge heads")


def tables(model, prompts, row, **options):
    options |= {"layers": [2, 0], "progress": False}
    return {
        name: kg.sweep(model, prompts, row, executor=name, **options)
        for name in ("reference", "staircase", "rectangle")
    }


def assert_equal(found, stored, effect=1e-5):
    truth = found.pop("reference")
    assert truth.js.max() > effect
    assert_stored(stored, truth)
    for name, table in found.items():
        assert table.attrs["knockgrid"]["receipt"]["executor"] == name
        for metric in ("js", "kl", "tv", "js_to_source"):
            np.testing.assert_allclose(
                table[metric], truth[metric], rtol=0, atol=1e-12, err_msg=f"{name} {metric}"
            )


@pytest.mark.parametrize(
    ("name", "case"), [*(("llama", one) for one in CASES), *(("gpt2", one) for one in ON_GPT2)]
)
def test_executors_agree(request, prompts, name, case):
    model = request.getfixturevalue(f"tiny_{name}")
    assert_equal(tables(model, prompts, CASES[case](prompts)), f"{name} {case}")


@pytest.mark.parametrize("option", OPTIONS)
def test_executors_agree_with(tiny_llama, prompts, option):
    case, options = OPTIONS[option]
    found = tables(tiny_llama, prompts, CASES[case](prompts), **options)
    assert_equal(found, f"llama with {option}")


@pytest.mark.parametrize("case", FREE)
def test_free_runs_are_as_stored(tiny_llama, prompts, case):
    options = {"layers": [2, 0], "mode": "free_run", "progress": False, **LAST}
    row = CASES[case](prompts)
    found = kg.sweep(tiny_llama, prompts, row, executor="reference", **options)
    assert found.js.max() > 1e-5
    assert_stored(f"llama free {case}", found)


@pytest.mark.parametrize("max_rows", [2, 5])
def test_a_small_memory_budget_changes_nothing(tiny_llama, prompts, max_rows):
    cut = replace(kg.executors.staircase, max_rows=max_rows)
    rows = [*kg.information_flow(), kg.edge_patch()]
    whole, parts = (
        kg.sweep(tiny_llama, prompts, rows, executor=one, progress=False)
        for one in (kg.executors.staircase, cut)
    )
    assert whole.js.max() > 1e-3
    np.testing.assert_allclose(parts.js, whole.js, rtol=0, atol=1e-12)
