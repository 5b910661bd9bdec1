"""The chain rule of KL: three measures that sum to `kl`, against SciPy and fifty digits."""

import math

import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
import scipy.special
import torch
from fifty_digits import kl_of, logits, probabilities
from hypothesis import given, settings

from knockgrid import divergences
from knockgrid.divergences.evaluate import evaluate
from knockgrid.errors import InputError

PARTS = [divergences.kl_between, divergences.kl_within_answers, divergences.kl_within_rest]
NAMES = [measure.name for measure in PARTS]
INF = math.inf


@st.composite
def questions(draw):
    """Two rows of logits, with tokens that cannot occur, and a set of answers with repetitions."""
    x, y = logits(draw, [1e-4, 1e-2, 1.0], infinite=True)
    tokens = draw(st.lists(st.integers(0, len(x) - 1), min_size=1, max_size=len(x)))
    return x, y, torch.tensor([*tokens, *[-1] * draw(st.integers(0, 2))])


def exact(x, y, tokens):
    """The three parts in 50 digits, from their definitions."""
    with mpmath.workdps(50):
        p, q = probabilities(x, y)
        answers = set(tokens.tolist()) - {-1}
        sides = [
            [(a, b) for i, (a, b) in enumerate(zip(p, q, strict=True)) if (i in answers) is inside]
            for inside in (True, False)
        ]
        sums = [[mpmath.fsum(one) for one in zip(*side, strict=True)] or [0, 0] for side in sides]
        between = kl_of(*zip(*sums, strict=True))
        within = [
            a * kl_of([one / a for one, _ in side], [one / b for _, one in side]) if a and b else 0
            for side, (a, b) in zip(sides, sums, strict=True)
        ]
        return dict(zip(NAMES, [between, *within], strict=True))


def vocabulary(level, n=4, d_vocab=20_000, seed=0):
    """Rows whose KL is about `level`, and the tokens by their clean probability."""
    generator = torch.Generator().manual_seed(seed)
    clean = 3 * torch.randn(1, d_vocab, generator=generator)
    rows = clean + math.sqrt(2 * level) * torch.randn(n, d_vocab, generator=generator)
    return clean, rows, clean[0].argsort(descending=True)


def by_scipy(clean, rows, tokens):
    p, q = (scipy.special.softmax(x.double().numpy(), axis=-1) for x in (clean, rows))
    inside = np.isin(np.arange(p.shape[-1]), tokens.numpy())
    p_in, q_in, p_out, q_out = (x[:, part] for part in (inside, ~inside) for x in (p, q))

    def kl(a, b):  # its terms are positive, so that float64 does not cancel
        return scipy.special.kl_div(a, b).sum(-1)

    sums = [x.sum(-1, keepdims=True) for x in (p_in, q_in, p_out, q_out)]
    columns = np.broadcast_arrays(*(one[:, 0] for one in sums))
    between = np.array([_between(*row) for row in zip(*columns, strict=True)])
    within = [
        (a * kl(x / a, y / b)[:, None])[:, 0]
        for x, y, a, b in ((p_in, q_in, *sums[:2]), (p_out, q_out, *sums[2:]))
    ]
    return dict(zip(NAMES, [between, *within], strict=True))


def test_a_gain_too_rare_for_the_dtype_is_no_loss():
    """exp(-84) is above the least float32, but not far: what could not be said before gains."""
    x, y = torch.zeros(9), torch.zeros(9)
    x[3], y[3], y[8] = -torch.inf, -46.0, 38.0
    got = divergences.kl_between(x, y, answers=torch.tensor([3])).item()
    assert got == pytest.approx(math.exp(-84), rel=1e-5)


