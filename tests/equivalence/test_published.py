"""Published experiments as studies say them, against loops of plain hooks on the demo model."""

import numpy as np
import pytest
from plain import cut, js, kl, logits_of, putting, reading

import knockgrid as kg
from knockgrid.cli.reproduce import read_study, studies


def test_induction_heads(demo_model, raw_demo):
    """A blocked head's weights are shared out anew, and its values mixed by them by hand."""
    study = read_study(studies()["induction"])
    prompt, at, layer, head = study.repeated(0), study.AT, 20, 6
    ids = demo_model.tokenizer(prompt.text)["input_ids"]
    assert len(ids) == 22  # a token for every word
    assert ids[at] == ids[6 + 1]
    assert ids[-1] == ids[at - 1]
    rows = kg.per_head(kg.knockout("last", at, window=1), [head])
    table = kg.sweep(demo_model, prompt, rows, layers=[layer], metrics=["kl"], progress=False)
    attention, weights = raw_demo.model.layers[layer].self_attn, []

    def kept(module, args, output):
        weights.append(output[1][0, head, -1].double())

    logits_of(raw_demo, ids, (attention, kept))
    pattern = demo_model.run_with_cache(prompt.text)[1]["pattern", layer][0, head, -1]
    np.testing.assert_allclose(pattern, weights[0], atol=1e-6)
    rest = weights[0].clone()
    rest[at] = 0
    rest /= rest.sum()
    values = []
    group = attention.num_key_value_groups

    def read(module, args, output):
        values.append(output[0].view(len(ids), -1, attention.head_dim)[:, head // group].double())

    logits_of(raw_demo, ids, (attention.v_proj, read))

    def before(module, args, kwargs):
        mixed = args[0].clone()
        mixed[0, -1].view(-1, attention.head_dim)[head] = (rest @ values[0]).float()
        return (mixed, *args[1:]), kwargs

    truth = kl(
        logits_of(raw_demo, ids)[-1], logits_of(raw_demo, ids, (attention.o_proj, before))[-1]
    )
    assert truth > 1e-4
    assert table["kl"].item() == pytest.approx(truth, rel=1e-3, abs=1e-7)


def test_indirect_objects(demo_model, raw_demo):
    study = read_study(studies()["ioi"])
    pair = study.asked("Mary", "John", "Mary", "John")
    prompt = study.asked("Mary", "John", "John", "Mary").replace(swap=pair)
    row = kg.patch("resid_post", "last", kg.corrupted_run(by=kg.swap()))
    options = {"metrics": ["logit_diff", "recovered"], "progress": False}
    table = kg.sweep(demo_model, prompt, row, layers=[20], **options)
    ids, other = (demo_model.tokenizer(one.text)["input_ids"] for one in (prompt, pair))
    mary, john = (
        demo_model.tokenizer(f" {n}", add_special_tokens=False).input_ids[0]
        for n in ("Mary", "John")
    )
    block, kept = raw_demo.model.layers[20], []
    passes = [(other, reading(block, kept)), (ids,), (ids, putting(block, [-1], kept))]
    corrupted, clean, edited = (
        float(at[-1, mary] - at[-1, john]) for at in (logits_of(raw_demo, *one) for one in passes)
    )
    assert table["logit_diff"].item() == pytest.approx(edited, abs=1e-3)
    share = (edited - corrupted) / (clean - corrupted)
    assert table["recovered"].item() == pytest.approx(share, abs=1e-3)
    assert abs(clean - corrupted) > 0.5


def test_removed_sentences(demo_model, raw_demo):
    study = read_study(studies()["removed_sentences"])
    question, answer = next(iter(study.ASKED.items()))
    prompt = study.asked(question, answer)
    rows = kg.per_span(kg.knockout("all", "span", layers="all"), prompt.span_names[:3])
    table = kg.sweep(demo_model, prompt, rows, metrics=["js"], progress=False)
    mine = table.groupby("span", sort=False)["js"].sum()
    ids, n = (
        demo_model.tokenizer(prompt.whole)["input_ids"],
        len(demo_model.tokenizer(prompt.text)["input_ids"]),
    )
    clean = logits_of(raw_demo, ids)[n - 1 : -1]
    truth = []
    for name in prompt.span_names[:3]:
        keys = kg.token_positions(prompt, name, demo_model)
        pairs = [(query, key) for key in keys for query in range(key, len(ids))]
        hooks = (cut(layer, pairs) for layer in raw_demo.model.layers)
        edited = logits_of(raw_demo, ids, *hooks)
        truth.append(js(clean, edited[n - 1 : -1]).sum())
    np.testing.assert_allclose(mine, truth, rtol=1e-4, atol=1e-6)
    assert max(truth) == truth[1] > 0.5  # the sentence with the answer
