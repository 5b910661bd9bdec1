"""Prompts, and how exact this machine is, for the equivalence tests."""

import sys
from pathlib import Path

import pytest
import torch

import knockgrid as kg

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode: `stored` is ours


@pytest.fixture(scope="session")
def nothing():
    """The JS of an edit without effect in float64: 0, where products treat all rows alike.

    MKL on AMD's processors computes the rows that a multiple of four leaves over by a kernel that
    rounds differently; equal rows then differ in the last bit, whose square a divergence shows.
    """
    one, weight = torch.eye(3, 32, dtype=torch.float64)[:1] + 0.1, torch.linspace(-1, 1, 32 * 32)
    rows = torch.nn.functional.linear(one.repeat(5, 1), weight.double().sin().view(32, 32))
    return 0.0 if (rows == rows[:1]).all() else 1e-28


@pytest.fixture
def portable(monkeypatch):
    """What is drawn or normalised in float32 is computed in float64 here.

    PyTorch's kernels for float32 differ between processors: in the last bit of a draw, and by 4e-7
    in the KL after a softmax, which TransformerLens makes in float32.
    """
    softmax, randn = torch.nn.functional.softmax, torch.randn

    def as_scored(scores, dim=None, _stacklevel=3, dtype=None):
        return softmax(scores, dim, dtype=scores.dtype if scores.dtype == torch.float64 else dtype)

    def rounded(*shape, dtype=None, **given):
        return randn(*shape, dtype=torch.float64, **given).to(dtype or torch.get_default_dtype())

    monkeypatch.setattr(torch.nn.functional, "softmax", as_scored)
    monkeypatch.setattr(torch, "randn", rounded)


@pytest.fixture(params=["tiny_llama", "tiny_gpt2"])
def tiny(request):
    """Both tiny models, in float64."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["reference", "staircase", "rectangle"])
def executor(request) -> str:
    """Every executor that can be asked for by name."""
    return request.param


@pytest.fixture(scope="session")
def raw_demo():
    """The demo model of the Hugging Face library, with attention whose mask hooks can change."""
    from transformers import AutoModelForCausalLM

    from knockgrid.host.demo import demo_folder

    return AutoModelForCausalLM.from_pretrained(demo_folder(), attn_implementation="eager")


@pytest.fixture(scope="session")
def pair():
    """Two prompts of one template that are each other's swap partners."""
    france = kg.Prompt("The capital of France is", spans={"subject": "France"}, id="france")
    italy = kg.Prompt("The capital of Italy is", spans={"subject": "Italy"}, id="italy")
    return [france.replace(swap=italy), italy.replace(swap=france)]


@pytest.fixture(scope="session")
def prompts(pair):
    """Three prompts of two lengths, the longer one between the two of equal length."""
    tower = kg.Prompt(
        "The Eiffel Tower is located in the city of",
        spans={"subject": "The Eiffel Tower"},
        id="tower",
    )
    return [pair[0], tower, pair[1]]
