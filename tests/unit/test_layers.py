"""Layer lists in the user's order, and the layer sets of windows and rules."""

import inspect

import numpy as np
import pytest

import knockgrid as kg
from knockgrid.edits.layers import layer_list, layer_set

L = 7


@pytest.mark.parametrize("layer", range(L))
@pytest.mark.parametrize("window", range(1, 2 * L + 2))
def test_a_window_is_centred_and_clipped(window, layer):
    """Even windows reach one layer further down than up, as ROME's c-5 ... c+4 does."""
    below, above = (window - 1) // 2 + (window % 2 == 0), (window - 1) // 2
    expected = [i for i in range(-50, 50) if layer - below <= i <= layer + above]
    assert len(expected) == window
    assert layer_set(window, layer, L) == tuple(i for i in expected if 0 <= i < L)


@pytest.mark.parametrize("layer", range(L))
def test_rules(layer):
    assert set(layer_set("only", layer, L)) == {layer}
    assert set(layer_set("all_but", layer, L)) == set(range(L)) - {layer}
    assert layer_set("from", layer, L) + layer_set("up_to", layer, L) == (
        *range(layer, L), *range(layer + 1),
    )  # fmt: skip


def test_a_window_of_twice_the_depth_is_everything():
    assert all(layer_set(2 * L - 1, layer, L) == tuple(range(L)) for layer in range(L))
    assert layer_set(2 * L - 2, 0, L) != tuple(range(L))


def test_layer_lists_keep_their_order():
    assert layer_list("all", L) == tuple(range(L))
    assert layer_list([5, 0, -1, 2], L) == (5, 0, 6, 2)
    assert layer_list(3, L) == (3,)
    assert layer_list(-7, L) == (0,)
    assert layer_list(range(4, 0, -2), L) == (4, 2)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([0, 7], "layer 7 is out of range: the model has layers 0 to 6"),
        (-8, "layer -8 is out of range: the model has layers 0 to 6"),
        ([2, 2], "layer 2 is given more than once; name each layer once"),
        ([6, -1], "layer 6 is given more than once; name each layer once"),
        ([], "no layers given; pass layers='all' or a list of layer numbers"),
        ("al", "unknown layers 'al'; did you mean 'all'? Allowed: all"),
    ],
)
def test_layer_lists_that_are_refused(layers, message):
    with pytest.raises(kg.InputError) as caught:
        layer_list(layers, L)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("window", "message"),
    [
        (
            0,
            "window is 0; give a number of layers of at least 1, layers=[...], or one of only",
        ),
        (-5, "window is -5; give a number of layers of at least 1"),
        ("all_bu", "unknown window 'all_bu'; did you mean 'all_but'? Allowed: only, all_but, from"),
    ],
)
def test_windows_that_are_refused(window, message):
    with pytest.raises(kg.InputError) as caught:
        kg.knockout(window=window)
    assert str(caught.value).startswith(message)


def test_numpy_integers_are_integers():
    """Called past the type checks that the tests run under."""
    for given in (np.array([3, -1]), list(np.array([3, -1]))):
        found = inspect.unwrap(layer_list)(given, L)
        assert found == (3, 6)
        assert {type(layer) for layer in found} == {int}
    assert inspect.unwrap(layer_list)(np.int64(2), L) == (2,)
