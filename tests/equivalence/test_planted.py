"""A mechanism made by hand at one layer lights exactly the cells whose layer set holds it."""

import copy

import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

import knockgrid as kg

DEPTH = 7
SHARED = {
    "vocab_size": 400,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "attn_implementation": "eager",
}


def random_model(kind: str):
    if kind == "llama":
        sizes = {"hidden_size": 32, "intermediate_size": 64, "max_position_embeddings": 64}
        config = LlamaConfig(
            num_hidden_layers=DEPTH, num_attention_heads=4, num_key_value_heads=2, **sizes, **SHARED
        )
        return LlamaForCausalLM(config)
    config = GPT2Config(n_layer=DEPTH, n_head=4, n_embd=32, n_positions=64, **SHARED)
    return GPT2LMHeadModel(config)


def plant(model, layer: int) -> None:
    """Silence the attention of every block but one, so that only there do tokens meet."""
    silent = [
        block.self_attn.o_proj if hasattr(block, "self_attn") else block.attn.c_proj
        for block in (model.model.layers if hasattr(model, "model") else model.transformer.h)
    ]
    for i, output in enumerate(silent):
        if i != layer:
            torch.nn.init.zeros_(output.weight)


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def random(request):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return random_model(request.param).to(torch.float64).eval()


@pytest.fixture(scope="module")
def planted(random, tiny_tokenizer):
    """The model in which only block k lets tokens meet, as a bridge."""

    def at(layer: int) -> TransformerBridge:
        model = copy.deepcopy(random)
        plant(model, layer)
        return TransformerBridge.boot_transformers(
            "planted", hf_model=model, tokenizer=tiny_tokenizer, dtype=torch.float64, device="cpu"
        )

    return at


WINDOWS = {
    1: lambda k: {k},
    3: lambda k: {k - 1, k, k + 1},
    5: lambda k: {k - 2, k - 1, k, k + 1, k + 2},
    4: lambda k: {k - 1, k, k + 1, k + 2},  # range(l - 2, l + 2) holds k
    "only": lambda k: {k},
    "all_but": lambda k: set(range(DEPTH)) - {k},
    "from": lambda k: set(range(k + 1)),
    "up_to": lambda k: set(range(k, DEPTH)),
}


@pytest.mark.parametrize("k", [0, 1, 3, DEPTH - 1])
def test_the_attention_row_lights_around_the_layer(planted, executor, prompts, k):
    windows = WINDOWS if executor == "staircase" else (1, 5)
    rows = [kg.knockout(window=w, name=f"window {w}") for w in windows]
    table = kg.sweep(planted(k), prompts[1], rows, executor=executor, progress=False)
    found = kg.grid(table)
    for window in windows:
        for layer, js in found.loc[f"window {window}"].items():
            if layer in WINDOWS[window](k):
                assert js > 1e-5, f"window {window} is dark at layer {layer}"
            else:
                assert js < 1e-12, f"window {window} is lit at layer {layer}"
        assert found.columns.tolist() == list(range(DEPTH))


def test_the_patch_rows_change_over_at_the_layer(planted, executor, prompts):
    """The subject matters before block k has read it, the last token from block k on."""
    k = 3
    table = kg.sweep(
        planted(k), prompts[1], kg.information_flow(), executor=executor, progress=False
    )
    subject, last = (kg.grid(table).loc[name] for name in ("subject", "last"))
    assert (subject[:k] > 1e-5).all()
    assert (subject[k:] < 1e-12).all()
    assert (last[:k] < 1e-12).all()
    assert (last[k:] > 1e-5).all()
