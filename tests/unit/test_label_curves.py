"""Companion curves against a plain Hugging Face model."""

import numpy as np
import pandas as pd
import pytest
import torch

import knockgrid as kg
from knockgrid.evidence.label_curves import contribution

SUBJECTS = "Anna Bruno Carla Dario Elena Franco Gina Hugo".split()
GIVEN = ["FA-high", "FA-low", "AH", "UH", "FA-high", "AH", "AH", None]


@pytest.fixture(scope="module")
def prompts():
    forms = ("{} is", "The city of {} is in")
    return [
        kg.Prompt(forms[i % 2].format(name), spans={"subject": name}, answers=["x"], id=name)
        for i, name in enumerate(SUBJECTS)
    ]


@pytest.fixture(scope="module")
def frame():
    correct = [str(one).startswith("FA") for one in GIVEN]
    given = {"prompt": SUBJECTS, "relation": "r", "correct": correct, "entropy": 1.0}
    made = pd.DataFrame({**given, "reliance": np.linspace(0.1, 0.4, len(GIVEN)), "label": GIVEN})
    made.attrs = {"knockgrid": {"threshold": 0.2}}
    return made


@pytest.fixture(scope="module")
def subject_tokens(tiny_tokenizer):
    """Token indices of a prompt's subject, from the tokenizer's offsets by hand."""

    def run(prompt):
        start, end = prompt.spans["subject"]
        offsets = tiny_tokenizer(prompt.text, return_offsets_mapping=True)["offset_mapping"]
        return [i for i, (a, b) in enumerate(offsets) if a < end and b > start]

    return run


@pytest.fixture
def biased_gpt2(tiny_gpt2):
    """The tiny GPT-2 with biases that are not 0, so that one in the wrong place shows."""
    biases = {
        name: value
        for name, value in tiny_gpt2.original_model.named_parameters()
        if name.endswith("bias") and "attn" in name
    }
    before = {name: value.detach().clone() for name, value in biases.items()}
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in biases.values():
            value.copy_(torch.randn(value.shape, generator=draw, dtype=value.dtype))
    yield tiny_gpt2
    with torch.no_grad():
        for name, value in biases.items():
            value.copy_(before[name])


def by_hand_llama(model, ids, layer, keys):
    """Head by head from the weights: A[last, k] (norm(x_k) W_V) W_O, and the attention's output."""
    out = model(ids, output_attentions=True, output_hidden_states=True)
    block = model.model.layers[layer]
    x = block.input_layernorm(out.hidden_states[layer])[0]
    attention, d = block.self_attn, block.self_attn.head_dim
    w_v, w_o = attention.v_proj.weight, attention.o_proj.weight
    total = torch.zeros(x.shape[1], dtype=torch.float64)
    n_heads = out.attentions[layer].shape[1]
    group = n_heads // (w_v.shape[0] // d)
    for head in range(n_heads):
        own = head // group
        for k in keys:
            v = x[k] @ w_v[own * d : (own + 1) * d].T
            total += out.attentions[layer][0, head, -1, k] * (
                v @ w_o[:, head * d : (head + 1) * d].T
            )
    return total


def by_hand_gpt2(model, ids, layer, keys):
    out = model(ids, output_attentions=True, output_hidden_states=True)
    block = model.transformer.h[layer]
    x = block.ln_1(out.hidden_states[layer])[0]
    width = x.shape[1]
    values = x @ block.attn.c_attn.weight[:, 2 * width :] + block.attn.c_attn.bias[2 * width :]
    n_heads = out.attentions[layer].shape[1]
    d = width // n_heads
    total = torch.zeros(width, dtype=torch.float64)
    for head in range(n_heads):
        part = slice(head * d, (head + 1) * d)
        for k in keys:
            weight = out.attentions[layer][0, head, -1, k]
            total += weight * (values[k, part] @ block.attn.c_proj.weight[part])
    return total


def test_what_attention_brings_is_that_of_every_head_by_hand_llama(
    tiny_llama, plain, prompts, frame, subject_tokens, ids_of
):
    table = kg.evidence.subject_attention(tiny_llama, prompts, frame)
    for prompt in prompts[:7]:
        rows = table[table.prompt == prompt.id].set_index("layer")
        for layer in range(4):
            keys = subject_tokens(prompt)
            expected = by_hand_llama(plain, ids_of(prompt.text), layer, keys).norm()
            assert rows.subject_attention[layer] == pytest.approx(float(expected), rel=1e-9)