@settings(max_examples=80)
@given(question=questions(), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_fifty_digits(question, dtype):
    x, y, tokens = question
    want = exact(x, y, tokens)
    rounding = 2e-5 if dtype == torch.float32 else 1e-9
    tiny = 1e-11 if dtype == torch.float32 else 1e-25
    for measure in PARTS:
        got = measure(x, y, answers=tokens, dtype=dtype).item()
        assert got >= 0
        want_here = float(want[measure.name])
        assert got == pytest.approx(want_here, rel=rounding, abs=tiny), measure.name


@settings(max_examples=30)
@given(question=questions())
def test_the_parts_sum_to_kl(question):
    x, y, tokens = question
    parts = sum(measure(x, y, answers=tokens, dtype=torch.float64).item() for measure in PARTS)
    whole = divergences.kl(x, y, dtype=torch.float64).item()
    assert parts == pytest.approx(whole, rel=1e-7, abs=1e-25)


@pytest.mark.parametrize("which", ["best", "three", "thousand", "rare", "all but three"])
@pytest.mark.parametrize("level", [1e-1, 1e-3, 1e-5, 1e-7])
def test_float32_keeps_every_part_of_a_small_effect(level, which):
    clean, rows, order = vocabulary(level)
    tokens = {
        "best": order[:1],
        "three": order[[0, 4, 9]],
        "thousand": order[:1000],
        "rare": order[-3:],
        "all but three": order[[*range(2), *range(5, len(order))]],
    }[which]
    want = by_scipy(clean, rows, tokens)
    got = evaluate([*PARTS, divergences.kl], clean, rows, answers=tokens)
    total = sum(want.values())
    for name in NAMES:
        # what is summed over the vocabulary has the rounding of `kl` itself
        loose = 1e-4 if name == "kl_within_rest" and level <= 1e-5 else 2e-5
        np.testing.assert_allclose(got[name], want[name], rtol=loose, atol=1e-13, err_msg=name)
    parts = sum(got[name].double() for name in NAMES)
    np.testing.assert_allclose(parts, total, rtol=1e-5 if level > 1e-5 else 5e-5)
    np.testing.assert_allclose(parts, got["kl"], rtol=1e-5 if level > 1e-5 else 1e-4)


def _between(a, b, rest_a, rest_b):
    """KL of two coins, in digits that hold the difference of two numbers near 1."""
    if a > rest_a:
        a, b = rest_a, rest_b
    with mpmath.workdps(50):
        a, b = mpmath.mpf(float(a)), mpmath.mpf(float(b))
        return float(kl_of([a, 1 - a], [b, 1 - b]))


def test_answers_move_among_themselves_or_to_the_rest():
    """Three planted edits, of which each is seen by one measure alone."""
    p = torch.tensor([[0.4, 0.2, 0.3, 0.1]], dtype=torch.float64)
    answers = torch.tensor([1, 0])
    edits = {
        "kl_between": [0.2, 0.1, 0.525, 0.175],
        "kl_within_answers": [0.1, 0.5, 0.3, 0.1],
        "kl_within_rest": [0.4, 0.2, 0.05, 0.35],
    }
    for seen, q in edits.items():
        for measure in PARTS:
            value = measure(p.log(), torch.tensor([q]).double().log(), answers=answers).item()
            assert (value > 0.05) is (measure.name == seen)
            assert value == pytest.approx(0, abs=1e-14) or measure.name == seen


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 3])
def test_identical_rows_give_exactly_zero(dtype, n):
    clean, _, order = vocabulary(1.0, d_vocab=700)
    clean = clean.to(dtype)
    clean[0, ::7] = -INF
    for tokens in (order[:4], order, torch.arange(0, 700, 7), torch.tensor([5, -1])):
        for measure in PARTS:
            rows = clean.repeat(n, 1)
            assert measure(clean[0], rows, answers=tokens).tolist() == [0.0] * n
            assert measure(rows, rows, answers=tokens).tolist() == [0.0] * n


def test_everything_is_an_answer():
    clean, rows, order = vocabulary(0.1, d_vocab=500)
    got = evaluate([*PARTS, divergences.kl], clean, rows, answers=order)
    assert got["kl_between"].tolist() == got["kl_within_rest"].tolist() == [0.0] * 4
    torch.testing.assert_close(got["kl_within_answers"], got["kl"], rtol=1e-6, atol=0)


