"""Induction heads on repeated random words: blocked attention beside the plain induction score.

python experiments/induction.py --quick --out runs/induction
"""

import random

import knockgrid as kg
from knockgrid.cli.reproduce import some_layers, study

WORDS = (
    "house river stone paper green music table light water horse winter summer garden window bread "
    "silver letter market bridge road king fish gold ship tree wall door hand book bird"
).split()
AT = 7  # after BOS, "So" and five words: the token after the earlier occurrence of the last one


def repeated(seed):
    some = random.Random(seed).sample(WORDS, 15)
    return kg.Prompt(" ".join(["So", *some, *some[:5]]), id=f"seed {seed}")


def make(model, quick):
    prompts = [repeated(seed) for seed in range(4 if quick else 16)]
    heads = kg.per_head(kg.knockout("last", AT, window=1), model.cfg.n_heads)
    layers = some_layers(model, 5 if quick else 1)
    table = kg.sweep(model, prompts, heads, layers=layers, metrics=["kl", "js"])
    caches = {one.id: model.run_with_cache(one.text)[1] for one in prompts}
    cells = zip(table["prompt"], table["layer"], table["head"], strict=True)
    scores = [float(caches[p]["pattern", layer][0, head, -1, AT]) for p, layer, head in cells]
    return {"heads": table.assign(induction_score=scores)}


def draw(tables):
    shown, heads = ("kl", "induction_score"), tables["heads"]
    return {f"heads_{metric}": kg.figures.head_heatmap(heads, metric) for metric in shown}


if __name__ == "__main__":
    study(__file__)
