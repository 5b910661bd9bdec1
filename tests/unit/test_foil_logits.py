"""Measures of an answer and its foil on logits, and what they refuse."""

import math

import pytest
import torch

import knockgrid as kg
from knockgrid.divergences import logit_diff, p_change, recovered
from knockgrid.divergences.evaluate import evaluate


def test_nothing_is_recovered_within_a_tenth_of_a_logit():
    clean = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    tokens = {"answer": torch.tensor([0]), "foil": torch.tensor([1])}
    for distance, has in ((0.11, True), (0.09, False), (-0.11, True), (-0.09, False), (0.0, False)):
        corrupted = clean - torch.tensor([distance, 0.0])
        got = recovered(clean, clean, corrupted=corrupted, **tokens)
        assert got.isfinite().tolist() == [has]


def test_rows_that_are_no_distribution_have_no_logit_difference():
    rows = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, math.inf], [1.0, 0.0, math.nan]])
    tokens = {"answers": torch.tensor([0]), "foil": torch.tensor([1])}
    got = evaluate([logit_diff], rows[0], rows, **tokens)["logit_diff"]
    assert got.isfinite().tolist() == [True, False, False]


def test_a_change_of_probability_by_hand():
    clean = torch.tensor([[0.25, 0.75, 0.0]], dtype=torch.float64).log()
    rows = torch.tensor([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.25, 0.25, 0.5]]).double().log()
    assert p_change(clean, rows, answer=torch.tensor([0])).tolist() == pytest.approx([100, -100, 0])
    assert p_change(clean, rows, answer=torch.tensor([2])).isnan().all()
    assert p_change(clean, rows, answer=torch.tensor([-1])).isnan().all()


@pytest.mark.parametrize(
    ("measure", "given", "words"),
    [
        (logit_diff, {"answer": [0]}, "needs the foil's token ids: give foil=ids"),
        (logit_diff, {"answer": [0], "foil": [9]}, "foil 9 is no token: ids run from 0 to 3"),
        (logit_diff, {"answer": [0], "foil": [1, 1, 1]}, r"the foils have rows of shape \(3,\)"),
        (recovered, {"answer": [0], "foil": [1]}, "needs the run that values come from"),
    ],
)
def test_what_a_measure_is_not_given(measure, given, words):
    given = {name: torch.tensor(value) for name, value in given.items()}
    with pytest.raises(kg.InputError, match=words):
        measure(torch.zeros(2, 4), torch.zeros(2, 4), **given)


@pytest.mark.parametrize(
    ("corrupted", "words"),
    [
        (torch.zeros(2, 5), "the corrupted logits have 5 tokens and the intervened logits 4"),
        (torch.zeros(3, 4), r"the corrupted logits have rows of shape \(3,\)"),
        (torch.full((1, 4), math.nan), "the corrupted logits .* is no distribution"),
    ],
)
def test_a_corrupted_run_that_does_not_fit(corrupted, words):
    tokens = {"answer": torch.tensor([0]), "foil": torch.tensor([1])}
    with pytest.raises(kg.InputError, match=words):
        recovered(torch.zeros(2, 4), torch.zeros(2, 4), corrupted=corrupted, **tokens)
