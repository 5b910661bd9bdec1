"""The three rows on a Ray cluster: every actor loads the model by itself."""

from functools import partial

import torch

import knockgrid as kg

if __name__ == "__main__":
    table = kg.sweep(
        partial(kg.load, "gpt2", dtype=torch.bfloat16),
        kg.read_prompts("prompts.jsonl"),
        kg.information_flow(),
        out="runs/big",
        engine=kg.runs.RayEngine(workers=4, cpus=2),  # or engine="ray"
    )
