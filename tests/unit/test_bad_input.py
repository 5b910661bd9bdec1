"""Bad input: one sentence, nothing computed, nothing written, the model as it was."""

import inspect
import re
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


@pytest.fixture
def flow():
    return kg.information_flow()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"layers": [0, 4]},
            "layer 4 is out of range: the model has layers 0 to 3",
        ),
        (
            {"layers": [-5]},
            "layer -5 is out of range: the model has layers 0 to 3",
        ),
        (
            {"layers": [1, 1]},
            "layer 1 is given more than once; name each layer once",
        ),
        (
            {"layers": []},
            "no layers given; pass layers='all' or a list of layer numbers",
        ),
        (
            {"metrics": ["js", "kll"]},
            "unknown metric 'kll'; did you mean 'kl'? Allowed: js, ",
        ),
        (
            {"metrics": []},
            "no metrics given; name at least one, such as 'js'",
        ),
        (
            {"mode": "persistant"},
            "unknown mode 'persistant'; did you mean 'persistent'? Allowed: prompt_only, ",
        ),
        (
            {"unit": "bit"},
            "unknown unit 'bit'; did you mean 'bits'? Allowed: nats, bits",
        ),
        (
            {"direction": "denoising"},
            "unknown direction 'denoising'; did you mean 'denoise'? Allowed: noise, denoise",
        ),
        (
            {"n_tokens": 0},
            "n_tokens is 0; give a whole number of at least 1",
        ),
        (
            {"samples": -1},
            "samples is -1; give a whole number of at least 1",
        ),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(value),
)
def test_an_option_that_is_refused(refuse, tower, flow, options, message):
    assert refuse(tower, flow, **options).startswith(message)


def test_an_unknown_executor(refuse, tower, flow):
    message = refuse(tower, flow, executor="staircas", forwards=None)
    assert message.startswith("unknown executor 'staircas'; did you mean 'staircase'? Allowed: ")


def test_no_prompts(refuse, flow):
    assert refuse([], flow) == "the prompt set is empty; give at least one Prompt"


def test_no_interventions(refuse, tower):
    assert refuse(tower, []) == (
        "no interventions given; pass information_flow() or a list of them"
    )


def test_two_interventions_of_one_name(refuse, tower):
    assert refuse(tower, [kg.knockout(), kg.knockout(window=1)]) == (
        "two interventions are named 'subject->last'; give each its own name="
    )


def test_two_prompts_of_one_id(refuse, tower, flow):
    assert refuse([tower, tower], flow) == (
        "two prompts share the id 'tower'; give each its own id="
    )


def test_a_prompt_without_a_subject(refuse, tower, flow):
    assert refuse([tower, kg.Prompt("Rome is in")], flow) == (
        "prompt 'Rome is in' has no span 'subject'; give Prompt(text, spans={'subject': ...})"
    )


def test_an_unknown_position(refuse, tower):
    message = refuse(tower, kg.patch("resid_post", "subject_lats"))
    assert message.startswith("unknown position 'subject_lats'; did you mean 'subject_last'?")
    assert "Allowed: last, all, bos, rest, between, random, subject, subject_first, " in message


def test_a_position_index_outside(refuse, tower):
    assert refuse(tower, kg.knockout("last", 10)) == (
        f"position 10 is out of range: {TOWER!r} has 10 tokens"
    )


def test_a_place_that_is_empty(refuse):
    prompt = kg.Prompt("France is", spans={"subject": "France"}, id="short")
    message = refuse(prompt, kg.patch("resid_post", "bos"), prepend_bos=False)
    assert message == (
        "place 'bos' is empty in prompt 'short' ('France is'); "
        "leave the prompt out or name another place"
    )


def test_an_unknown_activation(refuse, tower):
    message = refuse(tower, kg.patch("resid_pots", "subject"))
    assert message.startswith("unknown activation at layer 0 'resid_pots'; did you mean ")
    assert "did you mean 'resid_post'" in message
    assert "hook_" not in message


