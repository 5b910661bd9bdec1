"""What makes two runs different: everything that an intervention holds, whatever its name."""

from dataclasses import replace
from functools import partial
from itertools import combinations

import numpy as np
import pytest
import torch

import knockgrid as kg
from knockgrid.runs.identity import digest_of, identity


def several():
    """Interventions that would pass for each other by name; made anew at every call."""
    paris, rome = (kg.Prompt(text, spans={"subject": text.split()[0]}) for text in ("A b", "C b"))
    one, other = torch.zeros(4), torch.zeros(4)
    other[3] = 1e-6
    made = [
        kg.knockout(),
        kg.knockout(heads=[1]),
        kg.knockout(heads=[2]),
        kg.knockout(window=9),
        kg.knockout(to="last", src="subject_last"),
        kg.edge_patch(),
        kg.patch("resid_post", "last"),
        kg.patch("resid_pre", "last"),
        kg.patch("resid_post", "subject"),
        kg.patch("resid_post", "last", alpha=0.5),
        kg.patch("resid_post", "last", kg.corrupted_run(by=kg.noise(1.0))),
        kg.patch("resid_post", "last", kg.corrupted_run(by=kg.noise(3.0, scale_from="vocabulary"))),
        kg.patch("resid_post", "last", kg.corrupted_run(by=kg.swap())),
        kg.patch("resid_post", "last", kg.donor(paris)),
        kg.patch("resid_post", "last", kg.donor(rome)),
        kg.patch("resid_post", "last", kg.fixed(one)),
        kg.patch("resid_post", "last", kg.fixed(other)),
        kg.patch("resid_post", "last", kg.fixed({0: one, 1: other})),
        kg.patch("resid_post", "last", kg.fixed({0: other, 1: one})),
    ]
    return [replace(intervention, name="same", label="same") for intervention in made]


def test_every_difference_is_seen():
    digests = [identity([one], {}) for one in several()]
    equal = [(i, j) for i, j in combinations(range(len(digests)), 2) if digests[i] == digests[j]]
    assert equal == []


def test_the_same_made_again_is_the_same():
    assert [digest_of(one) for one in several()] == [digest_of(one) for one in several()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_vectors_of_any_dtype(dtype):
    one = torch.tensor([[0, 1], [0, 1]]).to(dtype)
    assert digest_of(one) == digest_of(one.clone())
    assert digest_of(one) != digest_of(one.t())
    assert digest_of(one) != digest_of(one.flatten())


def test_an_executor_of_ones_own_is_known_by_its_name():
    class Mine:
        name = "mine"

    assert identity([], {"executor": Mine()}) == identity([], {"executor": Mine()})


def test_functions_differ_by_what_they_do():
    def made(k):
        return lambda x: x + k

    ones = [
        lambda x: 1,
        lambda x: 2,
        lambda x: [i * 2 for i in x],
        lambda x: [i + 1 for i in x],
        lambda x, y=1: 1,
        made(1),
        made(2),
        partial(max, 1),
        partial(min, 1),
        partial(min, 2),
        max,
    ]
    digests = [digest_of(one) for one in ones]
    assert len(set(digests)) == len(ones)
    assert digest_of(made(1)) == digest_of(made(1))


def test_numbers_of_numpy_are_numbers():
    options = {"layers": [np.int64(0), 1], "seed": np.int64(3)}
    assert identity([], options) == identity([], {"layers": [0, 1], "seed": 3})
