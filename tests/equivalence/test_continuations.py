"""A given continuation: what is measured is the given text, against raw PyTorch hooks."""

import numpy as np
import pytest
import torch

import knockgrid as kg
from knockgrid.reports.methods import methods
from knockgrid.runs.estimate import estimate
from knockgrid.spec import Spec

TEXT, GIVEN = (
    "The Eiffel Tower is located in",
    " the city of Paris, and the capital of Italy is Rome.",
)
SPANS = {"subject": "Eiffel Tower", "city": "the city of Paris", "rome": "Italy is Rome"}
WITHIN = 1e-6  # TransformerLens' softmax is float32 inside


@pytest.fixture(scope="module")
def trace():
    return kg.Prompt(TEXT, continuation=GIVEN, spans=SPANS, id="trace")


@pytest.fixture(scope="module")
def raw(tiny_llama, plain_of):
    return plain_of(tiny_llama)


@pytest.fixture(scope="module")
def at(trace, tiny_llama):
    found = {name: kg.token_positions(trace, name, tiny_llama) for name in (*SPANS, "last", "all")}
    tokenizer = tiny_llama.tokenizer
    found["ids"] = [1, *tokenizer(TEXT + GIVEN, add_special_tokens=False)["input_ids"]]
    found["n_prompt"] = 1 + len(tokenizer(TEXT, add_special_tokens=False)["input_ids"])
    return found


def measured(raw, at, cut=(), layers=(), put=None):
    """Logits at the positions that predict the given text, some edges cut in some layers."""
    handles = []

    def forbid(module, args, kwargs):
        mask = kwargs["attention_mask"].clone()
        for query, key in cut:
            mask[0, :, query, key] = torch.finfo(mask.dtype).min
        return args, {**kwargs, "attention_mask": mask}

    def replaced(module, args, output):
        hidden = (output if torch.is_tensor(output) else output[0]).clone()
        hidden[0, list(put)] = 0.0
        return hidden if torch.is_tensor(output) else (hidden, *output[1:])

    blocks = raw.model.layers
    for i in layers:
        attention = blocks[i].self_attn
        if put is None:
            handles.append(attention.register_forward_pre_hook(forbid, with_kwargs=True))
        else:
            handles.append(blocks[i].mlp.register_forward_hook(replaced))
    with torch.no_grad():
        found = raw(torch.tensor([at["ids"]]), use_cache=False).logits[0]
    for handle in handles:
        handle.remove()
    return found[at["n_prompt"] - 1 : -1]


@pytest.mark.parametrize("executor", ["reference", "staircase", "rectangle"])
def test_every_token_of_the_given_text_is_measured(tiny_llama, trace, raw, at, scipy_js, executor):
    rows = [
        kg.knockout("all", "city", layers="all", name="seen by all"),
        kg.knockout("last", "subject", layers=[1, 2], name="prompt only"),
        kg.patch("mlp_out", "rome", kg.zero(), layers=[0], name="in the text"),
    ]
    clean = measured(raw, at)
    cut = [(q, k) for q in at["all"] for k in at["city"] if k <= q]
    expected = [
        measured(raw, at, cut, range(4)),
        measured(raw, at, [(at["last"][0], k) for k in at["subject"]], [1, 2]),
        measured(raw, at, layers=[0], put=at["rome"]),
    ]
    table = kg.sweep(tiny_llama, trace, rows, executor=executor, progress=False)
    n = len(at["ids"]) - at["n_prompt"]
    assert (table.status == "ok").all()
    for row, logits in zip(rows, expected, strict=True):
        mine = table[table.intervention == row.name]
        assert list(mine.token) == list(range(n))
        assert "".join(mine.token_text) == GIVEN
        truth = [scipy_js(one, other) for one, other in zip(clean, logits, strict=True)]
        np.testing.assert_allclose(mine.js, truth, rtol=0, atol=WITHIN)
        assert max(truth) > 1e-3
    before = table[(table.intervention == "in the text") & (table.token < at["rome"][0] - 10)]
    assert (before.js == 0).all()


