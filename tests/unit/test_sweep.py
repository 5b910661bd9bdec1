"""sweep: samples, metrics, units, directions, metadata and order."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import rel_entr

import knockgrid as kg

LOWEST = torch.finfo(torch.float64).min


def test_many_samples(sweep, telling, tower, scipy_js):
    """js is the mean over samples, js_mean_dist the JS of the mean distribution."""
    rows = kg.information_flow()
    table = sweep(tower, rows, layers=[0, 2], samples=3, executor=telling, metrics=["js", "kl"])
    assert table.samples.tolist() == [3, 3, 1, 1, 3, 3]
    for row in table.itertuples():
        keys = [("tower", row.intervention, row.layer, i) for i in range(row.samples)]
        clean = telling.null[keys[0]][0]
        each = [scipy_js(clean, telling.logits[key][0]) for key in keys]
        assert row.js == pytest.approx(np.mean(each), abs=1e-12)
        mean = torch.stack([telling.logits[key][0].softmax(-1) for key in keys]).mean(0)
        assert row.js_mean_dist == pytest.approx(scipy_js(clean, mean.log()), abs=1e-12)
        if row.samples == 3:
            assert min(abs(a - b) for a, b in zip(each, each[1:], strict=False)) > 1e-6
            assert row.js_mean_dist < row.js - 1e-6


def test_the_first_sample_is_that_of_a_single_one(sweep, telling, tower):
    row = kg.patch("resid_post", "subject", name="p")
    single, many = telling, type(telling)()
    sweep(tower, row, layers=[0], executor=single)
    sweep(tower, row, layers=[0], executor=many, samples=2)
    one, first, second = (
        told.logits["tower", "p", 0, i] for told, i in ((single, 0), (many, 0), (many, 1))
    )
    torch.testing.assert_close(one, first, rtol=0, atol=1e-12)
    assert (one - second).abs().max() > 1e-3


def test_metrics_against_plain_logits(sweep, plain, tower, ids_of, tiny_tokenizer):
    """All eight of them, by SciPy from a masked forward of the plain model."""
    ids = ids_of(tower.text)
    mask = torch.full((1, 1, 10, 10), LOWEST, dtype=torch.float64).triu(1)
    mask[..., 9, 1:4] = LOWEST
    p, q = (
        plain(ids, attention_mask=given).logits[0, -1].softmax(-1).numpy() for given in (None, mask)
    )
    firsts = [
        tiny_tokenizer(" " + a, add_special_tokens=False)["input_ids"][0] for a in tower.answers
    ]
    answer = max(firsts, key=lambda token: p[token])
    assert len(set(firsts)) == 2
    m = (p + q) / 2
    expected = {
        "js": (rel_entr(p, m).sum() + rel_entr(q, m).sum()) / 2,
        "kl": rel_entr(p, q).sum(),
        "kl_reverse": rel_entr(q, p).sum(),
        "tv": np.abs(p - q).sum() / 2,
        "logp_clean": np.log(q[p.argmax()]),
        "rank_clean": (q > q[p.argmax()]).sum(),
        "logp_answer": np.log(q[answer]),
        "rank_answer": (q > q[answer]).sum(),
    }
    bits = {"js", "kl", "kl_reverse", "logp_clean", "logp_answer"}
    for unit, factor in (("nats", 1.0), ("bits", 1 / math.log(2))):
        table = sweep(tower, kg.knockout(window=99), layers=[0], unit=unit)
        assert table.attrs["knockgrid"]["unit"] == unit
        for name, value in expected.items():
            scale = factor if name in bits else 1.0
            assert float(table[name][0]) == pytest.approx(value * scale, rel=1e-9), (unit, name)
        (side,) = table.attrs["knockgrid"]["prompts"]
        assert side["logp_answer_clean"] == pytest.approx(np.log(p[answer]) * factor, rel=1e-9)
        assert side["rank_answer_clean"] == (p > p[answer]).sum()
        assert side["logp_clean"] == pytest.approx(np.log(p.max()) * factor, rel=1e-9)


def test_bits_reach_every_column_that_has_a_unit(sweep, prompts):
    rows = kg.information_flow()
    nats, bits = (sweep(prompts, rows, layers=[0], samples=2, unit=u) for u in ("nats", "bits"))
    for name in ("js", "kl", "kl_reverse", "js_mean_dist", "js_to_source", "logp_clean"):
        both = nats[name].notna()
        assert both.any()
        np.testing.assert_allclose(bits[name][both], nats[name][both] / math.log(2), rtol=1e-12)
    np.testing.assert_allclose(bits.tv, nats.tv, rtol=1e-12)
    for one, other in zip(*(t.attrs["knockgrid"]["prompts"] for t in (nats, bits)), strict=True):
        for name, value in one["js_corrupted"].items():
            assert other["js_corrupted"][name] == pytest.approx(value / math.log(2), rel=1e-12)


def test_the_way_to_the_source(sweep, telling, prompts, plain, ids_of, scipy_js):
    """js_to_source is the JS to the partner's run, NA where there is no source run."""
    france, _, italy = prompts
    rows = kg.information_flow(kg.corrupted_run(by=kg.swap()))
    table = sweep(france, rows, layers=[0, 3], executor=telling)
    partner = plain(ids_of(italy.text)).logits[0, -1]
    for row in table.itertuples():
        if row.intervention == "attention":
            assert np.isnan(row.js_to_source)
        else:
            edited = telling.logits["france", row.intervention, row.layer, 0][0]
            assert row.js_to_source == pytest.approx(scipy_js(partner, edited), abs=1e-12)
    distances = table.set_index(["intervention", "layer"]).js_to_source
    assert distances["last", 3] < 1e-12 < distances["last", 0]
    (side,) = table.attrs["knockgrid"]["prompts"]
    expected = scipy_js(plain(ids_of(france.text)).logits[0, -1], partner)
    assert side["js_corrupted"] == {
        name: pytest.approx(expected, abs=1e-12) for name in ("subject", "last")
    }


