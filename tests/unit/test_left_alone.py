"""The process and the model after every public function, after success, failure and Ctrl-C."""

import random
import shutil
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock, patch

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import recipes
import sklearn  # noqa: F401 - sets two variables of OpenMP's when it is first imported
import torch
from torch.nn.modules import module as every_module
from transformer_lens.model_bridge import TransformerBridge
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaMLP
from whole_state import differences, of_model, of_process, python_draws

import knockgrid as kg
from knockgrid.engine import preflight as _preflight
from knockgrid.engine.slower import FallbackWarning

SIZES = {"vocab_size": 400, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64}
SIZES |= {"initializer_range": 0.3, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


class Planted(Exception):
    """What the tests raise in the middle of things."""


@pytest.fixture(scope="module")
def tiny(tiny_tokenizer, booted, tmp_path_factory):
    """A Llama of two blocks in a state of its own, and the folder that it was loaded from."""
    folder = tmp_path_factory.mktemp("tiny")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = LlamaForCausalLM(LlamaConfig(**SIZES))
    made.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    model = booted(TransformerBridge.boot_transformers(str(folder), device="cpu"))
    ids = torch.tensor([[1, 40, 41]])
    model(ids).sum().backward()  # TransformerLens sets hooks of its own in the first forward
    next(model.original_model.parameters()).requires_grad_(False)
    backend = model.tokenizer.backend_tokenizer
    backend.enable_padding(direction="left", pad_id=0, pad_token="<pad>", length=20)
    backend.enable_truncation(max_length=4)
    model.tokenizer.padding_side = model.tokenizer.truncation_side = "left"
    return model, folder


@pytest.fixture(scope="module")
def prompts():
    """Four prompts of equal length with distinct subjects, partners of each other."""
    names = {"France": "Paris", "Italy": "Rome", "Brazil": "Portuguese", "Tower": "Eiffel"}
    made = [
        kg.Prompt(f"The capital of {name} is", spans={"subject": name}, answers=[answer])
        for name, answer in names.items()
    ]
    made = [p.replace(relation="capital", id=id_) for id_, p in zip("abcd", made, strict=True)]
    return [p.replace(swap=made[i ^ 1]) for i, p in enumerate(made)]


@pytest.fixture(scope="module")
def run_folder(tiny, prompts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished") / "run"
    with left_alone(SimpleNamespace(model=tiny[0]), "after the first sweep of all"):
        recipes.kg.sweep(tiny[0], prompts[:2], recipes.kg.knockout(), out=folder, progress=False)
    return folder


@pytest.fixture
def given(tiny, prompts, run_folder, tmp_path):
    return fresh(recipes.Given(*tiny, prompts, run_folder, tmp_path))


@pytest.fixture(autouse=True)
def unusual():
    """Settings that no library has by itself."""
    with (
        warnings.catch_warnings(),
        plt.rc_context({"font.size": 7.5, "axes.grid": True}),
        pd.option_context("display.max_rows", 7),
        np.errstate(under="warn"),
        np.printoptions(precision=3),
    ):
        warnings.simplefilter("ignore")
        yield


def fresh(given):
    """Without the receipt of an earlier preflight, and without an earlier run."""
    _preflight._RECEIPTS.pop(given.model, None)
    shutil.rmtree(given.scratch / "run", ignore_errors=True)
    return given


@contextmanager
def left_alone(given, when=""):
    """Fails when anything is not as it was on entering."""
    drawn = {name: Mock(side_effect=draw) for name, draw in python_draws().items()}
    before = {**of_process(), **of_model(given.model)}
    with patch.multiple(random, **drawn):
        yield
    changed = differences(before, {**of_process(), **of_model(given.model)})
    changed += [f"random.{name} was called" for name, draw in drawn.items() if draw.called]
    assert not changed, f"{'; '.join(changed)} {when}"


class Bomb:
    """Counts calls, and raises in the n-th."""

    def __init__(self, error=None, n=0):
        self.error, self.n, self.calls = error, n, 0

    def __call__(self, *args, **kwargs):
        self.calls += 1
        if self.calls == self.n:
            raise self.error("Planted")


@pytest.fixture
def in_a_block(monkeypatch):
    """Makes the n-th pass through an MLP fail, without a hook."""
    forward = LlamaMLP.forward

    def plant(bomb):
        def failing(self, x):
            bomb()
            return forward(self, x)

        monkeypatch.setattr(LlamaMLP, "forward", failing)
        return bomb

    return plant


def run(recipe, given):
    """Whether a recipe went through; only a planted error may stop it."""
    try:
        recipe(given)
    except (Planted, KeyboardInterrupt, kg.runs.PromptsFailed):
        return False
    except kg.InputError as error:
        if "Planted" not in str(error):
            raise
        return False
    return True


def test_every_public_function_has_a_recipe():
    cooked = {recipes.base(name) for name in [*recipes.OWN, *recipes.EXAMPLES]}
    assert recipes.PUBLIC.keys() == cooked
    assert len(cooked) > 90
    for name in recipes.EXAMPLES:
        recipes.example(name)


@pytest.mark.parametrize("name", [*recipes.OWN, *recipes.EXAMPLES])
def test_success(given, name):
    recipe = recipes.OWN.get(name) or recipes.example(name)
    with left_alone(given):
        assert run(recipe, given)


@pytest.mark.parametrize("name", [*recipes.LOOKS, *recipes.EXAMPLES])
def test_an_interruption_anywhere(given, name):
    """Ctrl-C at the third, the 30th and the 300th call of a function of knockgrid's."""
    recipe = recipes.OWN.get(name) or recipes.example(name)
    for n in (3, 30, 300):
        with left_alone(given, f"at call {n}"):
            if interrupted(recipe, given, n):
                break


def interrupted(recipe, given, at):
    """Whether a recipe went through, as it makes fewer calls than one that is interrupted."""
    calls, source = 0, str(Path(recipes.kg.__file__).parent)

    def profile(frame, event, _):
        nonlocal calls
        if event == "call" and frame.f_code.co_filename.startswith(source):
            calls += 1
            if calls == at:
                raise KeyboardInterrupt

    outer = sys.getprofile()
    sys.setprofile(profile)
    try:
        went_through = run(recipe, given)
    finally:
        sys.setprofile(outer)
    assert went_through is (calls < at)
    return went_through


VARIANTS = ["sweep, later tokens", "sweep, own tokens", "sweep, into a folder"]


@pytest.mark.parametrize("name", [*recipes.MAIN, *VARIANTS])
def test_a_pass_that_fails(given, in_a_block, name):
    """In recording, in preflight, in a pass of the executor; with gradients off."""
    recipe = recipes.PASSES[name]
    counted = in_a_block(Bomb())
    with torch.no_grad(), left_alone(given):
        assert run(recipe, given)
    n, last = counted.calls, counted.calls - 1
    places = {1: KeyboardInterrupt, n // 3: Planted, 2 * n // 3: KeyboardInterrupt, last: Planted}
    for at, error in places.items():
        with torch.no_grad(), left_alone(given, f"{error.__name__} at pass {at} of {n}"):
            in_a_block(Bomb(error, at))
            done = run(recipe, fresh(given))
            # another executor may have taken over, but nothing may swallow a Ctrl-C
            assert not (done and error is KeyboardInterrupt)


def an_mlp(model):
    return next(m for m in model.original_model.modules() if isinstance(m, LlamaMLP))


class Hooks:
    """Hooks of the user's own, of every kind, which count; one of them may raise."""

    def __init__(self, model):
        self.model, self.counts, self.bomb = model, {}, Bomb()
        inner = model.original_model.model
        model.add_hook("blocks.1.hook_mlp_out", lambda act, hook: self.bomb())
        model.add_hook("blocks.1.hook_mlp_out", self.count("TransformerLens"))
        model.add_hook("blocks.1.hook_mlp_out", self.count("TransformerLens, bwd"), dir="bwd")
        self.handles = [
            inner.register_forward_hook(self.count("forward")),
            inner.register_forward_pre_hook(self.count("pre")),
            an_mlp(model).register_full_backward_hook(self.count("backward")),
            every_module.register_module_forward_hook(self.count("global", type(inner))),
        ]

    def count(self, name, kind=object):
        self.counts[name] = 0

        def counting(module, *args, **kwargs):
            self.counts[name] += isinstance(module, kind)

        return counting

    def forward(self):
        """How often each hook fires in one forward and backward pass of the user's own."""
        before, weights = dict(self.counts), list(self.model.original_model.parameters())
        self.bomb = Bomb()
        torch.autograd.grad(self.model(torch.tensor([[1, 40]])).sum(), weights[1])
        return {name: count - before[name] for name, count in self.counts.items()}

    def remove(self):
        self.model.reset_hooks()
        for handle in self.handles:
            handle.remove()


@pytest.fixture
def hooks(given):
    made = Hooks(given.model)
    yield made
    made.remove()


@pytest.mark.parametrize("name", recipes.MAIN)
def test_hooks_of_the_user_s_own(given, hooks, name):
    """They stay, fire once in every pass, and an error of theirs is not swallowed."""
    recipe, once = recipes.PASSES[name], dict.fromkeys(hooks.counts, 1)
    with left_alone(given, "with hooks"):
        assert run(recipe, given)
    passes = hooks.bomb.calls
    assert hooks.counts["TransformerLens"] == passes > 0
    assert hooks.counts["forward"] == hooks.counts["global"] == passes <= hooks.counts["pre"]
    assert hooks.forward() == once
    for at, error in {1: Planted, passes // 2 + 1: KeyboardInterrupt, passes: Planted}.items():
        with left_alone(given, f"{error.__name__} in the hook's call {at} of {passes}"):
            hooks.bomb = Bomb(error, at)
            assert not run(recipe, given)
        assert hooks.forward() == once


def test_hooks_of_pytorch_ask_for_whole_prompts_too(given):
    """They take part, on the reference executor, wherever on the model they are."""
    lengths = set()

    def halve(module, args, output):
        if isinstance(module, LlamaMLP):
            lengths.add(output.shape[1])
            return output / 2
        return None

    def table():
        return kg.sweep(
            given.model, given.prompts[:1], kg.information_flow(), progress=False, n_tokens=1
        )

    without = table()
    block = an_mlp(given.model)
    for register in (block.register_forward_hook, every_module.register_module_forward_hook):
        handle = register(halve)
        try:
            with pytest.warns(FallbackWarning, match="hooks of your own"):
                edited = table()
        finally:
            handle.remove()
        assert len(lengths) == 1
        assert edited.attrs["knockgrid"]["receipt"]["executor"] == "reference"
        assert (edited.js - without.js).abs().max() > 1e-6
    assert (table().js == without.js).all()
