"""Published experiments as studies say them, against loops of plain hooks on the demo model."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr
from transformers import AutoModelForCausalLM

import knockgrid as kg
from knockgrid.cli.reproduce import read_study, studies
from knockgrid.host.demo import demo_folder


@pytest.fixture(scope="module")
def model():
    return kg.load("demo")


@pytest.fixture(scope="module")
def raw():
    return AutoModelForCausalLM.from_pretrained(demo_folder(), attn_implementation="eager")


def logits_of(raw, ids, *hooked):
    """Logits `[pos, d_vocab]` of a whole pass with hooks, before or behind modules."""
    handles = [
        module.register_forward_pre_hook(hook, with_kwargs=True)
        if hook.__name__.startswith("before")
        else module.register_forward_hook(hook)
        for module, hook in hooked
    ]
    with torch.no_grad():
        found = raw(torch.tensor([ids]), use_cache=False).logits[0].double()
    for handle in handles:
        handle.remove()
    return found


def hidden(layer, keys, queries=None):
    """A hook that hides keys from some queries of a layer, from all of them by default."""

    def before(module, args, kwargs):
        mask = kwargs["attention_mask"].clone()
        for key in keys:
            seen = slice(key, None) if queries is None else queries
            mask[..., seen, key] = torch.finfo(mask.dtype).min
        return args, {**kwargs, "attention_mask": mask}

    return layer.self_attn, before


def kl(p, q):
    p, q = (np.exp(log_softmax(one.numpy(), axis=-1)) for one in (p, q))
    return rel_entr(p, q).sum(-1)


def js(p, q):
    p, q = (np.exp(log_softmax(one.numpy(), axis=-1)) for one in (p, q))
    return (rel_entr(p, (p + q) / 2) + rel_entr(q, (p + q) / 2)).sum(-1) / 2


def test_induction_heads(model, raw):
    """A blocked head's weights are shared out anew, and its values mixed by them by hand."""
    study = read_study(studies()["induction"])
    prompt, at, layer, head = study.repeated(0), study.AT, 20, 6
    ids = model.tokenizer(prompt.text)["input_ids"]
    assert len(ids) == 22  # a token for every word
    assert ids[at] == ids[6 + 1]
    assert ids[-1] == ids[at - 1]
    rows = kg.per_head(kg.knockout("last", at, window=1), [head])
    table = kg.sweep(model, prompt, rows, layers=[layer], metrics=["kl"], progress=False)
    attention, weights = raw.model.layers[layer].self_attn, []

    def kept(module, args, output):
        weights.append(output[1][0, head, -1].double())

    logits_of(raw, ids, (attention, kept))
    pattern = model.run_with_cache(prompt.text)[1]["pattern", layer][0, head, -1]
    np.testing.assert_allclose(pattern, weights[0], atol=1e-6)
    rest = weights[0].clone()
    rest[at] = 0
    rest /= rest.sum()
    values = []
    group = attention.num_key_value_groups

    def read(module, args, output):
        values.append(output[0].view(len(ids), -1, attention.head_dim)[:, head // group].double())

    logits_of(raw, ids, (attention.v_proj, read))

    def before(module, args, kwargs):
        mixed = args[0].clone()
        mixed[0, -1].view(-1, attention.head_dim)[head] = (rest @ values[0]).float()
        return (mixed, *args[1:]), kwargs

    truth = kl(logits_of(raw, ids)[-1], logits_of(raw, ids, (attention.o_proj, before))[-1])
    assert truth > 1e-4
    assert table["kl"].item() == pytest.approx(truth, rel=1e-3, abs=1e-7)


def test_indirect_objects(model, raw):
    study = read_study(studies()["ioi"])
    pair = study.asked("Mary", "John", "Mary", "John")
    prompt = study.asked("Mary", "John", "John", "Mary").replace(swap=pair)
    row = kg.patch("resid_post", "last", kg.corrupted_run(by=kg.swap()))
    options = {"metrics": ["logit_diff", "recovered"], "progress": False}
    table = kg.sweep(model, prompt, row, layers=[20], **options)
    ids, other = (model.tokenizer(one.text)["input_ids"] for one in (prompt, pair))
    mary, john = (
        model.tokenizer(f" {n}", add_special_tokens=False).input_ids[0] for n in ("Mary", "John")
    )
    block, kept = raw.model.layers[20], []

    def first(output):
        return output if torch.is_tensor(output) else output[0]

    def keep(module, args, output):
        kept.append(first(output)[0, -1].clone())

    def put(module, args, output):
        changed = first(output).clone()
        changed[0, -1] = kept[0]
        return changed if torch.is_tensor(output) else (changed, *output[1:])

    passes = [(other, (block, keep)), (ids,), (ids, (block, put))]
    corrupted, clean, edited = (
        float(at[-1, mary] - at[-1, john]) for at in (logits_of(raw, *one) for one in passes)
    )
    assert table["logit_diff"].item() == pytest.approx(edited, abs=1e-3)
    share = (edited - corrupted) / (clean - corrupted)
    assert table["recovered"].item() == pytest.approx(share, abs=1e-3)
    assert abs(clean - corrupted) > 0.5


def test_removed_sentences(model, raw):
    study = read_study(studies()["removed_sentences"])
    question, answer = next(iter(study.ASKED.items()))
    prompt = study.asked(question, answer)
    rows = kg.per_span(kg.knockout("all", "span", layers="all"), prompt.span_names[:3])
    table = kg.sweep(model, prompt, rows, metrics=["js"], progress=False)
    mine = table.groupby("span", sort=False)["js"].sum()
    ids, n = (
        model.tokenizer(prompt.whole)["input_ids"],
        len(model.tokenizer(prompt.text)["input_ids"]),
    )
    clean = logits_of(raw, ids)[n - 1 : -1]
    truth = []
    for name in prompt.span_names[:3]:
        keys = kg.token_positions(prompt, name, model)
        cut = logits_of(raw, ids, *(hidden(layer, keys) for layer in raw.model.layers))
        truth.append(js(clean, cut[n - 1 : -1]).sum())
    np.testing.assert_allclose(mine, truth, rtol=1e-4, atol=1e-6)
    assert max(truth) == truth[1] > 0.5  # the sentence with the answer
