"""Bad input: one sentence, nothing computed, nothing written, the model as it was."""

import inspect
from contextlib import contextmanager

import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import GPTJConfig, GPTJForCausalLM

import knockgrid as kg
from knockgrid.edits.intervention import check_names

TOWER = "The Eiffel Tower is located in the city of"


class SlowTokenizer:
    """A tokenizer that knows no offsets."""

    is_fast = False
    bos_token_id = 1


@contextmanager
def counted(model):
    """The number of forwards that begin while it is open."""
    calls, inner = [], model.original_model
    plain = inner.forward

    def forward(*args, **options):  # not a hook, which would count as one of the user's own
        calls.append(1)
        return plain(*args, **options)

    inner.forward = forward
    yield calls
    del inner.forward


@pytest.fixture
def refuse(tiny_llama, tmp_path):
    """Sweeps into an error; gives its message once all that must hold beside it does."""

    def run(*args, model=tiny_llama, forwards=0, **options):
        inside = torch.get_rng_state()
        with counted(model) as calls, pytest.raises(kg.InputError) as caught:
            kg.sweep(model, *args, progress=False, out=tmp_path / "run", **options)
        message = str(caught.value)
        assert message
        assert "\n" not in message
        assert forwards is None or len(calls) == forwards, "something was computed first"
        assert not (tmp_path / "run").exists(), "something was written"
        assert torch.equal(inside, torch.get_rng_state())
        assert torch.is_grad_enabled()
        assert not model.training
        return message

    return run


FLOW = kg.information_flow()
OPTIONS = [
    ({"layers": [0, 4]}, ["layer 4", "layers 0 to 3"]),
    ({"layers": [-5]}, ["layer -5", "layers 0 to 3"]),
    ({"layers": [1, 1]}, ["layer 1", "once"]),
    ({"layers": []}, ["no layers", "layers='all'"]),
    ({"metrics": ["js", "kll"]}, ["metric 'kll'", "did you mean 'kl'?", "Allowed: js, "]),
    ({"metrics": []}, ["no metrics", "'js'"]),
    ({"mode": "persistant"}, ["mode 'persistant'", "'persistent'?", "Allowed: prompt_only, "]),
    ({"unit": "bit"}, ["unit 'bit'", "did you mean 'bits'?", "Allowed: nats, bits"]),
    ({"direction": "denoisin"}, ["direction 'denoisin'", "did you mean 'denois"]),
    ({"n_tokens": 0}, ["n_tokens is 0", "at least 1"]),
    ({"n_tokens": 120}, ["'tower' needs 129 tokens", "holds 128"]),
    ({"samples": -1}, ["samples is -1", "at least 1"]),
]


def says(message, *parts):
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(("options", "parts"), OPTIONS, ids=lambda one: str(one)[:20])
def test_an_option_that_is_refused(refuse, tower, options, parts):
    says(refuse(tower, FLOW, **options), *parts)


LONG = kg.Prompt("Rome" + " is" * 130, spans={"subject": "Rome"}, id="long")
FRANCE = kg.Prompt("The capital of France is", spans={"subject": "France"}, id="france")
SHORT = kg.Prompt("France is", spans={"subject": "France"}, id="short")


@pytest.mark.parametrize(
    ("prompts", "parts"),
    [
        (lambda tower: [], ["prompt set is empty"]),
        (lambda tower: [tower, tower], ["two prompts share the id 'tower'"]),
        (lambda tower: [tower, kg.Prompt("Rome is in")], ["'Rome is in' has no span 'subject'"]),
        (lambda tower: LONG, ["'long' needs ", "holds 128"]),
    ],
)
def test_prompts_that_are_refused(refuse, tower, prompts, parts):
    says(refuse(prompts(tower), FLOW), *parts)


