"""`resid_mid` is the residual stream between attention and MLP, skip connection included."""

import pytest
import torch
from agree import EXECUTORS, assert_agree, bound, compare, seeded
from mixtures import BY_NAME, FAMILIES

import knockgrid as kg

# The module whose input is the stream there, in the Hugging Face model
READS = {
    "GPT-2": ("transformer.h", "ln_2"),
    "BLOOM": ("transformer.h", "post_attention_layernorm"),
    "Llama": ("model.layers", "post_attention_layernorm"),
    "Granite": ("model.layers", "post_attention_layernorm"),
    "Mixtral": ("model.layers", "post_attention_layernorm"),
    "Gemma 2": ("model.layers", "pre_feedforward_layernorm"),
    "Gemma 3": ("model.layers", "pre_feedforward_layernorm"),
    "OLMo 2": ("model.layers", "mlp"),
    "EXAONE 4": ("model.layers", "mlp"),
    "GLM 4": ("model.layers", "post_attention_layernorm"),
}
PARALLEL = ("GPT-J", "CodeGen", "GPT-NeoX, Pythia", "Phi", "Falcon (rotary)", "Cohere", "Cohere 2")
ELSEWHERE = ("Falcon-H1", "Qwen 3-Next", "Qwen 3.5", "RWKV", "Mamba", "Mamba 2", "OpenAI GPT")
MIXED = ("LFM 2", "Jamba", "Bamba")  # attention in some layers only
SEQUENTIAL = [f for f in FAMILIES if f.name not in (*PARALLEL, *ELSEWHERE, *MIXED)]


def raw_logits(family, ids, layer, pos, value):
    """The Hugging Face model with another stream: MLP and skip connection both get the value."""
    model, (blocks, reader) = family.build(), READS[family.name]
    block, moved = model.get_submodule(blocks)[layer], {}

    def read(module, args):
        hidden = args[0].clone()
        moved["by"] = value - hidden[0, pos]
        hidden[0, pos] = value
        return (hidden, *args[1:])

    def skip(module, args, output):
        hidden = (output if torch.is_tensor(output) else output[0]).clone()
        hidden[0, pos] += moved["by"]
        return hidden if torch.is_tensor(output) else (hidden, *output[1:])

    with torch.no_grad():
        clean = model(ids, use_cache=False).logits[0, -1]
        getattr(block, reader).register_forward_pre_hook(read)
        block.register_forward_hook(skip)
        return clean, model(ids, use_cache=False).logits[0, -1]


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("fast", [False, True], ids=["reference", "fast"])
def test_the_stream_is_that_of_raw_hooks(name, fast, boot, prompts):
    family, value, at = BY_NAME[name], seeded(32), ["subject_last", "last"]
    executor = family.executor if fast else "reference"
    model, prompt = boot(family), prompts[1]
    row = kg.patch("resid_mid", at, kg.fixed(value))
    table = kg.sweep(
        model, prompt, row, layers=[1], executor=executor, prepend_bos=True, progress=False
    )
    ids = torch.tensor([model.tokenizer(prompt.text)["input_ids"]])
    pos = kg.token_positions(prompt, at, model, True)
    clean, edited = raw_logits(family, ids, 1, list(pos), value)
    expected = float(kg.divergences.js(clean[None], edited[None])[0])
    assert expected > 1e-3
    assert table["js"].tolist() == [pytest.approx(expected, abs=1e-7)]


@pytest.mark.parametrize("family", SEQUENTIAL, ids=lambda family: family.name)
def test_executors_agree_and_the_value_arrives(family, boot, prompts):
    model = boot(family)
    rows = [
        kg.patch("resid_mid", "subject", kg.zero(), window=2, name="two layers"),
        kg.patch("resid_mid", ["subject", "last"], alpha=0.5, name="half way"),
    ]
    executors = [EXECUTORS[family.executor]]
    found = compare(model, executors, prompts, rows, layers=[1, 0], n_tokens=2)
    assert_agree(found, within=family.within, above=max(1e-7, 10 * family.within))


@pytest.mark.parametrize("name", [*PARALLEL, *ELSEWHERE])
def test_where_there_is_no_such_stream_it_is_refused_by_name(name, boot, prompts):
    row = kg.patch("resid_mid", "subject")
    with pytest.raises(kg.InputError, match=r"resid_mid'") as refusal:
        kg.sweep(boot(BY_NAME[name]), prompts[0], row, executor="reference", progress=False)
    assert BY_NAME[name].hf_name in str(refusal.value)


def test_a_self_patch_changes_nothing_at_all(boot, prompts):
    model = boot(BY_NAME["Llama"])
    row = kg.patch("resid_mid", "subject", kg.donor({one.id: one for one in prompts}))
    (batch,) = bound(model, prompts, [row])
    for outcome in kg.executors.staircase(model, batch.runs, batch.cells):
        assert bool((outcome.logits == outcome.null).all())