def test_a_side_that_becomes_impossible_is_infinite_between_and_nothing_within():
    clean, rows, order = vocabulary(0.1, d_vocab=50)
    rows[:, order[:3]] = -INF
    got = evaluate(PARTS, clean, rows, answers=order[:3])
    assert got["kl_between"].tolist() == [INF] * 4
    assert got["kl_within_answers"].tolist() == [0.0] * 4
    assert got["kl_within_rest"].isfinite().all()
    some = evaluate(PARTS, clean, rows, answers=order[2:5])
    assert some["kl_within_answers"].tolist() == [INF] * 4
    assert some["kl_between"].isfinite().all()


@pytest.mark.parametrize("gap", [50.0, 87.0, 104.0, 120.0, 700.0])
def test_sides_too_rare_for_the_dtype(gap):
    x, y = torch.tensor([0.0, gap, gap - 1]), torch.tensor([gap, 0.0, 1.0])
    for tokens in (torch.tensor([0]), torch.tensor([1, 2]), torch.tensor([0, 2])):
        want = exact(x, y, tokens)
        for measure in PARTS:
            got = measure(x, y, answers=tokens).item()
            assert got == pytest.approx(float(want[measure.name]), rel=1e-5, abs=1e-30)


def test_a_rare_answer_that_is_lost_is_still_infinite():
    possible, excluded = torch.tensor([0.0, -120.0, -120.0]), torch.tensor([0.0, -120.0, -INF])
    pair = {"answers": torch.tensor([1, 2])}
    assert divergences.kl_within_answers(possible, excluded, **pair).item() == INF
    assert divergences.kl_within_answers(excluded, possible, **pair).item() < 1e-30
    assert divergences.kl_between(possible, excluded, answers=torch.tensor([2])).item() == INF


@pytest.mark.parametrize("chunk", [1, 2, 7, None])
@pytest.mark.parametrize("each", [False, True])
def test_chunks_sets_per_row_padding_and_order_change_nothing(chunk, each):
    clean, rows, order = vocabulary(0.1, n=7, d_vocab=300)
    answers = order[:14].view(7, 2) if each else order[:3]
    padded = torch.nn.functional.pad(answers, (2, 3), value=-1)
    got = evaluate(PARTS, clean, rows, answers=answers, chunk=chunk)
    for measure in PARTS:
        whole = measure(clean, rows, answers=answers)
        assert (whole > 0).all()
        torch.testing.assert_close(got[measure.name], whole, rtol=0, atol=0)
        for same in (padded, answers.flip(-1), torch.cat([answers, answers], -1)):
            torch.testing.assert_close(measure(clean, rows, answers=same), whole)
    one = [evaluate(PARTS, clean, rows[i : i + 1], answers=(answers[i] if each else answers))
           for i in range(7)]  # fmt: skip
    for name in NAMES:
        torch.testing.assert_close(torch.cat([row[name] for row in one]), got[name])


def test_the_first_of_a_set_is_the_answer_of_measures_that_read_one():
    clean, rows, order = vocabulary(0.1, n=2, d_vocab=60)
    sets = torch.stack([order[[5, 2]], torch.tensor([-1, -1])])
    measures = [divergences.logp_answer, divergences.rank_answer, *PARTS]
    got = evaluate(measures, clean, rows, answers=sets, chunk=1)
    want = evaluate(measures[:2], clean, rows, answer=sets[:, 0])
    for name, values in want.items():
        torch.testing.assert_close(got[name], values, equal_nan=True)
    assert all(values.isnan().tolist() == [False, True] for values in got.values())
    both = {"answer": order[[7, 8]], "answers": order[:3]}
    got = evaluate(measures, clean, rows, **both, chunk=1)
    for measure in measures:
        alone = "answer" if measure in measures[:2] else "answers"
        torch.testing.assert_close(got[measure.name], measure(clean, rows, **{alone: both[alone]}))


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        (torch.tensor([3, 50]), "answer 50 is no token"),
        (torch.zeros(3, 2, dtype=torch.long), r"sets of answers have rows of shape \(3,\)"),
        (torch.zeros(0, dtype=torch.long), r"sets of answers have shape \(0,\)"),
        (None, "needs the answer's token ids"),
    ],
)
def test_bad_input(answers, words):
    clean, rows, _ = vocabulary(0.1, d_vocab=50)
    with pytest.raises(InputError, match=words):
        divergences.kl_between(clean, rows, answers=answers)
