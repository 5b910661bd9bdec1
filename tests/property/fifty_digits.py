"""Rows of logits that hypothesis draws, and divergences of them in fifty digits."""

import math

import hypothesis.strategies as st
import mpmath
import torch


def logits(draw, sizes, infinite):
    """Two rows that float32 holds exactly: far apart, or one a small step from the other."""
    n = draw(st.integers(2, 10))
    row = st.lists(st.floats(-60, 60, width=32), min_size=n, max_size=n)
    x = torch.tensor(draw(row))
    if draw(st.booleans()):
        steps = draw(st.lists(st.floats(-1, 1, width=32), min_size=n, max_size=n))
        y = x + draw(st.sampled_from(sizes)) * torch.tensor(steps)
    else:
        y = torch.tensor(draw(row))
    if infinite:
        for one in (x, y):
            one[list(draw(st.sets(st.integers(1, n - 1), max_size=n - 1)))] = -math.inf
    return x, y


def probabilities(*rows):
    """Softmax in the precision that mpmath works in."""
    found = ([mpmath.exp(mpmath.mpf(float(a))) for a in row] for row in rows)
    return [[a / mpmath.fsum(row) for a in row] for row in found]


def kl_of(p, q):
    """KL from its definition."""
    if any(a > 0 and b == 0 for a, b in zip(p, q, strict=True)):
        return mpmath.inf
    return mpmath.fsum(a * mpmath.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)
