"""The divergences drawer against SciPy, mpmath and values worked out by hand."""

import math

import hypothesis.strategies as st
import mpmath
import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from fifty_digits import kl_of, logits, probabilities
from hypothesis import given, settings
from scipy.spatial.distance import jensenshannon

from knockgrid import divergences
from knockgrid.divergences import js, kl, kl_reverse, tv
from knockgrid.divergences.distribution import nan_rows
from knockgrid.divergences.divergence import in_unit, measures_of
from knockgrid.divergences.evaluate import evaluate
from knockgrid.divergences.pair import Pair
from knockgrid.errors import InputError

DRAWER = [getattr(divergences, name) for name in divergences.__all__]
DISTANCES = [js, kl, kl_reverse, tv]
WITHOUT_UNIT = ("tv", "rank_clean", "rank_answer", "logit_diff", "recovered", "p_change")
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
D_VOCAB = 49_152
INF = math.inf

distance = pytest.mark.parametrize("measure", DISTANCES, ids=lambda m: m.name)
every = pytest.mark.parametrize("measure", DRAWER, ids=lambda m: m.name)


@st.composite
def logit_pairs(draw, infinite=True):
    return logits(draw, [1e-6, 1e-4, 1e-2, 1.0], infinite)


def exact(x, y):
    """The four distances in 50 digits, from their definitions."""
    with mpmath.workdps(50):
        p, q = probabilities(x, y)
        m = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
        return {
            "js": (kl_of(p, m) + kl_of(q, m)) / 2,
            "kl": kl_of(p, q),
            "kl_reverse": kl_of(q, p),
            "tv": mpmath.fsum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2,
        }


def beside(answer, rows, **more):
    """An answer, the next token as its foil, and a third run, whose logits every dtype can hold."""
    foil = torch.where(answer < 0, answer, (answer + 1) % rows.shape[-1])
    third = (7 * torch.arange(rows.shape[-1]) % 5).to(rows)
    return {"answer": answer, "foil": foil, "corrupted": third, **more}


def rounding(measure):
    """What float32 may be off by: total variation feels a rounded normaliser at first order."""
    return 4e-6 if measure.name == "tv" else 1e-11


def textbook_js(logits_p, logits_q):
    """What other tools compute: logarithms of nearly equal probabilities, subtracted."""
    log_p, log_q = logits_p.log_softmax(-1), logits_q.log_softmax(-1)
    p, q = log_p.exp(), log_q.exp()
    log_m = ((p + q) / 2).log()
    return ((p * (log_p - log_m)).sum(-1) + (q * (log_q - log_m)).sum(-1)) / 2


