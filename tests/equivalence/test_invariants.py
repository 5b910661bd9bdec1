"""The invariants of the semantics, on every executor, with an effect beside every zero."""

import numpy as np
import pytest
import torch

import knockgrid as kg

SITES = ("resid_pre", "resid_post", "mlp_out", "attn_out", "q", "k", "v", "z")
EFFECT = 1e-4


def sweep(model, prompts, rows, **options):
    return kg.sweep(model, prompts, rows, progress=False, **options)


def js(table, name, prompt, layer, column="js"):
    """One value of a table with one measured token."""
    row = table[(table.intervention == name) & (table.prompt == prompt) & (table.layer == layer)]
    assert len(row) == 1
    return float(row[column].iloc[0])


def test_a_self_patch_is_nothing(tiny, executor, prompts):
    itself = kg.donor({prompt.id: prompt for prompt in prompts})
    own = [kg.patch(site, "subject", itself, name=f"own {site}") for site in SITES]
    other = [kg.patch(site, "subject", kg.noise(1.0), name=f"other {site}") for site in SITES]
    table = sweep(tiny, prompts, [*own, *other], layers=[2, 0], executor=executor)
    for site in SITES:
        assert table[table.intervention == f"own {site}"].js.max() <= 1e-12
        first = (table.intervention == f"other {site}") & (table.layer == 0)
        assert table[first].js.min() > EFFECT


def test_an_edge_patch_from_the_run_itself_is_nothing(tiny, executor, prompts):
    itself = kg.donor({prompt.id: prompt for prompt in prompts})
    rows = [kg.edge_patch(source=itself, name="own"), kg.edge_patch(name="other")]
    table = sweep(tiny, prompts, rows, executor=executor)
    assert table[table.intervention == "own"].js.max() <= 1e-12
    assert table[table.intervention == "other"].js.min() > EFFECT


def test_an_empty_knockout_is_nothing(tiny, executor, prompts, nothing):
    rows = [kg.knockout(heads=(), name="no head"), kg.knockout(name="all heads")]
    table = sweep(tiny, prompts, rows, executor=executor)
    assert (table[table.intervention == "no head"].js <= nothing).all()
    assert table[table.intervention == "all heads"].js.min() > EFFECT


def ends(table, prompt, last_layer):
    """Where the subject row begins, and where the last row ends."""
    return js(table, "begin", prompt, 0), js(table, "last", prompt, last_layer)


def flow(source):
    return [kg.patch("resid_pre", "subject", source, name="begin"), *kg.information_flow(source)]


def test_the_rows_meet_with_noise(tiny, executor, prompts):
    last = tiny.cfg.n_layers - 1
    source = kg.corrupted_run(by=kg.noise(3.0))
    table = sweep(tiny, prompts, flow(source), layers=[0, last], executor=executor)
    for side in table.attrs["knockgrid"]["prompts"]:
        begin, end = ends(table, side["id"], last)
        assert side["js_corrupted"]["begin"] > EFFECT
        assert begin == pytest.approx(side["js_corrupted"]["begin"], abs=1e-12)
        assert end == pytest.approx(begin, abs=1e-12)
        assert js(table, "begin", side["id"], 0, "js_to_source") <= 1e-12
        assert js(table, "last", side["id"], last, "js_to_source") <= 1e-12


def test_the_rows_meet_with_a_swap(tiny, executor, pair, plain_of, scipy_js):
    """JS(clean, corrupted) is that of two plain forwards of the Hugging Face model."""
    last, model = tiny.cfg.n_layers - 1, plain_of(tiny)
    table = sweep(
        tiny, pair, flow(kg.corrupted_run(by=kg.swap())), layers=[0, last], executor=executor
    )
    with torch.no_grad():
        logits = [
            model(torch.tensor([tiny.tokenizer(p.text)["input_ids"]])).logits[0, -1] for p in pair
        ]
    expected = scipy_js(*logits)
    assert expected > EFFECT
    for prompt in pair:
        assert ends(table, prompt.id, last) == pytest.approx((expected, expected), abs=1e-12)


