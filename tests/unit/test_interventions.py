"""Interventions: names and kinds, and effects against masks and patches in the plain model."""

import pytest
import torch

LOWEST = torch.finfo(torch.float64).min
EVERYWHERE = 99  # a window that covers every layer


def masked(n, *pairs, heads=(0, 1, 2, 3)):
    """A causal additive mask `[1, head, query, key]` in which some heads miss some edges."""
    mask = torch.full((1, 4, n, n), LOWEST, dtype=torch.float64).triu(1)
    for query, key in pairs:
        for head in heads:
            mask[0, head, query, key] = LOWEST
    return mask


@pytest.fixture
def blocked(plain, ids_of, prompts, scipy_js):
    """JS of a plain forward under a mask, on "The Eiffel Tower is located in the city of"."""

    def js(*pairs, **options):
        ids = ids_of(prompts[1].text)
        assert ids.shape == (1, 10)
        edited = plain(ids, attention_mask=masked(10, *pairs, **options)).logits[0, -1]
        return scipy_js(plain(ids).logits[0, -1], edited)

    return js


@pytest.fixture
def measured(sweep, prompts):
    """JS of one intervention at layer 0, on the same prompt."""

    def js(row):
        value = float(sweep(prompts[1], row, layers=[0]).js[0])
        assert value > 1e-6
        return value

    return js


def test_a_knockout_blocks_its_edges_in_all_heads(measured, blocked):
    import knockgrid as kg

    row = kg.knockout("last", "subject", window=EVERYWHERE)
    assert measured(row) == pytest.approx(blocked((9, 1), (9, 2), (9, 3)), abs=1e-12)


@pytest.mark.parametrize("heads", [(0,), (1, 3), (3, 2, 0)])
def test_a_knockout_of_some_heads(measured, blocked, heads):
    import knockgrid as kg

    row = kg.knockout("last", "subject", window=EVERYWHERE, heads=heads)
    expected = blocked((9, 1), (9, 2), (9, 3), heads=heads)
    assert measured(row) == pytest.approx(expected, abs=1e-12)


def test_a_knockout_between_any_positions(measured, blocked):
    """Several queries and several keys; what a query cannot see anyway stays as it is."""
    import knockgrid as kg

    row = kg.knockout(["rest", "last"], ["subject_last", 7], window=EVERYWHERE)
    queries, keys = (4, 5, 6, 7, 8, 9), (3, 7)
    pairs = [(q, k) for q in queries for k in keys if k <= q]
    assert measured(row) == pytest.approx(blocked(*pairs), abs=1e-12)


def test_a_position_may_be_kept_from_itself(measured, blocked):
    import knockgrid as kg

    row = kg.knockout("last", -1, window=EVERYWHERE)
    assert measured(row) == pytest.approx(blocked((9, 9)), abs=1e-12)


@pytest.mark.parametrize("alpha", [0.25, 1.0, 1.5])
def test_alpha_goes_a_share_of_the_way(sweep, plain, ids_of, outputs, prompts, scipy_js, alpha):
    import knockgrid as kg

    france, _, italy = prompts
    row = kg.patch("resid_post", "subject", kg.donor(italy), alpha=alpha)
    table = sweep(france, row, layers=[1])
    old, new = (outputs(prompt.text)[1, 4] for prompt in (france, italy))

    def put(module, args, output):
        hidden = (output if torch.is_tensor(output) else output[0]).clone()
        hidden[0, 4] = (1 - alpha) * old + alpha * new
        return hidden if torch.is_tensor(output) else (hidden, *output[1:])

    clean = plain(ids_of(france.text)).logits[0, -1]
    handle = plain.model.layers[1].register_forward_hook(put)
    expected = scipy_js(clean, plain(ids_of(france.text)).logits[0, -1])
    handle.remove()
    assert expected > 1e-4
    assert float(table.js[0]) == pytest.approx(expected, abs=1e-12)