def random_rows(n=6, d_vocab=500, size=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    clean = 3 * torch.randn(1, d_vocab, generator=generator)
    return clean, clean + size * torch.randn(n, d_vocab, generator=generator)


# What the values are


@distance
@settings(max_examples=100)
@given(rows=logit_pairs())
def test_fifty_digits(measure, rows):
    want = float(exact(*rows)[measure.name])
    double, single = (measure(*rows, dtype=dtype).item() for dtype in (torch.float64, None))
    assert double == pytest.approx(want, rel=1e-7, abs=2e-15 if measure.name == "tv" else 1e-25)
    assert single == pytest.approx(want, rel=2e-4, abs=rounding(measure))
    assert 0 <= single <= (INF if measure.upper is None else measure.upper) * (1 + 1e-6)


@pytest.mark.parametrize("size", [3.0, 0.3, 0.01])
def test_scipy_on_five_hundred_tokens(size):
    clean, rows = random_rows(size=size)
    got = evaluate(DISTANCES, clean, rows, dtype=torch.float64)
    p, q = (scipy.special.softmax(x.double().numpy(), axis=-1) for x in (clean, rows))
    want = {
        "js": jensenshannon(np.broadcast_to(p, q.shape), q, axis=-1) ** 2,
        "kl": scipy.special.rel_entr(p, q).sum(-1),
        "kl_reverse": scipy.special.rel_entr(q, p).sum(-1),
        "tv": np.abs(p - q).sum(-1) / 2,
    }
    for name, values in got.items():
        np.testing.assert_allclose(values.numpy(), want[name], rtol=1e-10, err_msg=name)


@pytest.mark.parametrize("level", [1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9])
def test_float32_keeps_small_effects_that_the_textbook_form_loses(level):
    clean, rows = random_rows(2, D_VOCAB, size=math.sqrt(8 * level))
    p, q = (scipy.special.softmax(x.double().numpy(), axis=-1) for x in (clean, rows))
    m = (p + q) / 2
    want = {
        # kl_div's terms are positive, so float64 does not cancel in the sum
        "js": (scipy.special.kl_div(p, m) + scipy.special.kl_div(q, m)).sum(-1) / 2,
        "kl": scipy.special.kl_div(p, q).sum(-1),
        "kl_reverse": scipy.special.kl_div(q, p).sum(-1),
    }
    got = evaluate([js, kl, kl_reverse], clean, rows)
    error = {name: np.abs(got[name].numpy() / want[name] - 1).max() for name in want}
    textbook = np.abs(textbook_js(clean, rows).numpy() / want["js"] - 1).max()
    assert want["js"] == pytest.approx(level, rel=0.5)
    assert error["js"] < (5e-6 if level >= 1e-7 else 1e-4)
    assert max(error["kl"], error["kl_reverse"]) < 1e-4
    assert textbook > 10 * error["js"] or level > 1e-5
    assert textbook > 1e-3 or level > 1e-6


@every
def test_rows_by_hand(measure):
    """p = (1/2, 1/2, 0, 0), q = (1/4, 0, 3/4, 0): shared, lost, gained and absent tokens."""
    clean = torch.tensor([0.0, 0.0, -INF, -INF], dtype=torch.float64)
    rows = torch.tensor([[1.0, 0.0, 3.0, 0.0]], dtype=torch.float64).log()
    ln = math.log
    shared = (ln(4 / 3) / 2 + ln(2 / 3) / 4) / 2
    want = {
        "js": shared + (1 / 2 + 3 / 4) * ln(2) / 2,
        "kl": INF,
        "kl_reverse": INF,
        "tv": 3 / 4,
        "logp_clean": ln(1 / 4),
        "rank_clean": 1,
        "logp_answer": ln(3 / 4),
        "rank_answer": 0,
        "kl_between": ln(4),  # p(A) = 0, q(A) = 3/4
        "kl_within_answers": 0,
        "kl_within_rest": INF,
        "logit_diff": ln(3),
        "recovered": 0,  # the clean run is infinitely far from the third
        "p_change": math.nan,  # of a probability of 0
    }
    foil, third = torch.tensor([0]), torch.zeros(4, dtype=torch.float64)
    got = measure(clean, rows, answer=torch.tensor([2]), foil=foil, corrupted=third)
    assert got.tolist() == pytest.approx([want[measure.name]], rel=1e-14, nan_ok=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_token_lost_costs_its_probability_times_ln_2(dtype):
    clean = torch.tensor([3.0, 0.0], dtype=dtype).log()  # log 0 = -inf
    rows = torch.tensor([[3.0, 1.0]], dtype=dtype).log()
    lost, kept = math.log(2) / 4, (math.log(8 / 7) + 0.75 * math.log(6 / 7)) / 2
    tolerance = 8 * torch.finfo(dtype).eps
    for p, q in ((clean[None], rows), (rows, clean[None])):
        assert js(p, q).item() == pytest.approx(lost / 2 + kept, rel=tolerance)
    assert kl(clean, rows).item() == pytest.approx(math.log(4 / 3), rel=tolerance)
    assert kl_reverse(rows, clean[None]).item() == pytest.approx(math.log(4 / 3), rel=tolerance)
    assert kl(rows, clean[None]).item() == kl_reverse(clean, rows).item() == INF


FAR = [torch.tensor([[0.0, gap], [gap, 0.0]]) for gap in (50.0, 87.0, 104.0, 120.0, 700.0)]
SMALL = torch.cat(random_rows(1, 500, size=1e-3))


@distance
@pytest.mark.parametrize("rows", [*FAR, SMALL], ids=range(6))
def test_gaps_beyond_the_dtype_and_a_small_effect(measure, rows):
    want = float(exact(*rows)[measure.name])
    assert measure(*rows).item() == pytest.approx(want, rel=1e-4 if rows is SMALL else 1e-6)


def test_a_loss_too_rare_for_float32_is_still_infinite():
    possible, excluded = torch.tensor([0.0, -120.0]), torch.tensor([0.0, -INF])
    assert possible.softmax(-1)[1] == 0
    assert kl(possible, excluded).item() == kl_reverse(excluded, possible).item() == INF
    assert kl(excluded, possible).item() == pytest.approx(0, abs=1e-30)
    assert js(possible, excluded).item() == pytest.approx(0, abs=1e-30)


@pytest.mark.parametrize("name", ["clean", "answer"])
def test_rank_and_logp_of_one_token(name):
    clean, rows = random_rows(5, 60, size=4.0)
    rows = rows.round()  # ties
    token = clean.argmax(-1).expand(5) if name == "clean" else torch.tensor([3, 0, 59, 7, 7])
    logp, rank = measures_of([f"logp_{name}", f"rank_{name}"])
    got = evaluate([logp, rank], clean, rows, answer=token)
    log_q = scipy.special.log_softmax(rows.double().numpy(), axis=-1)
    ranks = scipy.stats.rankdata(-rows.numpy(), method="min", axis=-1) - 1
    picked = (np.arange(5), token.numpy())
    np.testing.assert_allclose(got[logp.name].numpy(), log_q[picked], rtol=1e-6)
    np.testing.assert_array_equal(got[rank.name].numpy(), ranks[picked])
    assert len(set(ranks[picked])) > 1


# What holds for all values


@distance
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_identical_rows_give_exactly_zero(measure, dtype):
    clean, _ = random_rows(d_vocab=D_VOCAB)
    clean = clean.to(dtype)
    clean[0, ::7] = -INF
    for n in (1, 3):  # one row and a batch may be summed in different orders
        rows = clean.repeat(n, 1)
        assert measure(clean[0], rows).tolist() == [0.0] * n
        assert measure(rows, rows).tolist() == [0.0] * n


@distance
@settings(max_examples=40)
@given(logit_pairs(infinite=False), st.integers(0, 9), st.sampled_from([1e-3, 1e-2, 1.0]))
def test_zero_only_for_equal_distributions(measure, rows, token, step):
    x = rows[0] / 20  # every token keeps a probability that a step is felt by
    y = x.clone()
    y[token % len(y)] += step
    value = measure(x, y).item()
    want = float(exact(x, y)[measure.name])
    assert value == pytest.approx(want, rel=1e-2, abs=rounding(measure))
    assert value > 0
    assert measure(x.double(), x.double() + step).item() == pytest.approx(0, abs=1e-14)


@settings(max_examples=40)
@given(rows=logit_pairs(), data=st.data())
def test_symmetry_in_the_runs_and_in_the_vocabulary(rows, data):
    (x, y), order = rows, data.draw(st.permutations(range(len(rows[0]))))
    for there, back in ((js, js), (tv, tv), (kl, kl_reverse), (kl_reverse, kl)):
        one, other, mixed = (f.item() for f in (there(x, y), back(y, x), there(x[order], y[order])))
        assert (one, one) == pytest.approx((other, mixed), rel=1e-4, abs=rounding(there))


# What goes in


@every
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_logits_are_upcast_before_the_softmax(measure, dtype):
    clean, rows = (x.to(dtype) for x in random_rows())
    answer = torch.arange(6)
    got = measure(clean, rows, **beside(answer, rows))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert got.dtype == wide
    assert torch.equal(got, measure(clean.to(wide), rows.to(wide), **beside(answer, rows.to(wide))))
    assert torch.equal(got, evaluate([measure], clean, rows, **beside(answer, rows))[measure.name])
    double = measure(clean, rows, **beside(answer, rows), dtype=torch.float64)
    assert double.dtype == torch.float64
    clean, rows = clean.double(), rows.double()
    assert torch.equal(double, measure(clean, rows, **beside(answer, rows)))


@every
def test_units(measure):
    clean, rows = random_rows()
    more = beside(torch.arange(6), rows)
    nats, bits = (measure(clean, rows, unit=unit, **more) for unit in ("nats", "bits"))
    assert measure.logarithmic is (measure.name not in WITHOUT_UNIT)
    torch.testing.assert_close(bits, nats / math.log(2) if measure.logarithmic else nats)
    assert in_unit(1.0, measure, "bits") == pytest.approx(
        1 / math.log(2) if measure.logarithmic else 1.0
    )


@every
@pytest.mark.parametrize("bad", [math.nan, INF, -INF], ids=["nan", "inf", "all -inf"])
def test_rows_that_are_no_distribution(measure, bad):
    clean, rows = random_rows(4)
    rows[2, slice(None) if bad == -INF else 17] = bad
    assert nan_rows(rows).tolist() == [False, False, True, False]
    with pytest.raises(InputError, match=r"row \(2,\) of the intervened logits"):
        measure(clean, rows, **beside(torch.arange(4), rows))
    with pytest.raises(InputError, match=r"row \(2,\) of the clean logits"):
        measure(rows, clean.repeat(4, 1), **beside(torch.arange(4), rows))
    unchecked = evaluate([measure], clean, rows, **beside(torch.arange(4), rows))[measure.name]
    assert unchecked.isnan().tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("measure", "clean_rows", "more", "words"),
    [
        (js, (slice(None), slice(49)), {}, "49 tokens and the intervened logits 50"),
        (js, [0, 0, 0], {}, r"\(3,\) and the intervened logits \(4,\)"),
        (js, [0], {"answer": [1, 2]}, r"answers have rows of shape \(2,\)"),
        (js, [0], {"answer": [1, 2, 50, -1]}, "answer 50 is no token: ids run from 0 to 49"),
        (divergences.rank_answer, [0], {}, "needs the answer's token ids"),
        (js, [0], {"dtype": torch.float16}, "unknown dtype"),
        (js, [0], {"unit": "bit"}, "unknown unit 'bit'; did you mean 'bits'"),
    ],
)
def test_inputs_that_do_not_fit(measure, clean_rows, more, words):
    clean, rows = random_rows(4, 50)
    more = {k: torch.tensor(v) if isinstance(v, list) else v for k, v in more.items()}
    with pytest.raises(InputError, match=words):
        measure(clean[clean_rows], rows, **more)


# How it is computed


@pytest.mark.parametrize("clean_rows", ["flat", "one", "each"])
@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 100, None])
def test_chunks_change_nothing(clean_rows, chunk):
    clean, rows = random_rows(7, 300, size=3.0)
    shape = {"flat": clean[0], "one": clean, "each": rows.flip(0)}[clean_rows]
    answer = torch.tensor([4, -1, 9, 0, 299, 1, 2])
    got = evaluate(DRAWER, shape, rows, **beside(answer, rows), chunk=chunk)
    assert list(got) == [measure.name for measure in DRAWER]
    for measure in DRAWER:
        whole = measure(shape, rows, **beside(answer, rows))
        assert whole.isnan().tolist() == ["answer" in measure.needs and i < 0 for i in answer]
        # among one answer there is nothing to move; `test_chain_rule.py` has sets of several
        assert (whole.nansum() != 0) is not (measure.name == "kl_within_answers")
        torch.testing.assert_close(got[measure.name], whole, rtol=0, atol=0, equal_nan=True)