@pytest.mark.parametrize("executor", ["reference", "staircase", "rectangle"])
def test_denoising_with_a_swap(sweep, plain, outputs, ids_of, prompts, scipy_js, executor):
    """Clean states go into the partner's run, and JS refers to the clean run."""
    france, _, italy = prompts
    row = kg.patch("resid_post", "subject", kg.corrupted_run(by=kg.swap()))
    table = sweep(france, row, direction="denoising", executor=executor)
    clean = plain(ids_of(france.text)).logits[0, -1]
    states = outputs(france.text)
    for layer in range(4):

        def put(module, args, output, layer=layer):
            hidden = (output if torch.is_tensor(output) else output[0]).clone()
            hidden[0, 4] = states[layer, 4]
            return hidden if torch.is_tensor(output) else (hidden, *output[1:])

        handle = plain.model.layers[layer].register_forward_hook(put)
        expected = scipy_js(clean, plain(ids_of(italy.text)).logits[0, -1])
        handle.remove()
        assert expected > 1e-6
        assert float(table.js[layer]) == pytest.approx(expected, abs=1e-12)


def test_an_edge_that_cannot_be_seen_is_not_0(sweep, prompts):
    """The subject comes before the last token; the other way round there is nothing to block."""
    rows = [kg.knockout("subject", "last", name="ahead"), kg.knockout(name="back")]
    table = sweep(prompts, rows, layers=[1])
    ahead, back = (table[table.intervention == name] for name in ("ahead", "back"))
    assert ahead.js.isna().all()
    assert ahead.status.str.startswith("NA: no layer of 0,1,2,3 lets 'subject' see 'last'").all()
    assert (back.status == "ok").all()
    assert back.js.min() > 1e-4
    assert np.isnan(kg.grid(table).loc["ahead", 1])


def test_metadata(sweep, tower):
    options = {"seed": 4, "samples": 2, "n_tokens": 2}
    table = sweep(tower, kg.information_flow(window=3), layers=[3, 0], **options)
    meta = table.attrs["knockgrid"]
    expected = {
        **options,
        "mode": "prompt_only",
        "unit": "nats",
        "direction": "noising",
        "prepend_bos": True,
        "layer_order": [3, 0],
        "intervention_order": ["subject", "attention", "last"],
        "labels": {"subject": "Subj.", "attention": "Attn.", "last": "Last."},
        "dropped": {},
    }
    assert {name: meta[name] for name in expected} == expected
    assert set(meta) >= {"metrics", "sigma"}
    assert [one["window"] for one in meta["interventions"]] == [1, 3, 1]
    assert meta["interventions"][0]["source"] == "corrupted_run(noise(3.0))"
    assert meta["receipt"]["executor"] == "staircase"
    model = {
        "n_layers": 4,
        "n_heads": 4,
        "dtype": "float64",
        "architecture": "LlamaForCausalLM",
        "attn_implementation": "eager",
        "compatibility_mode": False,
    }
    assert {name: meta["model"][name] for name in model} == model
    digests = [meta["model"][f"{name}_digest"] for name in ("weights", "tokenizer")]
    assert list(map(len, digests)) == [64, 64]
    assert set(meta["versions"]) >= {"python", "knockgrid", "transformer-lens", "torch"}
    (side,) = meta["prompts"]
    told = ("tower", "The Eiffel Tower", "landmarks", 10, "city")
    assert tuple(side[k] for k in ("id", "subject", "group", "n_prompt", "relation")) == told
    assert side["tokens"][:3] == ["<s>", "The", " Eiffel"]
    assert json.loads(json.dumps(meta)) == meta
    assert set(table.group) == {"landmarks"}