def test_a_patch_of_some_heads(sweep, plain, ids_of, prompts, scipy_js):
    """Head 2's part of the mixed values goes to zero before the output projection."""
    import knockgrid as kg

    tower = prompts[1]
    table = sweep(tower, kg.patch("z", "last", kg.zero(), heads=[2]), layers=[3])

    def silence(module, args):
        mixed = args[0].clone()
        mixed[0, -1, 16:24] = 0
        return (mixed,)

    clean = plain(ids_of(tower.text)).logits[0, -1]
    handle = plain.model.layers[3].self_attn.o_proj.register_forward_pre_hook(silence)
    expected = scipy_js(clean, plain(ids_of(tower.text)).logits[0, -1])
    handle.remove()
    assert expected > 1e-4
    assert float(table.js[0]) == pytest.approx(expected, abs=1e-12)


def test_a_window_patches_every_layer_of_its_set(telling, sweep, prompts):
    import knockgrid as kg

    row = kg.patch("mlp_out", "last", kg.zero(), window="all_but", name="p")
    table = sweep(prompts[0], row, executor=telling, layers=[2, 0])
    for layer, inside in ((2, [0, 1, 3]), (0, [1, 2, 3])):
        edits = telling.edits["france", "p", layer, 0]
        assert [edit.layer for edit in edits] == inside
        assert [edit.pos for edit in edits] == [(5,)] * 3
    assert table.layers.tolist() == ["0,1,3", "1,2,3"]
    assert table.js.min() > 1e-4


def test_information_flow_has_three_rows():
    import knockgrid as kg

    subject, attention, last = kg.information_flow()
    assert [row.name for row in (subject, attention, last)] == ["subject", "attention", "last"]
    assert [row.label for row in (subject, attention, last)] == ["Subj.", "Attn.", "Last."]
    assert [row.window for row in (subject, attention, last)] == [1, 5, 1]
    assert [row.sites for row in (subject, last)] == [
        (("resid_post", "subject"),),
        (("resid_post", "last"),),
    ]
    assert attention.edges == ("last", "subject")
    assert attention.heads is None
    assert attention.source is None
    assert subject.source == last.source == kg.corrupted_run(by=kg.noise(3.0))


def test_information_flow_passes_its_options_on():
    import knockgrid as kg

    source = kg.corrupted_run(by=kg.swap())
    subject, attention, last = kg.information_flow(source, window=1, act_name="resid_pre")
    assert subject.source == last.source == source
    assert attention.window == 1
    assert subject.sites == (("resid_pre", "subject"),)


def test_names_and_kinds():
    import knockgrid as kg

    rows = [
        kg.patch("mlp_out", "last"),
        kg.knockout(),
        kg.edge_patch(),
        kg.patch("q", -1, name="n"),
    ]
    assert [row.name for row in rows] == [
        "mlp_out@last",
        "subject->last",
        "edge subject->last",
        "n",
    ]
    assert [row.kind for row in rows] == ["patch mlp_out", "knockout", "edge_patch", "patch q"]
    assert [row.label for row in rows] == [row.name for row in rows]
    assert kg.knockout(label="Attn.").label == "Attn."
    assert rows[0].describe() == {
        "name": "mlp_out@last",
        "row": "last",
        "kind": "patch mlp_out",
        "window": 1,
        "source": "corrupted_run(noise(3.0))",
        "corruption": "noise(3.0)",
        "place": "last",
        "role": "treatment",
        "of": None,
    }


def test_interventions_are_frozen():
    import dataclasses

    import knockgrid as kg

    for row in (*kg.information_flow(), kg.edge_patch()):
        with pytest.raises(dataclasses.FrozenInstanceError):
            row.window = 3


def test_an_edge_patch_needs_a_run():
    import knockgrid as kg

    with pytest.raises(kg.InputError) as caught:
        kg.edge_patch(source=kg.zero())
    assert str(caught.value) == (
        "edge_patch needs keys and values of a run, and 'zero()' has none; "
        "use corrupted_run() or donor()"
    )