def test_prompts_with_and_without_a_continuation_in_one_sweep(tiny_llama, trace):
    """Each is measured as it is alone, whatever its neighbours have."""
    spans = {"subject": "Eiffel Tower"}
    other = kg.Prompt(TEXT, continuation=" the city of Rome", spans=spans, id="other")
    plain = kg.Prompt(TEXT, spans=spans, id="plain")
    row = kg.knockout("last", "subject", layers="all")
    together = kg.sweep(tiny_llama, [trace, other, plain], row, n_tokens=3, progress=False)
    for one in (trace, other, plain):
        alone = kg.sweep(tiny_llama, one, row, n_tokens=3, progress=False)
        mine = together[together.prompt == one.id]
        np.testing.assert_allclose(mine.js, alone.js, rtol=0, atol=1e-12)
        assert len(mine) == (3 if one is plain else len(alone))


def test_a_donor_is_read_in_its_own_continuation(tiny_llama, trace, raw, at, scipy_js):
    donor = kg.Prompt(TEXT, continuation=GIVEN.replace("Paris", "Rome"), id="donor")
    of = len(at["ids"]) - 2
    row = kg.patch("resid_post", of, kg.donor(donor), layers=[2])
    table = kg.sweep(tiny_llama, trace, row, progress=False)
    kept, blocks = [], raw.model.layers
    handle = blocks[2].register_forward_hook(lambda m, a, out: kept.append(out))
    ids = tiny_llama.tokenizer(donor.whole, add_special_tokens=False)["input_ids"]
    measured(raw, {**at, "ids": [1, *ids]})
    handle.remove()
    state = (kept[0] if torch.is_tensor(kept[0]) else kept[0][0])[0, of]

    def put(module, args, output):
        hidden = (output if torch.is_tensor(output) else output[0]).clone()
        hidden[0, of] = state
        return hidden if torch.is_tensor(output) else (hidden, *output[1:])

    clean, handle = measured(raw, at), blocks[2].register_forward_hook(put)
    truth = [scipy_js(one, other) for one, other in zip(clean, measured(raw, at), strict=True)]
    handle.remove()
    np.testing.assert_allclose(table.js, truth, rtol=0, atol=WITHIN)
    assert truth[-1] > 1e-3


def test_a_donor_with_a_continuation_of_another_length(tiny_llama, trace):
    longer = kg.Prompt(TEXT, continuation=GIVEN + " It is", id="donor")
    with pytest.raises(kg.InputError, match=r"given tokens and its donor 'donor' by"):
        kg.sweep(tiny_llama, trace, kg.patch("resid_post", 3, kg.donor(longer)), progress=False)


def test_free_runs_write_their_own(tiny_llama, trace):
    with pytest.raises(kg.InputError, match=r"'trace' has a continuation.*mode='prompt_only'"):
        kg.sweep(tiny_llama, trace, kg.knockout(), mode="free_run", progress=False)


def test_a_run_folder_keeps_it(tiny_llama, trace, tmp_path):
    rows = [kg.knockout("all", "city", layers="all"), kg.patch("resid_post", "rome")]
    table = kg.sweep(tiny_llama, trace, rows, out=tmp_path / "run", progress=False)
    found = kg.verify(tmp_path / "run", model=tiny_llama, cells=9)
    assert found.ok, found.mismatches
    assert kg.open_run(tmp_path / "run").js.tolist() == table.js.tolist()
    assert kg.report(tmp_path / "run").exists()
    assert "the tokens of the continuation that each prompt was given" in methods(tmp_path / "run")


def test_a_dry_run_counts_what_is_measured(tiny_folder):
    """All given tokens are measured, and a prompt is as long as both together."""
    plain = [{"text": TEXT, "spans": {"subject": [4, 16]}}]
    given = [{**plain[0], "continuation": GIVEN}]
    rows = (
        {"kind": "knockout", "layers": "all"},
        {"kind": "patch", "act_name": "z", "pos": "last"},
    )
    found = [
        estimate(Spec(model=str(tiny_folder), prompts=some, interventions=rows, noise_floor=False))
        for some in (plain, given)
    ]
    assert [one.cells for one in found] == [5, 5]
    assert found[1].seconds > found[0].seconds
    assert found[1].disk > found[0].disk
