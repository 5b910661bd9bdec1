"""The heads that matter most, ablated together, against random heads.

python experiments/head_sets.py --quick --out runs/head_sets
"""

import random

import knockgrid as kg
from knockgrid.cli.reproduce import known_facts, some_layers, study

MEAN = kg.mean_activation()


def ablated(pairs, name):
    """One cell in which each (layer, head) writes its mean at the last token."""
    layers = sorted({layer for layer, _ in pairs})
    heads = [[h for at, h in pairs if at == layer] for layer in layers]
    parts = zip(layers, heads, strict=True)
    return kg.joint([kg.patch("z", "last", MEAN, heads=h, layers=[n]) for n, h in parts], name=name)


def make(model, quick):
    prompts = known_facts(model, 8 if quick else 48)
    alone = kg.per_head(kg.patch("z", "last", MEAN), model.cfg.n_heads)
    alone = kg.sweep(model, prompts, alone, layers=some_layers(model, 5 if quick else 1))
    ranked = alone.groupby(["layer", "head"])["js"].mean().sort_values(ascending=False).index
    heads, n = [(int(layer), int(head)) for layer, head in ranked], 10 if quick else 50
    rows = [ablated(heads[:n], f"the first {n}")]
    lots = [random.Random(seed).sample(heads, n) for seed in range(5)]
    rows += [ablated(lot, f"random {n}, seed {seed}") for seed, lot in enumerate(lots)]
    together = kg.sweep(model, prompts, rows, metrics=["js", "rank_answer", "p_change"])
    return {"alone": alone, "together": together}


def draw(tables):
    return {"alone_js": kg.figures.head_heatmap(tables["alone"], "js")}


if __name__ == "__main__":
    study(__file__)
