"""Benchmark the three-row sweep against other ways to write it: CPU time, memory, agreement.

    python experiments/benchmark_sweep.py --out runs/benchmark

All contenders run interleaved in one process on one thread. Slow ones get `--few` prompts of
each length (they are linear in prompts); knockgrid gets all. Times are CPU seconds per prompt.
nnsight and pyvene join with `--against plain_loop ... nnsight_loop pyvene_loop`.
"""

import argparse
from pathlib import Path

import pandas as pd
import torch
from contenders._field import contenders, run_rounds
from contenders._measure import matmul_peak
from contenders._prompts import of_length
from contenders._report import engine, growth, ratios
from transformers import AutoModelForCausalLM

import knockgrid as kg


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--lengths", type=int, nargs="+", default=[10, 30, 60, 120])
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--few", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", nargs="*", default=["plain_loop", "padded_loop", "raw_hooks"])
    parser.add_argument("--parts", nargs="+", default=["contenders", "engine", "growth"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    bridge = kg.load("demo")
    folder = Path(str(bridge.cfg.model_name))
    vectors = torch.randn(bridge.cfg.n_layers, bridge.cfg.d_model) * 4
    prompts = {n: of_length(bridge.tokenizer, n, given.prompts) for n in given.lengths}
    given.out.mkdir(parents=True, exist_ok=True)
    print(f"matrix-product peak {matmul_peak() / 1e9:.1f} GFLOP/s", flush=True)
    if "engine" in given.parts:
        print(engine(bridge, prompts, vectors).to_string(), flush=True)
    if "contenders" in given.parts:
        hf = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
        chosen = contenders(given.against, given.few)
        rows = run_rounds(bridge, hf, prompts, vectors, chosen, given.rounds)
        columns = ["length", "round", "contender", "seconds", "mib", "apart"]
        table = pd.DataFrame(rows, columns=columns)
        table.to_csv(given.out / "times.csv", index=False)
        print(ratios(table).to_string(), flush=True)
        print(table.groupby(["contender", "length"])[["mib", "apart"]].max().to_string())
    if "growth" in given.parts:
        print(growth(bridge))


if __name__ == "__main__":
    main()
