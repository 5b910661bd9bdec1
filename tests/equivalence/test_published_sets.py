"""Published experiments with sets of edges, heads and layers, against loops of plain hooks."""

from itertools import product

import numpy as np
import pytest
import torch
from plain import cut, js, logits_of, putting, reading

import knockgrid as kg
from knockgrid.cli.reproduce import read_study, studies

N = 30


def ids_of(model, text):
    return model.tokenizer(text)["input_ids"]


@pytest.fixture(scope="module")
def edges():
    return read_study(studies()["edges"])


@pytest.fixture(scope="module")
def asked(edges, demo_model):
    """A prompt of the study of edges, its ids, and positions by name."""
    prompt = edges.asked("Ben")
    names = [*prompt.spans, "last"]
    places = {name: list(kg.token_positions(prompt, name, demo_model)) for name in names}
    return prompt, ids_of(demo_model, prompt.text), places


def around(layer, size=9):
    """The layers of a window, which is cut at the ends of the model."""
    return range(max(layer - size // 2, 0), min(layer + size // 2 + 1, N))


def cutting(raw, layers, pairs):
    return [cut(raw.model.layers[layer], pairs) for layer in layers]


def p_change(clean, edited, token):
    p, q = (torch.softmax(one[-1], -1)[token] for one in (clean, edited))
    return float(100 * (q - p) / p)


@pytest.mark.parametrize("inside", [True, False], ids=["window", "all but the window"])
@pytest.mark.parametrize("edge", [("question", "fact"), ("last", "fact"), ("last", "question")])
def test_map_the_flow_and_cross_modal_flow(demo_model, raw_demo, asked, edge, inside):
    """Windows of nine layers and their complements; the answer's probability (rows 2 and 4)."""
    prompt, ids, at = asked
    layer = 15
    row = kg.knockout(*edge, 9 if inside else kg.all_but(9))
    options = {"layers": [layer], "metrics": ["p_change"], "progress": False}
    found = kg.sweep(demo_model, prompt, row, **options)["p_change"].item()
    layers = [n for n in range(N) if (n in around(layer)) == inside]
    pairs = list(product(at[edge[0]], at[edge[1]]))
    edited = logits_of(raw_demo, ids, *cutting(raw_demo, layers, pairs))
    paris = demo_model.tokenizer(" Paris", add_special_tokens=False)["input_ids"][0]
    truth = p_change(logits_of(raw_demo, ids), edited, paris)
    assert abs(truth) > 0.05
    assert found == pytest.approx(truth, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("rule", ["not_self", "to_earlier_spans"])
def test_video_language_models(demo_model, raw_demo, asked, rule):
    """Edges within a part without a token's own, and from parts to earlier ones (row 5)."""
    prompt, ids, at = asked
    places = ("fact", "fact") if rule == "not_self" else ("all", "all")
    row = kg.knockout(*places, layers="all", pairs=getattr(kg.pairs, rule)())
    found = kg.sweep(demo_model, prompt, row, progress=False)["js"].item()
    if rule == "not_self":
        pairs = [(q, k) for q, k in product(at["fact"], repeat=2) if q > k]
    else:
        parts = sorted((at[name] for name in prompt.spans), key=lambda part: part[0])
        later = [(a, b) for i, a in enumerate(parts) for b in parts[:i]]
        pairs = [pair for a, b in later for pair in product(a, b)]
    edited = logits_of(raw_demo, ids, *cutting(raw_demo, range(N), pairs))
    truth = js(logits_of(raw_demo, ids)[-1], edited[-1])
    assert truth > 1e-4
    assert found == pytest.approx(truth, rel=1e-3)


def test_hopping_too_late(demo_model, raw_demo, asked):
    """The rank of the answer where all later tokens are kept from a part (row 6a)."""
    prompt, ids, at = asked
    row, options = kg.knockout("all", "fact", layers=range(20)), {"metrics": ["rank_answer", "js"]}
    found = kg.sweep(demo_model, prompt, row, progress=False, **options)
    everything = range(len(ids))
    pairs = [(q, k) for q, k in product(everything, at["fact"]) if q >= k]
    edited = logits_of(raw_demo, ids, *cutting(raw_demo, range(20), pairs))[-1]
    paris = demo_model.tokenizer(" Paris", add_special_tokens=False)["input_ids"][0]
    rank = int((edited > edited[paris]).sum())
    assert rank > 0
    assert found["rank_answer"].item() == rank
    assert found["js"].item() == pytest.approx(js(logits_of(raw_demo, ids)[-1], edited), rel=1e-3)


@pytest.mark.parametrize("far", [8, 32])
def test_when_attention_closes(demo_model, raw_demo, edges, far):
    """What is written may not see a word that is further back than so many tokens (row 13)."""
    prompt, turns = edges.recalled(), edges.TURNS
    row = kg.knockout("written", "m0", layers="all", pairs=kg.pairs.farther_than(far))
    found = kg.sweep(demo_model, prompt, row, measure=turns, metrics=["js"], progress=False)
    ids, places = ids_of(demo_model, prompt.whole), {}
    for name in (*turns, "m0", "written"):
        places[name] = list(kg.token_positions(prompt, name, demo_model))
    pairs = [(q, k) for q, k in product(places["written"], places["m0"]) if q - k > far]
    clean = logits_of(raw_demo, ids)
    edited = logits_of(raw_demo, ids, *cutting(raw_demo, range(N), pairs))
    truth = [js(clean[places[turn]], edited[places[turn]]).mean() for turn in turns]
    assert max(truth) > 1e-4
    np.testing.assert_allclose(found["js"], truth, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("which", ["region", "head", "both"])
def test_reasoning_to_answer(demo_model, raw_demo, which):
    """A region of the residual stream, a head's output, and both, from a partner (row 9)."""
    study, layer, head = read_study(studies()["reasoning"]), 10, (29, 1)
    prompt, partner = study.asked("Rome", "Paris"), study.asked("Paris", "Rome")
    region = kg.patch("resid_pre", "reasoning", study.SWAP, window=1)
    one = kg.patch("z", "last", study.SWAP, heads=[head[1]], layers=[head[0]])
    options = {"layers": [layer], "metrics": ["recovered", "logit_diff"], "progress": False}
    row = {"region": region, "head": one, "both": kg.joint([region, one], name="both")}[which]
    found = kg.sweep(demo_model, prompt.replace(swap=partner), row, **options)
    ids, other = ids_of(demo_model, prompt.text), ids_of(demo_model, partner.text)
    assert len(ids) == len(other)
    at = list(kg.token_positions(prompt, "reasoning", demo_model))
    states, mixed = [], []
    before = raw_demo.model.layers[layer - 1]
    o_proj = raw_demo.model.layers[head[0]].self_attn.o_proj
    d_head = raw_demo.model.layers[0].self_attn.head_dim

    def before_keeps(module, args, kwargs):
        mixed.append(args[0][0, -1].view(-1, d_head)[head[1]].clone())

    def before_puts(module, args, kwargs):
        changed = args[0].clone()
        changed[0, -1].view(-1, d_head)[head[1]] = mixed[0]
        return (changed, *args[1:]), kwargs

    corrupted = logits_of(raw_demo, other, reading(before, states), (o_proj, before_keeps))
    clean = logits_of(raw_demo, ids)
    hooks = {"region": [putting(before, at, states)], "head": [(o_proj, before_puts)]}
    hooks["both"] = hooks["region"] + hooks["head"]
    edited = logits_of(raw_demo, ids, *hooks[which])
    italian, french = (
        demo_model.tokenizer(f" {word}", add_special_tokens=False)["input_ids"][0]
        for word in ("Italian", "French")
    )
    a, b, c = (float(one[-1, italian] - one[-1, french]) for one in (edited, corrupted, clean))
    assert abs(c - b) > 0.5
    assert abs(a - c) > 0.01
    assert found["logit_diff"].item() == pytest.approx(a, abs=1e-3)
    assert found["recovered"].item() == pytest.approx((a - b) / (c - b), abs=1e-3)


def test_all_for_one(demo_model, raw_demo, monkeypatch):
    """Mean states given tokens; others see themselves, the last one reads to a layer (row 11)."""
    study, layer, until = read_study(studies()["all_for_one"]), 15, 20
    sums = study.SUMS[::12]
    monkeypatch.setattr(study, "SUMS", sums)
    monkeypatch.setattr(study, "some_layers", lambda model, step: [layer])
    table = study.make(demo_model, quick=False)["sums"]
    mine = kg.grid(table, "js", rows="intervention")
    ids = [ids_of(demo_model, study.asked(*one).text) for one in sums]
    kept, n = [], len(ids[0])
    passes = [logits_of(raw_demo, one, reading(raw_demo.model.layers[layer], kept)) for one in ids]
    states, truth = torch.stack(kept), []
    for one, clean in zip(ids, passes, strict=True):
        means = torch.stack(
            [
                states[[i for i, other in enumerate(ids) if other[at] == one[at]], at].mean(0)
                for at in range(n)
            ]
        )
        others = [(q, k) for q, k in product(range(1, n - 1), range(n)) if q > k]
        last = [(n - 1, k) for k in range(n - 1)]
        hooks = [putting(raw_demo.model.layers[layer], list(range(n)), [means])]
        hooks += cutting(raw_demo, range(layer + 1, N), others)
        hooks += cutting(raw_demo, range(until, N), last)
        truth.append(js(clean[-1], logits_of(raw_demo, one, *hooks)[-1]))
    assert np.mean(truth) > 1e-3
    row = f"the last token reads until {until}"
    assert mine.loc[row, layer] == pytest.approx(np.mean(truth), rel=1e-3)


def test_locos(demo_model, raw_demo):
    """Heads of several layers write their means together (row 12)."""
    study = read_study(studies()["head_sets"])
    heads = [(3, 1), (18, 6), (18, 2), (25, 8)]
    texts = ("The capital of Italy is", "The capital of France is", "People in Peru speak")
    prompts = [kg.Prompt(text, id=text) for text in texts]
    found = kg.sweep(demo_model, prompts, study.ablated(heads, "set"), progress=False)
    ids = [ids_of(demo_model, text) for text in texts]
    d_head = raw_demo.model.layers[0].self_attn.head_dim
    z = {layer: [] for layer, _ in heads}

    def keeps(layer):
        def before(module, args, kwargs):
            z[layer].append(args[0][0, -1].view(-1, d_head).clone())

        return raw_demo.model.layers[layer].self_attn.o_proj, before

    def puts(layer):
        def before(module, args, kwargs):
            changed = args[0].clone()
            for at, head in heads:
                if at == layer:
                    changed[0, -1].view(-1, d_head)[head] = torch.stack(z[at]).mean(0)[head]
            return (changed, *args[1:]), kwargs

        return raw_demo.model.layers[layer].self_attn.o_proj, before

    clean = [logits_of(raw_demo, one, *map(keeps, z)) for one in ids]
    truth = [
        js(a[-1], logits_of(raw_demo, one, *map(puts, z))[-1])
        for a, one in zip(clean, ids, strict=True)
    ]
    assert max(truth) > 1e-4
    np.testing.assert_allclose(found["js"], truth, rtol=1e-3)
