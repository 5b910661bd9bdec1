"""F1: average JS divergence over layer and {Subj., Attn., Last.}, from table to figure.

python experiments/information_flow.py --model demo --out runs/information_flow
"""

import argparse
from pathlib import Path

import knockgrid as kg

SOURCES = {
    "noise": lambda: kg.corrupted_run(by=kg.noise(3.0)),
    "swap": lambda: kg.corrupted_run(by=kg.swap()),
    "zero": kg.zero,
    "mean": kg.mean,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--relation", action="append", default=None)
    parser.add_argument("--source", choices=SOURCES, default="noise")
    parser.add_argument("--window", type=int, default=5)
    parser.add_argument("--limit", type=int, default=32)
    parser.add_argument("--out", type=Path, default=Path("runs/information_flow"))
    given = parser.parse_args()
    model = kg.load(given.model)
    facts = kg.facts(given.relation or "country_capital_city", tokenizer=model.tokenizer)
    prompts = list(kg.known(model, facts))[: given.limit]
    rows = kg.information_flow(SOURCES[given.source](), window=given.window)
    table = kg.sweep(model, prompts, rows, out=given.out)  # what is there is not computed again
    for figure in (kg.layer_heatmap, kg.layer_curve):
        print(*kg.save(figure(table), given.out / figure.__name__), sep="\n")


if __name__ == "__main__":
    main()
