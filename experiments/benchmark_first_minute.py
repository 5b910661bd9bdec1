"""Benchmark the first minute: CPU time of a sweep in units of one plain forward pass.

    python experiments/benchmark_first_minute.py
    python experiments/benchmark_first_minute.py --billion bfloat16      # a random Llama, 1.2e9

One thread, prompts of ten tokens, the three rows at all layers. A first call is made on a model
that was just loaded, once with nothing kept and once with a receipt of an earlier process.
"""

import argparse
import os
import tempfile
from statistics import median
from time import process_time

import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import LlamaConfig, LlamaForCausalLM

import knockgrid as kg

PROMPTS = [
    kg.Prompt(f"The city of {city} lies in the country of", spans={"subject": city})
    for city in ("Paris", "Rome", "London")
]


def billion(dtype):
    """A random model of 1.2 billion parameters with a large vocabulary, and the demo's tokens."""
    sizes = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16}
    heads = {"num_attention_heads": 32, "num_key_value_heads": 8, "attn_implementation": "eager"}
    config = LlamaConfig(vocab_size=128_256, tie_word_embeddings=True, **sizes, **heads)
    torch.set_default_dtype(dtype)
    model = LlamaForCausalLM(config).eval()
    torch.set_default_dtype(torch.float32)
    return TransformerBridge.boot_transformers(
        "random", hf_model=model, tokenizer=kg.load("demo").tokenizer, dtype=dtype, device="cpu"
    )


def seconds(call):
    return -process_time() + (call(), process_time())[1]


def plain(model, times=5):
    """CPU seconds of one forward pass over the first prompt, without knockgrid."""
    ids = model.to_tokens(PROMPTS[0].text)
    with torch.inference_mode():
        model(ids)
        return median(seconds(lambda: model(ids)) for _ in range(times))


def units(model, prompts, times=1):
    """What a sweep costs, in plain passes that are timed before and after it."""
    before = plain(model)
    took = median(
        seconds(lambda: kg.sweep(model, prompts, kg.information_flow(), progress=False))
        for _ in range(times)
    )
    return 2 * took / (before + plain(model))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--billion", choices=["float32", "bfloat16"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["KNOCKGRID_RECEIPTS"] = "off"
    model = billion(getattr(torch, given.billion)) if given.billion else kg.load("demo")
    print(f"one prompt, first call    {units(model, PROMPTS[0]):6.1f}")
    print(f"one prompt, warm          {units(model, PROMPTS[0], 5):6.1f}")
    if not given.billion:
        print(f"three prompts, first call {units(kg.load('demo'), PROMPTS):6.1f}")
        os.environ["KNOCKGRID_RECEIPTS"] = tempfile.mkdtemp()
        kg.sweep(kg.load("demo"), PROMPTS[0], kg.information_flow(), progress=False)
        print(f"one prompt, kept receipt  {units(kg.load('demo'), PROMPTS[0]):6.1f}")


if __name__ == "__main__":
    main()