@pytest.mark.parametrize("heads", [[4], [0, 7], [-1]])
@pytest.mark.parametrize("kind", ["knockout", "edge_patch", "patch"])
def test_a_head_that_the_model_does_not_have(refuse, tower, kind, heads):
    row = {
        "knockout": lambda: kg.knockout(heads=heads, name="row"),
        "edge_patch": lambda: kg.edge_patch(heads=heads, name="row"),
        "patch": lambda: kg.patch("z", "last", heads=heads, name="row"),
    }[kind]()
    assert refuse(tower, row) == (
        f"intervention 'row' names head {heads[-1]}, and the model has heads 0 to 3"
    )


def test_a_key_value_head_beyond_the_groups(refuse, tower):
    """Four query heads share two heads of keys."""
    message = refuse(tower, kg.patch("k", "subject", heads=[2], name="row"), forwards=None)
    assert "names head 2" in message
    assert "heads 0 to 1" in message


def test_a_prompt_longer_than_the_context(refuse, flow):
    long = kg.Prompt("Rome" + " is" * 130, spans={"subject": "Rome"}, id="long")
    message = refuse(long, flow)
    assert message.startswith("prompt 'long' needs ")
    assert message.endswith(
        " tokens, and the model's context holds 128; shorten it or measure fewer tokens"
    )


def test_more_tokens_than_the_context_has_left(refuse, tower, flow):
    assert refuse(tower, flow, n_tokens=120) == (
        "prompt 'tower' needs 129 tokens, and the model's context holds 128; "
        "shorten it or measure fewer tokens"
    )


def test_the_context_may_be_filled(tiny_llama, tower):
    table = kg.sweep(tiny_llama, tower, kg.knockout(), layers=[0], n_tokens=119, progress=False)
    assert len(table) == 119


def test_prompts_that_can_take_part_in_nothing(tiny_llama, tower):
    row = kg.patch("resid_post", "last", kg.corrupted_run(by=kg.swap()))
    with pytest.raises(kg.InputError) as caught:
        kg.sweep(tiny_llama, tower, row, layers=[0], progress=False)
    assert str(caught.value) == (
        "no row has a usable prompt: prompt 'tower' has no swap partner; give Prompt(..., swap=)"
    )


def test_a_donor_that_cannot_be_aligned(refuse, tower):
    """Three subject tokens cannot be taken from one, nor an index from another length."""
    france = kg.Prompt("The capital of France is", spans={"subject": "France"}, id="france")
    message = refuse(tower, kg.patch("resid_post", "subject", kg.donor(france)), forwards=None)
    assert message == (
        f"place 'subject' covers 3 tokens of {TOWER!r} and 1 of 'The capital of France is' "
        "(lengths 10 and 6), so they cannot be aligned; patch one token by name, such as "
        "'subject_last'"
    )
    message = refuse(tower, kg.patch("resid_post", 2, kg.donor(france)), forwards=None)
    assert message.startswith("place 2 covers 1 tokens")


def test_a_donor_longer_than_the_context(refuse, tower):
    long = kg.Prompt("Rome" + " is" * 130, spans={"subject": "Rome"}, id="long")
    row = kg.patch("resid_post", "subject_last", kg.donor(long))
    message = refuse(tower, row, forwards=None)
    assert message.startswith("prompt 'long' needs ")


def test_a_slow_tokenizer(refuse, tower, flow, tiny_llama, monkeypatch):
    monkeypatch.setattr(type(tiny_llama), "tokenizer", SlowTokenizer())
    assert refuse(tower, flow) == (
        "SlowTokenizer is a slow tokenizer without character offsets, so a span cannot be "
        "located; load the fast one (use_fast=True)"
    )


def test_a_model_in_training_mode(tiny_llama, tower, flow):
    for part in (tiny_llama, tiny_llama.original_model.model.layers[1]):
        part.train()
        try:
            with counted(tiny_llama) as calls, pytest.raises(kg.InputError) as caught:
                kg.sweep(tiny_llama, tower, flow, progress=False)
        finally:
            tiny_llama.eval()
        assert not calls
        message = str(caught.value)
        assert message.startswith("the model is in training mode")
        assert message.endswith("dropout would change every run; call model.eval() first")
        assert "\n" not in message