def test_what_attention_brings_with_biases_gpt2(
    biased_gpt2, plain_of, ids_of, prompts, frame, subject_tokens
):
    bridge = biased_gpt2
    model = plain_of(bridge)
    assert model.transformer.h[0].attn.c_proj.bias.abs().min() > 0
    table = kg.evidence.subject_attention(bridge, prompts, frame, layers=[2, 0])
    assert table.attrs["knockgrid"]["layer_order"] == [2, 0]
    for prompt in prompts[:7]:
        ids = ids_of(prompt.text)
        rows = table[table.prompt == prompt.id].set_index("layer")
        for layer in (2, 0):
            expected = by_hand_gpt2(model, ids, layer, subject_tokens(prompt)).norm()
            assert rows.subject_attention[layer] == pytest.approx(float(expected), rel=1e-9)
        _, cache = bridge.run_with_cache(ids)
        acts = {(n, 2): cache[n, 2][0] for n in ("pattern", "v", "z")}
        everything = contribution(bridge, acts, 2, range(ids.shape[1]))
        bias = model.transformer.h[2].attn.c_proj.bias
        torch.testing.assert_close(everything + bias, cache["attn_out", 2][0, -1])


def test_attention_that_is_no_weighted_sum_is_refused(tiny_llama, prompts, frame):
    ids = torch.tensor([tiny_llama.tokenizer(prompts[0].text)["input_ids"]])
    _, cache = tiny_llama.run_with_cache(ids)
    acts = {(n, 1): cache[n, 1][0] for n in ("pattern", "v", "z")}
    contribution(tiny_llama, acts, 1, [0])
    acts["z", 1] = acts["z", 1] * 1.001
    with pytest.raises(kg.InputError, match="attention of layer 1 is not its weights times"):
        contribution(tiny_llama, acts, 1, [0])


def test_norms_of_the_subject_and_their_ratios(tiny_llama, prompts, frame, outputs, subject_tokens):
    table = kg.evidence.subject_norm(tiny_llama, prompts, frame, layers=[3, 1])
    expected = {
        (p.id, layer): float(outputs(p.text)[layer, subject_tokens(p)].norm(dim=1).mean())
        for p in prompts[:7]
        for layer in (3, 1)
    }
    found = {(r.prompt, r.layer): r.subject_norm for r in table.itertuples()}
    assert found == pytest.approx(expected, rel=1e-9)
    assert dict(zip(table.prompt, table.group, strict=True)) == dict(
        zip(SUBJECTS[:7], GIVEN[:7], strict=True)
    )
    said = table.attrs["knockgrid"]
    assert said["counts"] == {"FA-high": 2, "FA-low": 1, "AH": 3, "UH": 1}
    assert said["unlabelled"] == ["Hugo"]
    assert said["threshold"] == 0.2
    legend = kg.layer_curve(table, "subject_norm").get_legend()
    lines = [text.get_text() for text in legend.get_texts()]
    assert lines == [*("FA-high (n = 2)", "FA-low (n = 1)", "AH (n = 3)", "UH (n = 1)")]
    ratio = kg.evidence.norm_ratio(table)
    assert ratio.intervention.unique().tolist() == ["AH/FA", "UH/FA"]
    for layer in (3, 1):
        fa = np.mean([expected[SUBJECTS[i], layer] for i in (0, 1, 4)])
        ah = np.mean([expected[SUBJECTS[i], layer] for i in (2, 5, 6)])
        here = ratio[ratio.layer == layer].groupby("intervention").norm_ratio.mean()
        assert here["AH/FA"] == pytest.approx(ah / fa)
        assert here["UH/FA"] == pytest.approx(expected["Dario", layer] / fa)
    assert list(kg.grid(ratio, "norm_ratio").columns) == [3, 1]
    legend = kg.layer_curve(ratio, "norm_ratio").get_legend()
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["AH/FA (n = 3)", "UH/FA (n = 1)"]
    for wrong, words in (
        (table[table.group == "AH"], "no prompt is FA-high or FA-low"),
        (table[table.group == "FA-low"], "no prompt is AH or UH"),
        (table.drop(columns="subject_norm"), "no column 'subject_norm'; give"),
    ):
        with pytest.raises(kg.InputError, match=words):
            kg.evidence.norm_ratio(wrong)


