"""Benchmark the three-row sweep against other ways to write it: CPU time, memory, agreement.

    python experiments/benchmark_sweep.py --out runs/benchmark

All contenders run interleaved in one process on one thread. Slow ones get `--few` prompts of
each length (they are linear in prompts); knockgrid gets all. Times are CPU seconds per prompt.
"""

import argparse
from pathlib import Path

import pandas as pd
import torch
from contenders._field import contenders, task_of, warm_up
from contenders._measure import matmul_peak, timed
from contenders._prompts import of_length
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
    given = parser.parse_args()
    torch.set_num_threads(1)
    bridge = kg.load("demo")
    folder = Path(str(bridge.cfg.model_name))
    hf = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    torch.manual_seed(0)
    vectors = torch.randn(bridge.cfg.n_layers, bridge.cfg.d_model) * 4
    rows, found = [], {}
    chosen = contenders(given.against, given.few)
    for length in given.lengths:
        prompts = of_length(bridge.tokenizer, length, given.prompts)
        for number in range(given.rounds):
            for name, (call, count) in chosen.items():
                some = prompts[:count]
                task = task_of(bridge, hf, some, vectors)
                if number == 0 and name in ("staircase", "reference"):
                    warm_up(name, bridge, prompts[:1], vectors)
                js, seconds, mib = timed(lambda c=call, t=task, s=some: c(t, s))
                found[name] = js
                apart = max(abs(a - b) for a, b in zip(js, found["staircase"], strict=False))
                rows.append((length, number, name, seconds / len(some), mib, apart))
                print(*rows[-1], flush=True)
    table = pd.DataFrame(rows, columns=["length", "round", "contender", "seconds", "mib", "apart"])
    given.out.mkdir(parents=True, exist_ok=True)
    table.to_csv(given.out / "times.csv", index=False)
    wide = table.pivot(index=["length", "round"], columns="contender", values="seconds")
    ratio = wide.div(wide["staircase"], axis=0).groupby("length").agg(["min", "median", "max"])
    print(ratio.round(1).T.to_string())
    print(table.groupby(["contender", "length"])[["mib", "apart"]].max().unstack().to_string())
    print(f"matrix-product peak {matmul_peak(2048, 576, 1536) / 1e9:.1f} GFLOP/s")


if __name__ == "__main__":
    main()