ROWS = [
    ([], ["no interventions given", "information_flow()"]),
    ([kg.knockout(), kg.knockout(window=1)], ["two", "named 'subject->last'"]),
    (
        kg.patch("resid_post", "subject_lats"),
        ["position 'subject_lats'", "mean 'subject_last'?"]
        + ["Allowed: last, all, bos, rest, between, random, subject, subject_first, "],
    ),
    (kg.knockout("last", 10), ["position 10", f"{TOWER!r} has 10 tokens"]),
    (
        kg.patch("resid_pots", "subject"),
        ["activation at layer 0 'resid_pots'", "did you mean 'resid_post'"],
    ),
]
LATER = [
    # four query heads share two heads of keys
    (kg.patch("k", "subject", heads=[2], name="row"), ["names head 2", "heads 0 to 1"]),
    # three subject tokens cannot be taken from one, nor an index from another length
    (
        kg.patch("resid_post", "subject", kg.donor(FRANCE)),
        [f"'subject' covers 3 tokens of {TOWER!r} and 1 of {FRANCE.text!r}"]
        + ["(lengths 10 and 6)", "'subject_last'"],
    ),
    (kg.patch("resid_post", 2, kg.donor(FRANCE)), ["place 2 covers 1 tokens"]),
    (kg.patch("resid_post", "subject_last", kg.donor(LONG)), ["'long' needs "]),
    (
        kg.patch("resid_post", "last", kg.fixed(torch.zeros(31))),
        ["shape (31,) for layer 0", "resid_post has (32,)"],
    ),
    (kg.patch("resid_post", "last", kg.fixed({0: torch.zeros(32)})), ["no vector for", "[0]"]),
    # the first token sees itself alone
    *(
        (
            kg.knockout("all", "bos", heads=heads, name="sink"),
            ["'sink'", "position 0 of prompt 'tower'", "src"],
        )
        for heads in (None, [1])
    ),
]


@pytest.mark.parametrize(
    ("row", "forwards", "parts"),
    [(row, n, parts) for n, some in ((0, ROWS), (None, LATER)) for row, parts in some],
    ids=lambda one: str(one)[:30],
)
def test_a_row_that_is_refused(refuse, tower, row, forwards, parts):
    message = refuse(tower, row, forwards=forwards)
    says(message, *parts)
    assert "hook_" not in message


def test_an_unknown_executor_denoising_without_a_corrupted_run_and_an_empty_place(refuse, tower):
    message = refuse(tower, FLOW, executor="staircas", forwards=None)
    says(message, "executor 'staircas'", "did you mean 'staircase'? Allowed: ")
    message = refuse(tower, kg.knockout(), direction="denoising", forwards=None)
    says(message, "restores clean values in a corrupted run")
    message = refuse(SHORT, kg.patch("resid_post", "bos"), prepend_bos=False)
    says(message, "'bos' is empty in prompt 'short' ('France is')")


@pytest.mark.parametrize("heads", [[4], [0, 7], [-1]])
@pytest.mark.parametrize("kind", ["knockout", "edge_patch", "patch"])
def test_a_head_that_the_model_does_not_have(refuse, tower, kind, heads):
    place = ("z", "last") if kind == "patch" else ()
    row = getattr(kg, kind)(*place, heads=heads, name="row")
    says(refuse(tower, row), f"'row' names head {heads[-1]}", "heads 0 to 3")


def test_the_context_may_be_filled(tiny_llama, tower):
    table = kg.sweep(tiny_llama, tower, kg.knockout(), layers=[0], n_tokens=119, progress=False)
    assert len(table) == 119


def test_prompts_that_can_take_part_in_nothing(tiny_llama, tower):
    row = kg.patch("resid_post", "last", kg.corrupted_run(by=kg.swap()))
    with pytest.raises(kg.InputError) as caught:
        kg.sweep(tiny_llama, tower, row, layers=[0], progress=False)
    says(str(caught.value), "no row has a usable prompt", "'tower' has no swap partner")


def test_a_slow_tokenizer(refuse, tower, tiny_llama, monkeypatch):
    monkeypatch.setattr(type(tiny_llama), "tokenizer", SlowTokenizer())
    says(refuse(tower, FLOW), "SlowTokenizer is a slow tokenizer", "use_fast=True")