def test_similarity_is_the_mean_over_pairs_and_na_for_one_alone(
    tiny_llama, prompts, frame, outputs
):
    table = kg.evidence.last_similarity(tiny_llama, prompts, frame, layers=[0, 2])
    for layer in (0, 2):
        here = table[table.layer == layer]
        states = {p.id: outputs(p.text)[layer, -1] for p in prompts}
        for name in ("FA-high", "AH"):
            members = [s for s, g in zip(SUBJECTS, GIVEN, strict=True) if g == name]
            pairs = [
                float(torch.cosine_similarity(states[a], states[b], dim=0))
                for i, a in enumerate(members)
                for b in members[:i]
            ]
            mean = here[here.group == name].last_similarity.mean()
            assert mean == pytest.approx(np.mean(pairs))
    alone = table[table.group.isin(["FA-low", "UH"])]
    assert alone.last_similarity.isna().all()
    assert alone.status.str.startswith("NA: the only prompt of its label").all()
    grid = kg.grid(table, "last_similarity")
    assert grid.loc["UH"].isna().all()
    assert kg.layer_curve(table, "last_similarity").get_ylabel().startswith("Avg. cosine")


@pytest.mark.parametrize("name", ["subject_norm", "subject_attention", "last_similarity"])
def test_curves_refuse(tiny_llama, prompts, frame, name):
    curve = getattr(kg.evidence, name)
    with pytest.raises(kg.InputError, match="no column 'label'"):
        curve(tiny_llama, prompts, frame.drop(columns="label"))
    with pytest.raises(kg.InputError, match="none of the prompts has a label"):
        curve(tiny_llama, prompts[7:], frame)
    if name != "last_similarity":
        bare = prompts[0].replace(spans={})
        with pytest.raises(kg.InputError, match="no span 'subject'"):
            curve(tiny_llama, [bare, *prompts[1:]], frame)


def test_the_probe_of_right_against_wrong_is_that_of_error_detection(tiny_llama, prompts, frame):
    """With FA against wrong it is `probe_auc`, judged by the same labels."""
    right = set(frame.prompt[frame.correct])
    few = {"layers": [3, 0], "seeds": 2, "folds": 2, "progress": False}

    def probe(some, *between):
        sides = {"between": between} if between else {}
        return kg.evidence.label_probe(tiny_llama, some, frame, **sides, **few)

    found = probe(prompts[:7])
    judged = {"n_tokens": 1, "judge": lambda prompt, text: prompt.id in right}
    places = ["last", "subject"]
    other = kg.evidence.probe_auc(tiny_llama, prompts[:7], places, **judged, **few)
    same = ["auc", "auc_shuffled", "position"]
    pd.testing.assert_frame_equal(found[same], other[same])
    # how a seed splits the prompts is scikit-learn's, and a fold of one class gives no value
    seeds = found.loc[found.auc.notna(), "prompt"].nunique()
    assert seeds
    s = "s" * (seeds != 1)
    assert kg.position_heatmap(found, "auc").get_title() == f"n = {seeds} seed{s}"
    said = found.attrs["knockgrid"]
    assert (said["n_positive"], said["n_negative"]) == (4, 3)
    narrow = probe(prompts, "FA", "AH")
    assert (narrow.n_prompts.unique(), narrow.n_incorrect.unique()) == ([6], [3])
    assert narrow.attrs["knockgrid"]["statistics"]["auc"] == "AUC (AH = positive, FA = negative)"
    assert probe(prompts, "FA-low", "UH").status.str.startswith("NA: ").all()
    with pytest.raises(kg.InputError, match="no prompt is 'UH' or 'FA-low'"):
        probe(prompts[:1], "UH", "FA-low")
    with pytest.raises(kg.InputError, match="share prompts"):
        probe(prompts, "FA", "FA-low")