def test_the_subject_after_the_last_block_is_nothing(tiny, executor, prompts, nothing):
    last = tiny.cfg.n_layers - 1
    table = sweep(tiny, prompts, kg.information_flow(), layers=[0, last], executor=executor)
    for prompt in prompts:
        assert js(table, "subject", prompt.id, last) <= nothing
        assert js(table, "subject", prompt.id, 0) > EFFECT


def test_the_rows_meet_on_the_demo_model(demo_model, executor):
    """With noise and with a swap, to 1e-6 in float32."""
    from dataclasses import replace

    france = kg.Prompt("The capital of France is", spans={"subject": "France"}, id="france")
    swap = kg.Prompt("The capital of Japan is", spans={"subject": "Japan"})
    rows = [
        replace(row, name=f"{row.name} {by}")
        for by in ("noise", "swap")
        for row in flow(kg.corrupted_run(by=getattr(kg, by)()))
        if row.name != "attention"
    ]
    table = sweep(demo_model, france.replace(swap=swap), rows, layers=[0, 29], executor=executor)
    (side,) = table.attrs["knockgrid"]["prompts"]
    for by in ("noise", "swap"):
        begin = js(table, f"begin {by}", "france", 0)
        assert begin > 0.05
        assert begin == pytest.approx(side["js_corrupted"][f"begin {by}"], abs=1e-6)
        assert js(table, f"last {by}", "france", 29) == pytest.approx(begin, abs=1e-6)
        assert js(table, f"subject {by}", "france", 29) == 0
        assert js(table, f"subject {by}", "france", 0) > 0.05


class Watch:
    """The reference executor, with what every block put out in each of its forwards."""

    name, needs_kv = "watched reference", False

    def __init__(self, blocks):
        self.blocks, self.passes = blocks, []

    def keep(self, block, inputs, output):
        hidden = output if torch.is_tensor(output) else output[0]
        self.passes[-1].append(hidden[0].clone())

    def __call__(self, model, runs, cells):
        start = model.original_model.register_forward_pre_hook(lambda *_: self.passes.append([]))
        handles = [start, *(block.register_forward_hook(self.keep) for block in self.blocks)]
        try:
            for cell in cells:
                self.passes.clear()
                yield from kg.executors.reference(model, runs, [cell])
        finally:
            for handle in handles:
                handle.remove()


def test_a_knockout_into_the_last_token_touches_no_other(tiny, prompts):
    inside = tiny.original_model
    blocks = inside.model.layers if hasattr(inside, "model") else inside.transformer.h
    watch = Watch(list(blocks))
    sweep(tiny, prompts[1], kg.knockout(window=1), layers=[0], executor=watch)
    clean, edited = (torch.stack(found) for found in watch.passes)
    assert clean.shape == edited.shape == (len(blocks), 10, 32)
    assert torch.equal(clean[:, :-1], edited[:, :-1])
    assert (clean[:, -1] - edited[:, -1]).abs().amax(-1).min() > EFFECT


def test_a_window_over_everything_blocks_all_layers(tiny, executor, prompts, plain_of, scipy_js):
    """At any layer, and the same as one mask over the whole Hugging Face model."""
    depth, model = tiny.cfg.n_layers, plain_of(tiny)
    table = sweep(tiny, prompts, kg.knockout(window=2 * depth - 1), executor=executor)
    narrow = sweep(tiny, prompts, kg.knockout(window=2 * depth - 2), executor=executor)
    assert set(table.layers) == {",".join(map(str, range(depth)))}
    assert len(set(narrow.layers)) > 1
    for prompt in prompts:
        ids = torch.tensor([tiny.tokenizer(prompt.text)["input_ids"]])
        subject = kg.token_positions(prompt, "subject", tiny)
        lowest = torch.finfo(torch.float64).min
        mask = torch.full((1, 1, ids.shape[1], ids.shape[1]), lowest, dtype=torch.float64).triu(1)
        with torch.no_grad():
            clean = model(ids).logits[0, -1]
            mask[..., -1, list(subject)] = lowest
            blocked = model(ids, attention_mask=mask).logits[0, -1]
        expected = scipy_js(clean, blocked)
        assert expected > EFFECT
        found = table[table.prompt == prompt.id].js.to_numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