def test_rows_of_any_shape_none_and_on_a_device_that_is_not_waited_for():
    clean, rows = random_rows(6)
    answer = torch.arange(6)
    for measure in DRAWER:
        flat = measure(clean, rows, **beside(answer, rows))
        folded = measure(clean[0], rows.view(2, 3, -1), **beside(answer.view(2, 3), rows))
        assert torch.equal(folded, flat.view(2, 3))
    none = evaluate(DRAWER, clean, rows[:0], **beside(torch.tensor([3]), rows))
    assert {tuple(values.shape) for values in none.values()} == {(0,)}
    # a meta tensor has no values, so that reading one back raises
    clean, rows, answer = (x.to("meta") for x in (clean, rows, answer))
    assert all(x.is_meta for x in evaluate(DRAWER, clean, rows, **beside(answer, rows)).values())


@every
def test_inputs_stay_as_they_were_in_inference_mode_too(measure):
    clean, rows = random_rows()
    rows[:, 5] = -INF
    before, answer = (clean.clone(), rows.clone()), torch.arange(6)
    pair = Pair.from_logits(clean, rows, **beside(answer, rows))
    once, twice = measure.formula(pair), measure.formula(pair)
    assert torch.equal(once, twice)
    want = measure(clean, rows, **beside(answer, rows))
    assert all(map(torch.equal, (clean, rows), before))
    with torch.inference_mode():
        clean, rows = clean.clone(), rows.clone()
        assert torch.equal(measure(clean, rows, **beside(answer, rows)), want)
    assert torch.equal(measure(clean, rows, **beside(answer, rows)), want)


@distance
@pytest.mark.parametrize("absent", [False, True])
def test_gradients(measure, absent):
    clean, rows = (x.double() for x in random_rows(2, 6, size=2.0))
    clean, rows = clean.repeat(2, 1), rows.clone()
    if absent:
        clean[:, 3] = rows[:, 3] = -INF
    kept = torch.arange(6) != 3 if absent else torch.ones(6, dtype=torch.bool)

    def of_the_kept(p, q):
        return measure.formula(
            Pair.from_logits(clean.masked_scatter(kept, p), rows.masked_scatter(kept, q))
        )

    free = [x[:, kept].clone().requires_grad_() for x in (clean, rows)]
    assert torch.autograd.gradcheck(of_the_kept, free, fast_mode=True)
    leaves = clean.requires_grad_(), rows.requires_grad_()
    grads = torch.autograd.grad(measure.formula(Pair.from_logits(*leaves)).sum(), leaves)
    assert all(g.isfinite().all() and g.abs().sum() > 0 for g in grads)
