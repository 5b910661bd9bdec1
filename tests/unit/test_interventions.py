"""Interventions: names and kinds, and effects against masks and patches in the plain model."""

import dataclasses

import pytest
import torch

import knockgrid as kg

LOWEST = torch.finfo(torch.float64).min
TO_SUBJECT = [(9, 1), (9, 2), (9, 3)]


@pytest.mark.parametrize(
    ("dest", "src", "heads", "edges"),
    [
        ("last", "subject", None, TO_SUBJECT),
        *(("last", "subject", heads, TO_SUBJECT) for heads in ((0,), (1, 3), (3, 2, 0))),
        # several queries and several keys; what a query cannot see anyway stays as it is
        (
            ["rest", "last"],
            ["subject_last", 7],
            None,
            [(q, k) for q in (4, 5, 6, 7, 8, 9) for k in (3, 7) if k <= q],
        ),
        ("last", -1, None, [(9, 9)]),
    ],
)
def test_a_knockout_is_a_mask(sweep, plain, ids_of, prompts, scipy_js, dest, src, heads, edges):
    """JS at layer 0, on "The Eiffel Tower is located in the city of", in a window of all layers."""
    row = kg.knockout(dest, src, window=99, heads=heads)
    ids = ids_of(prompts[1].text)
    assert ids.shape == (1, 10)
    mask = torch.full((1, 4, 10, 10), LOWEST, dtype=torch.float64).triu(1)
    for query, key in edges:
        mask[0, range(4) if heads is None else heads, query, key] = LOWEST
    expected = scipy_js(*(plain(ids, attention_mask=m).logits[0, -1] for m in (None, mask)))
    assert expected > 1e-6
    found = float(sweep(prompts[1], row, layers=[0]).js[0])
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.fixture
def hooked(plain, ids_of, scipy_js):
    """JS on a prompt while a hook changes what a module of the plain model gives, or gets."""

    def js(prompt, register, hook):
        clean = plain(ids_of(prompt.text)).logits[0, -1]
        handle = register(hook)
        expected = scipy_js(clean, plain(ids_of(prompt.text)).logits[0, -1])
        handle.remove()
        assert expected > 1e-4
        return pytest.approx(expected, abs=1e-12)

    return js


@pytest.mark.parametrize("alpha", [0.25, 1.0, 1.5])
def test_alpha_goes_a_share_of_the_way(sweep, plain, outputs, prompts, hooked, alpha):
    france, _, italy = prompts
    row = kg.patch("resid_post", "subject", kg.donor(italy), alpha=alpha)
    old, new = (outputs(prompt.text)[1, 4] for prompt in (france, italy))

    def put(module, args, output):
        hidden = (output if torch.is_tensor(output) else output[0]).clone()
        hidden[0, 4] = (1 - alpha) * old + alpha * new
        return hidden if torch.is_tensor(output) else (hidden, *output[1:])

    expected = hooked(france, plain.model.layers[1].register_forward_hook, put)
    assert float(sweep(france, row, layers=[1]).js[0]) == expected


def test_a_patch_of_some_heads(sweep, plain, prompts, hooked):
    """Head 2's part of the mixed values goes to zero before the output projection."""
    row = kg.patch("z", "last", kg.zero(), heads=[2])

    def silence(module, args):
        mixed = args[0].clone()
        mixed[0, -1, 16:24] = 0
        return (mixed,)

    projection = plain.model.layers[3].self_attn.o_proj
    expected = hooked(prompts[1], projection.register_forward_pre_hook, silence)
    assert float(sweep(prompts[1], row, layers=[3]).js[0]) == expected


def test_a_window_patches_every_layer_of_its_set(telling, sweep, prompts):
    row = kg.patch("mlp_out", "last", kg.zero(), window="all_but", name="p")
    table = sweep(prompts[0], row, executor=telling, layers=[2, 0])
    for layer, inside in ((2, [0, 1, 3]), (0, [1, 2, 3])):
        edits = telling.edits["france", "p", layer, 0]
        assert [edit.layer for edit in edits] == inside
        assert [edit.pos for edit in edits] == [(5,)] * 3
    assert table.layers.tolist() == ["0,1,3", "1,2,3"]
    assert table.js.min() > 1e-4


@pytest.mark.parametrize(
    ("given", "source", "window", "act_name"),
    [
        ((), kg.corrupted_run(by=kg.noise(3.0)), 5, "resid_post"),
        ((kg.corrupted_run(kg.swap()), 1, "q"), kg.corrupted_run(by=kg.swap()), 1, "q"),
    ],
)
def test_information_flow_has_three_rows(given, source, window, act_name):
    rows = subject, attention, last = kg.information_flow(*given)
    assert [row.name for row in rows] == ["subject", "attention", "last"]
    assert [row.label for row in rows] == ["Subj.", "Attn.", "Last."]
    assert [row.window for row in rows] == [1, window, 1]
    assert (subject.sites, last.sites) == (((act_name, "subject"),), ((act_name, "last"),))
    assert attention.edges == ("last", "subject")
    assert (attention.heads, attention.source) == (None, None)
    assert subject.source == last.source == source


def test_names_and_kinds():
    mlp, cut, edge = kg.patch("mlp_out", "last"), kg.knockout(), kg.edge_patch()
    rows = [mlp, cut, edge, kg.patch("q", -1, name="n")]
    names = ["mlp_out@last", "subject->last", "edge subject->last", "n"]
    assert [row.name for row in rows] == [row.label for row in rows] == names
    assert [row.kind for row in rows] == ["patch mlp_out", "knockout", "edge_patch", "patch q"]
    assert kg.knockout(label="Attn.").label == "Attn."
    assert mlp.describe() == {
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
    for row in rows:
        with pytest.raises(dataclasses.FrozenInstanceError):
            row.window = 3


def test_an_edge_patch_needs_a_run():
    with pytest.raises(kg.InputError, match=r"keys and values of a run, and 'zero\(\)' has none"):
        kg.edge_patch(source=kg.zero())