def test_a_model_in_training_mode(tiny_llama, tower):
    for part in (tiny_llama, tiny_llama.original_model.model.layers[1]):
        part.train()
        try:
            with counted(tiny_llama) as calls, pytest.raises(kg.InputError) as caught:
                kg.sweep(tiny_llama, tower, FLOW, progress=False)
        finally:
            tiny_llama.eval()
        assert not calls
        says(str(caught.value), "the model is in training mode", "call model.eval() first")


@pytest.mark.parametrize("executor", ["reference", "auto"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_not_numbers(refuse, tower, executor, bad):
    """The error names the cell, whichever executor met it."""
    row = kg.patch("resid_post", "last", kg.fixed(torch.full((32,), bad)), name="broken")
    message = refuse(tower, row, layers=[2, 3], executor=executor, forwards=None)
    says(message, "NaN or +inf at prompt 'tower', intervention 'broken', layer 2;")


@pytest.mark.parametrize("executor", ["reference", "staircase"])
def test_logits_that_are_not_numbers_where_preflight_did_not_look(
    tiny_llama, tower, executor, tmp_path
):
    """It tries the first, middle and last layer; the error of the sweep itself names the cell."""
    vectors = {layer: torch.zeros(32) for layer in range(4)} | {1: torch.full((32,), torch.nan)}
    row = kg.patch("resid_post", "last", kg.fixed(vectors), name="broken")
    options = {"executor": executor, "progress": False}
    with pytest.raises(kg.InputError) as alone:
        kg.sweep(tiny_llama, tower, row, **options)
    says(str(alone.value), "NaN or +inf at prompt 'tower', intervention 'broken', layer 1;")
    with pytest.raises(kg.runs.PromptsFailed) as caught:
        kg.sweep(tiny_llama, tower, row, out=tmp_path / "run", **options)
    assert caught.value.failed == {"tower": f"InputError: {alone.value}"}


@pytest.mark.parametrize(
    ("part", "function", "given"),
    [
        ("did you mean 'zero'", kg.patch, ["resid_post", "subject", "zro"]),
        ("corrupted_run(by=swap())", kg.patch, ["resid_post", "subject", kg.swap()]),
        ("by noise() or by swap()", kg.corrupted_run, [kg.zero()]),
        ("give a Prompt or a mapping", kg.donor, ["Rome is in"]),
        ("a tensor, or a mapping", kg.fixed, [0.0]),
        ("did you mean 'subject'?", kg.noise, [3.0, "subjekt"]),
        ("use patch(), knockout(), edge_patch()", check_names, [["js"]]),
    ],
)
def test_sources_that_are_none(part, function, given):
    """Called past the type checks that the tests run under, as a user's call is."""
    with pytest.raises(kg.InputError) as caught:
        inspect.unwrap(function)(*given)
    says(str(caught.value), part)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def gptj(tiny_tokenizer, booted):
    """A random GPT-J, whose bridge computes attention where no score edit reaches it."""
    sizes = {"n_layer": 2, "n_head": 4, "n_embd": 32, "n_positions": 64, "rotary_dim": 4}
    config = GPTJConfig(
        vocab_size=400, initializer_range=0.3, attn_implementation="eager", bos_token_id=1,
        eos_token_id=2, **sizes,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GPTJForCausalLM(config).to(torch.float64).eval()
    return booted(
        TransformerBridge.boot_transformers(
            "tiny-gptj", hf_model=model, tokenizer=tiny_tokenizer, dtype=torch.float64, device="cpu"
        )
    )


def test_a_bridge_that_discards_attention_edits(refuse, gptj, tower):
    """Its knockouts are refused by name, its patches work."""
    message = refuse(tower, kg.information_flow(), model=gptj, forwards=None)
    says(message, "edits of kind 'knockout'", "GPTJForCausalLM", "other kinds are not affected")
    table = kg.sweep(gptj, tower, kg.patch("resid_post", "subject"), progress=False)
    assert table.js[0] > 1e-3
