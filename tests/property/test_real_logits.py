"""The measures in float32 on rows of the demo model: heavy heads and long tails, unlike a normal
distribution's, on which a sum in few lanes looks right."""

import math

import numpy as np
import pytest
import scipy.special
import torch

from knockgrid import prompts as datasets
from knockgrid.divergences import js, kl, kl_between, kl_reverse, logp_answer, tv
from knockgrid.divergences.distribution import Distribution, summed
from knockgrid.divergences.divergence import in_unit
from knockgrid.divergences.evaluate import evaluate
from knockgrid.engine.top_tokens import top_tokens

PAIRS = 200
VOCABULARIES = (49_152, 128_256, 262_144)
INF = math.inf


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def rows(one_thread, demo_model):
    """The next-token logits at every position of some facts, each once."""
    found = []
    with torch.inference_mode():
        for prompt in datasets.facts()[::80]:
            found.append(demo_model(demo_model.to_tokens(prompt.text), return_type="logits")[0])
    return torch.cat(found).float().unique(dim=0)


def widened(rows, d_vocab, seed=0):
    """Rows like real ones for a larger vocabulary: with copies, shuffled and less likely."""
    generator = torch.Generator().manual_seed(seed)
    parts = [rows]
    while sum(part.shape[-1] for part in parts) < d_vocab:
        parts.append(rows[:, torch.randperm(rows.shape[-1], generator=generator)] - 6)
    return torch.cat(parts, -1)[:, :d_vocab]


def pairs(rows, n=PAIRS):
    """Different rows of the model, and rows that an edit would move a little."""
    generator = torch.Generator().manual_seed(1)
    one = torch.randint(len(rows), (n,), generator=generator)
    other = (one + torch.randint(1, len(rows), (n,), generator=generator)) % len(rows)
    return [(i, j, 1.0 if k % 2 else 0.05) for k, (i, j) in enumerate(zip(one, other, strict=True))]


@pytest.mark.parametrize("d_vocab", VOCABULARIES)
def test_float32_keeps_six_digits_on_real_rows(rows, d_vocab):
    wide, n = widened(rows, d_vocab), 0
    measures = [js, kl, kl_reverse, tv, logp_answer, kl_between]
    for i, j, size in pairs(rows):
        clean, moved = wide[i], torch.lerp(wide[i], wide[j], size)[None]
        answers = clean.topk(3).indices
        got = evaluate(measures, clean, moved, answers=answers)
        want = evaluate(measures, clean, moved, answers=answers, dtype=torch.float64)
        for name in got:
            wrong, size = abs(got[name].double() - want[name]).item(), abs(want[name]).item()
            assert size > 0
            if name in ("js", "kl", "kl_reverse"):
                assert wrong < (1e-6 if name == "js" else 2e-6) * size
            else:  # these feel the rounding of a normaliser at first order
                assert wrong < 2e-6 * size + 3e-7
        n += 1
    assert n == PAIRS


def test_float64_equals_scipy_on_real_rows(rows):
    for i, j, _ in pairs(rows, 20):
        p, q = (scipy.special.softmax(rows[k].double().numpy()) for k in (i, j))
        m = (p + q) / 2
        want = (scipy.special.kl_div(p, m) + scipy.special.kl_div(q, m)).sum() / 2
        assert js(rows[i], rows[j]).item() == pytest.approx(want, rel=1e-6)


@pytest.mark.parametrize("d_vocab", VOCABULARIES)
def test_probabilities_sum_to_one(rows, d_vocab):
    wide = widened(rows[:40], d_vocab)
    naive = (wide.softmax(-1).double().sum(-1) - 1).abs().max()
    run = Distribution(wide)
    assert naive > 5e-6  # of torch's own softmax: there is something to mend
    assert (run.p.double().sum(-1) - 1).abs().max() < 5e-7
    exact = scipy.special.log_softmax(wide.double().numpy(), axis=-1)
    np.testing.assert_allclose(run.logp.numpy(), exact, atol=4e-6)
    kept = [logp for _, logp in top_tokens(wide, 5)]
    np.testing.assert_allclose(kept, -np.sort(-exact, axis=-1)[:, :5], atol=4e-6)


@pytest.mark.parametrize("d_vocab", VOCABULARIES)
@pytest.mark.parametrize("unit", ["nats", "bits"])
def test_bounds_hold_to_the_last_digit(rows, d_vocab, unit):
    wide = widened(rows[:30], d_vocab)
    even = torch.arange(d_vocab) % 2 == 0
    clean, moved = wide.masked_fill(even, -INF), wide.masked_fill(~even, -INF)
    for measure in (js, tv):
        bound = in_unit(measure.upper, measure, unit)
        values = measure(clean, moved, unit=unit).double()
        assert values.max() <= bound
        assert values.min() > bound * (1 - 1e-6)
        raw = evaluate([measure], clean, moved)[measure.name].double()
        assert (raw / measure.upper - 1).abs().max() < 1e-6  # no bound hides an error
    assert in_unit(js.upper, js, "bits") == 1


@pytest.mark.parametrize("d_vocab", [50_257, 128_256])
def test_a_row_gives_the_same_bits_alone_and_in_a_batch_on_any_number_of_threads(rows, d_vocab):
    wide, before = widened(rows[:7], d_vocab), torch.get_num_threads()
    sums, tops = set(), set()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            for n in (1, 2, 7):
                p = Distribution(wide[:n])
                sums.add(summed(wide[:n].exp())[0].item())
                tops.add(p.top_logp[0].item())
                assert js(wide[[0]], wide[:n])[0] == 0
    finally:
        torch.set_num_threads(before)
    assert len(sums) == len(tops) == 1