@pytest.mark.parametrize("executor", ["reference", "auto"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_logits_that_are_not_numbers(refuse, tower, executor, bad):
    """The error names the cell, whichever executor met it."""
    row = kg.patch("resid_post", "last", kg.fixed(torch.full((32,), bad)), name="broken")
    message = refuse(tower, row, layers=[2, 3], executor=executor, forwards=None)
    assert message == (
        "the logits are NaN or +inf at prompt 'tower', intervention 'broken', layer 2; "
        "try another dtype or source"
    )


@pytest.mark.parametrize("executor", ["reference", "staircase"])
def test_logits_that_are_not_numbers_where_preflight_did_not_look(
    tiny_llama, tower, executor, tmp_path
):
    """It tries the first, middle and last layer; the error of the sweep itself names the cell."""
    vectors = {layer: torch.zeros(32) for layer in range(4)} | {1: torch.full((32,), torch.nan)}
    row = kg.patch("resid_post", "last", kg.fixed(vectors), name="broken")
    said = (
        "the logits are NaN or +inf at prompt 'tower', intervention 'broken', layer 1; "
        "try another dtype or source"
    )
    with pytest.raises(kg.InputError, match=re.escape(said)):
        kg.sweep(tiny_llama, tower, row, executor=executor, progress=False)
    with pytest.raises(kg.PromptsFailed) as caught:
        kg.sweep(tiny_llama, tower, row, executor=executor, progress=False, out=tmp_path / "run")
    assert caught.value.failed == {"tower": f"InputError: {said}"}


def test_a_fixed_vector_that_does_not_fit(refuse, tower):
    row = kg.patch("resid_post", "last", kg.fixed(torch.zeros(31)))
    assert refuse(tower, row, layers=[1], forwards=None) == (
        "fixed() has a vector of shape (31,) for layer 1, and resid_post has (32,) at each position"
    )
    row = kg.patch("resid_post", "last", kg.fixed({0: torch.zeros(32)}))
    assert refuse(tower, row, layers=[0, 1], forwards=None) == (
        "fixed() has no vector for layer 1; it has [0]"
    )


@pytest.mark.parametrize("heads", [None, [1]])
def test_a_knockout_that_leaves_nothing_to_see(refuse, tower, heads):
    """The first token sees itself alone."""
    message = refuse(tower, kg.knockout("all", "bos", heads=heads, name="sink"), forwards=None)
    assert message == (
        "intervention 'sink' would leave position 0 of prompt 'tower' nothing to attend to; "
        "leave at least one token, such as the position itself, out of src"
    )


def test_denoising_without_a_corrupted_run(refuse, tower):
    message = refuse(tower, kg.knockout(), direction="denoise", forwards=None)
    assert message.startswith("direction='denoise' restores clean values in a corrupted run; it")


def test_sources_that_are_none():
    """Called past the type checks that the tests run under, as a user's call is."""
    given = {
        "did you mean 'zero'": lambda: inspect.unwrap(kg.patch)("resid_post", "subject", "zro"),
        "(a swap corrupts a run: corrupted_run(by=swap()))": lambda: inspect.unwrap(kg.patch)(
            "resid_post", "subject", kg.swap()
        ),
        "a run is corrupted by noise() or by swap()": lambda: inspect.unwrap(kg.corrupted_run)(
            by=kg.zero()
        ),
        "give a Prompt or a mapping from prompt id to Prompt": lambda: inspect.unwrap(kg.donor)(
            "Rome is in"
        ),
        "takes a tensor, or a mapping from layer to tensor": lambda: inspect.unwrap(kg.fixed)(0.0),
        "unknown scale_from 'subjekt'; did you mean 'subject'?": lambda: kg.noise(3.0, "subjekt"),
        "use patch(), knockout(), edge_patch() or": lambda: inspect.unwrap(check_names)(["js"]),
    }
    for part, call in given.items():
        with pytest.raises(kg.InputError) as caught:
            call()
        assert part in str(caught.value)
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
    assert message.startswith(
        "edits of kind 'knockout' do not reach the logits of GPTJForCausalLM: even a maximal one "
        "changes nothing"
    )
    assert message.endswith("leave them out, other kinds are not affected")
    table = kg.sweep(gptj, tower, kg.patch("resid_post", "subject"), progress=False)
    assert table.js[0] > 1e-3
