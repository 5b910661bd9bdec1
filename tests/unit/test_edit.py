"""Edits: the formula, and where in an activation it writes, against tables made by hand."""

import pytest
import torch

from knockgrid.passes.edit import Edit, Placed, compile_edits, formula

LOWEST = torch.finfo(torch.float64).min


def numbered(*shape):
    """An activation in which every entry is its own number."""
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float64).reshape(shape)


def carry_out(activation, *edits, row=0, start=0):
    before = activation.clone()
    out = compile_edits([Placed(edit, row, start) for edit in edits], "cpu")(activation)
    assert torch.equal(activation, before), "the user's tensor was written to"
    return out


def edit(act_name="resid_post", layer=0, **fields):
    return Edit(act_name, layer, **fields)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [3.0, 6.0]),
        ({"alpha": 0.25}, [1.5, 0.0]),
        ({"alpha": 0.0}, [1.0, -2.0]),
        ({"alpha": 2.0}, [5.0, 14.0]),
        ({"add": True}, [4.0, 4.0]),
        ({"alpha": 0.5, "add": True}, [2.5, 1.0]),
    ],
)
def test_the_formula(options, expected):
    old, new = torch.tensor([1.0, -2.0]), torch.tensor([3.0, 6.0])
    assert formula(old, new, **options).tolist() == expected


def test_alpha_one_gives_the_value_bit_for_bit_in_the_dtype_of_the_activation():
    """1e8 + (0.1 - 1e8) is 0 in float32."""
    old, new = torch.tensor([1e8]), torch.tensor([0.1])
    assert (old + (new - old)).item() == 0
    assert torch.equal(formula(old, new), new)
    assert formula(old.bfloat16(), new.double()).dtype == torch.bfloat16


def test_some_positions_are_replaced():
    activation = numbered(2, 4, 3)
    value = torch.tensor([[-1.0, -2, -3], [-4, -5, -6]], dtype=torch.float64)
    out = carry_out(activation, edit(pos=(1, 3), value=value), row=1)
    expected = activation.clone()
    expected[1, 1], expected[1, 3] = value[0], value[1]
    assert torch.equal(out, expected)


def test_some_heads_are_replaced():
    activation = numbered(1, 3, 4, 2)  # [row, pos, head, d_head]
    value = -numbered(2, 4, 2) - 1
    out = carry_out(activation, edit("z", pos=(0, 2), heads=(3, 1), value=value))
    expected = activation.clone()
    for i, pos in enumerate((0, 2)):
        for head in (3, 1):
            expected[0, pos, head] = value[i, head]
    assert torch.equal(out, expected)


def test_no_head_is_no_edit():
    activation = numbered(1, 3, 4, 2)
    out = carry_out(activation, edit("z", pos=(0, 2), heads=(), value=-numbered(2, 4, 2)))
    assert torch.equal(out, activation)
    scores = numbered(1, 4, 3, 3)
    blocked = carry_out(scores, edit("attn_scores", pos=(2,), src_pos=(0,), heads=()))
    assert torch.equal(blocked, scores)


def test_a_suffix_that_begins_later():
    """Positions count from the prompt's start; those before the pass are not in it."""
    activation = numbered(1, 3, 2)  # positions 2, 3 and 4
    value = torch.tensor([[-1.0, -2], [-3, -4], [-5, -6]], dtype=torch.float64)
    out = carry_out(activation, edit(pos=(1, 2, 4), value=value), start=2)
    assert out.tolist() == [[[-3, -4], [2, 3], [-5, -6]]]


def test_a_sum_with_a_share():
    activation = numbered(1, 2, 2)
    value = torch.tensor([[10.0, 20.0]], dtype=torch.float64)
    out = carry_out(activation, edit(pos=(1,), value=value, add=True, alpha=0.5))
    assert out.tolist() == [[[0, 1], [7, 13]]]


def test_edges_are_blocked():
    scores = numbered(2, 2, 3, 3)  # [row, head, query, key]
    out = carry_out(scores, edit("attn_scores", pos=(2,), src_pos=(0, 1)), row=1)
    expected = scores.clone()
    expected[1, :, 2, 0] = expected[1, :, 2, 1] = LOWEST
    assert torch.equal(out, expected)


def test_edges_of_some_heads_are_blocked():
    scores = numbered(1, 3, 3, 3)
    block = edit("attn_scores", pos=(1, 2), src_pos=(0, 2), heads=(2,))
    expected = scores.clone()
    expected[0, 2, 1, 0] = expected[0, 2, 2, 0] = expected[0, 2, 2, 2] = LOWEST
    # (1, 2) looks ahead: the model's own mask has it
    assert torch.equal(carry_out(scores, block), expected)


def test_keys_count_from_the_prompt_and_queries_from_the_pass():
    scores = numbered(1, 1, 2, 5)  # queries 3 and 4, keys 0 to 4
    out = carry_out(scores, edit("attn_scores", pos=(4,), src_pos=(1, 2)), start=3)
    expected = scores.clone()
    expected[0, 0, 1, 1] = expected[0, 0, 1, 2] = LOWEST
    assert torch.equal(out, expected)


def test_a_score_is_blocked_to_the_minimum_of_its_dtype():
    scores = torch.zeros(1, 1, 1, 2, dtype=torch.float32)
    out = carry_out(scores, edit("attn_scores", pos=(0,), src_pos=(0,)))
    assert out[0, 0, 0, 0] == torch.finfo(torch.float32).min
    assert out.softmax(-1).tolist() == [[[[0.0, 1.0]]]]


def test_a_row_is_copied_after_the_other_edits():
    """An edge patch hands on what its second row computed, heads apart."""
    activation = numbered(2, 2, 2, 2)
    write = edit("z", pos=(0,), value=torch.full((1, 2, 2), -9.0, dtype=torch.float64), row=1)
    copy = edit("z", pos=(0,), heads=(1,), from_row=1)
    out = carry_out(activation, copy, write)
    expected = activation.clone()
    expected[1, 0] = -9
    expected[0, 0, 1] = -9
    assert torch.equal(out, expected)


def test_a_row_is_copied_by_a_share():
    activation = numbered(4, 1, 2)
    out = carry_out(activation, edit(pos=(0,), from_row=1, alpha=0.5), row=2)
    assert out.tolist() == [[[0, 1]], [[2, 3]], [[5, 6]], [[6, 7]]]


def test_edits_of_many_cells_stay_apart():
    """One compiled function, three cells with rows of their own and different shares."""
    activation = numbered(4, 2, 1)
    ones = torch.full((1, 1), 100.0, dtype=torch.float64)
    placed = [
        Placed(edit(pos=(0,), value=ones), 1),
        Placed(edit(pos=(1,), value=2 * ones), 2),
        Placed(edit(pos=(1,), value=ones, alpha=0.5), 3),
    ]
    out = compile_edits(placed, "cpu")(activation)
    assert out[..., 0].tolist() == [[0, 1], [100, 3], [4, 200], [6, 53.5]]