def test_the_user_s_order_is_kept(sweep, prompts):
    """Prompts, then interventions, then layers; the lengths of prompts play no part."""
    rows = kg.information_flow()[::-1]
    table = sweep(prompts, rows, layers=[2, 0, -1], n_tokens=2)
    found = table[["prompt", "intervention", "layer", "token"]].to_numpy().tolist()
    assert found == [
        [prompt, name, layer, token]
        for prompt in ("france", "tower", "italy")
        for name in ("last", "attention", "subject")
        for layer in (2, 0, 3)
        for token in (0, 1)
    ]
    assert kg.grid(table[table.token == 0]).columns.tolist() == [2, 0, 3]
    sides = [side["id"] for side in table.attrs["knockgrid"]["prompts"]]
    assert sides == ["france", "tower", "italy"]


def test_the_order_changes_no_value_and_the_seed_does(sweep, prompts):
    rows, key = [*kg.information_flow(), kg.edge_patch()], ["prompt", "intervention", "layer"]
    one, other, seeded = (
        sweep(chosen, rows, layers=layers, seed=seed).set_index(key).sort_index()
        for chosen, layers, seed in (
            (prompts, [0, 3], 0),
            (prompts[::-1], [3, 0], 0),
            (prompts, [0, 3], 1),
        )
    )
    assert one.index.equals(other.index)
    assert one.js.max() > 1e-3
    np.testing.assert_allclose(one.js, other.js, rtol=0, atol=1e-12)
    drawn = (slice(None), "subject", 0)
    assert (one.js[drawn] - seeded.js[drawn]).abs().min() > 1e-6


def test_bos_is_counted_once(sweep, prompts):
    """Without BOS the same words are shorter by one token, and the numbers differ."""
    with_bos, without = (
        sweep(prompts[1], kg.knockout(), layers=[1], prepend_bos=one) for one in (True, False)
    )
    sides = [table.attrs["knockgrid"]["prompts"][0] for table in (with_bos, without)]
    assert [side["n_prompt"] for side in sides] == [10, 9]
    assert sides[0]["tokens"][1:] == sides[1]["tokens"]
    assert abs(with_bos.js[0] - without.js[0]) > 1e-5
    assert with_bos.js[0] == sweep(prompts[1], kg.knockout(), layers=[1]).js[0]


def test_a_table_on_disk_and_some_metrics(sweep, prompts, tmp_path):
    options = {"layers": [0, 1], "metrics": ["tv", "kl"]}
    table = sweep(prompts, kg.knockout(), **options)
    assert table.attrs["knockgrid"]["metrics"] == ["tv", "kl"]
    assert {"tv", "kl"} <= set(table.columns)
    assert "js" not in table.columns
    out = {"top": 0, "noise_floor": False, "out": tmp_path / "run"}
    back = sweep(prompts, kg.knockout(), **options, **out)
    assert back.attrs == table.attrs
    pd.testing.assert_frame_equal(back, table)
    pd.testing.assert_frame_equal(kg.open_run(tmp_path / "run"), table)


@pytest.mark.parametrize("executor", ["reference", "staircase", "rectangle"])
def test_both_ways_together_are_the_whole_corruption(sweep, tower, executor):
    """Nothing of the subject reaches the last token but through later queries."""
    table = sweep(tower, kg.edits.paths(), layers=[0, 1], executor=executor)
    (side,) = table.attrs["knockgrid"]["prompts"]
    found = table.set_index(["intervention", "layer"])["js"]
    assert side["js_corrupted"]["both"] > 1e-4
    assert found["both", 0] == pytest.approx(side["js_corrupted"]["both"], abs=1e-9)
    ways = [found[name, 0] for name in ("direct", "between")]
    assert min(ways) > 1e-6
    assert all(abs(one - found["both", 0]) > 1e-6 for one in ways)
    assert found["both", 1] != pytest.approx(found["both", 0], abs=1e-6)
