"""Every executor equals the reference executor and the stored tables, edit by edit."""

import numpy as np
import pytest
import torch
from stored import assert_stored

pytestmark = pytest.mark.usefixtures("portable")
LAST = {"n_tokens": 3}


def fixed(width):
    import knockgrid as kg

    return kg.fixed(torch.linspace(-2, 2, width, dtype=torch.float64))


def donated(prompts):
    import knockgrid as kg

    return kg.donor(prompts[1])


def noisy(kg, at):
    return kg.corrupted_run(by=kg.noise(pos=at))


def elsewhere(kg, at):
    return kg.patch("resid_post", at, noisy(kg, at))


CASES = {
    "resid_pre": lambda kg, p: kg.patch("resid_pre", "subject"),
    "resid_post": lambda kg, p: kg.patch("resid_post", "subject"),
    "resid_post last": lambda kg, p: kg.patch("resid_post", "last"),
    "mlp_out": lambda kg, p: kg.patch("mlp_out", "subject"),
    "attn_out": lambda kg, p: kg.patch("attn_out", "last"),
    "q": lambda kg, p: kg.patch("q", "last"),
    "k": lambda kg, p: kg.patch("k", "subject"),
    "v": lambda kg, p: kg.patch("v", "subject"),
    "z": lambda kg, p: kg.patch("z", "last"),
    "one head": lambda kg, p: kg.patch("z", "last", kg.zero(), heads=[2]),
    "window": lambda kg, p: kg.patch("resid_post", "subject", kg.zero(), window=3),
    "alpha": lambda kg, p: kg.patch("resid_post", "subject", alpha=0.25),
    "zero": lambda kg, p: kg.patch("mlp_out", "last", kg.zero()),
    "mean": lambda kg, p: kg.patch("resid_post", "subject_last", kg.mean()),
    "noise": lambda kg, p: kg.patch("resid_post", "subject", kg.noise(1.0)),
    "direction": lambda kg, p: kg.patch("resid_post", "subject", kg.sources.random_direction()),
    "noise at rest": lambda kg, p: elsewhere(kg, "rest"),
    "noise at random": lambda kg, p: elsewhere(kg, "random"),
    "noise at BOS": lambda kg, p: elsewhere(kg, "bos"),
    "edge noise at rest": lambda kg, p: kg.edge_patch(src="rest", source=noisy(kg, "rest")),
    "knockout random": lambda kg, p: kg.knockout("last", "random", window=2),
    "donor": lambda kg, p: kg.patch("resid_post", "subject_last", donated(p)),
    "fixed": lambda kg, p: kg.patch("resid_post", "last", fixed(32)),
    "every token": lambda kg, p: kg.patch("resid_post", "all", kg.noise(0.5)),
    "knockout 1": lambda kg, p: kg.knockout(window=1),
    "knockout 5": lambda kg, p: kg.knockout(window=5),
    "knockout even": lambda kg, p: kg.knockout(window=2),
    "knockout all_but": lambda kg, p: kg.knockout(window="all_but"),
    "knockout from": lambda kg, p: kg.knockout(window="from"),
    "knockout up_to": lambda kg, p: kg.knockout(window="up_to"),
    "knockout heads": lambda kg, p: kg.knockout(heads=[0, 3], window=1),
    "knockout rest": lambda kg, p: kg.knockout("rest", "bos", window=2),
    "knockout many": lambda kg, p: kg.knockout("all", "subject_last", heads=[1], window=2),
    "edge noise": lambda kg, p: kg.edge_patch(window=1),
    "edge window": lambda kg, p: kg.edge_patch(window=3),
    "edge swap": lambda kg, p: kg.edge_patch(source=kg.corrupted_run(by=kg.swap())),
    "edge alpha": lambda kg, p: kg.edge_patch(alpha=0.5, window=1),
    "edge heads": lambda kg, p: kg.edge_patch(heads=[1], window=1),
    "edge middle": lambda kg, p: kg.edge_patch(["rest", "last"], "subject", window=2),
}
ON_GPT2 = (
    "resid_pre",
    "resid_post last",
    "k",
    "one head",
    "knockout 1",
    "knockout 5",
    "knockout heads",
    "edge noise",
    "edge window",
    "direction",
    "noise at rest",
    "noise at BOS",
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
    import knockgrid as kg

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


@pytest.mark.parametrize("case", CASES)
def test_executors_agree(tiny_llama, prompts, case):
    import knockgrid as kg

    assert_equal(tables(tiny_llama, prompts, CASES[case](kg, prompts)), f"llama {case}")


@pytest.mark.parametrize("case", ON_GPT2)
def test_executors_agree_on_gpt2(tiny_gpt2, prompts, case):
    import knockgrid as kg

    assert_equal(tables(tiny_gpt2, prompts, CASES[case](kg, prompts)), f"gpt2 {case}")


@pytest.mark.parametrize("option", OPTIONS)
def test_executors_agree_with(tiny_llama, prompts, option):
    import knockgrid as kg

    case, options = OPTIONS[option]
    found = tables(tiny_llama, prompts, CASES[case](kg, prompts), **options)
    assert_equal(found, f"llama with {option}")


@pytest.mark.parametrize("case", FREE)
def test_free_runs_are_as_stored(tiny_llama, prompts, case):
    import knockgrid as kg

    options = {"layers": [2, 0], "mode": "free_run", "progress": False, **LAST}
    row = CASES[case](kg, prompts)
    found = kg.sweep(tiny_llama, prompts, row, executor="reference", **options)
    assert found.js.max() > 1e-5
    assert_stored(f"llama free {case}", found)


@pytest.mark.parametrize("max_rows", [2, 5])
def test_a_small_memory_budget_changes_nothing(tiny_llama, prompts, max_rows):
    from dataclasses import replace

    import knockgrid as kg

    cut = replace(kg.executors.staircase, max_rows=max_rows)
    rows = [*kg.information_flow(), kg.edge_patch()]
    whole, parts = (
        kg.sweep(tiny_llama, prompts, rows, executor=one, progress=False)
        for one in (kg.executors.staircase, cut)
    )
    assert whole.js.max() > 1e-3
    np.testing.assert_allclose(parts.js, whole.js, rtol=0, atol=1e-12)
