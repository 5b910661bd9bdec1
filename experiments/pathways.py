"""Several kinds of edges cut together, each outside the layers it needs, against random edges.

python experiments/pathways.py --quick --out runs/pathways
"""

import knockgrid as kg
from knockgrid.cli.reproduce import known_facts, some_layers, study

EDGES = [("last", "subject"), ("between", "subject"), ("last", "between")]
KEPT = [range(16, 28), range(0, 20), range(6, 29)]  # layers, of the demo model's 30


def cut(name, layers, **more):
    edits = [kg.knockout(*edge, layers=at, **more) for edge, at in zip(EDGES, layers, strict=True)]
    return kg.joint(edits, name=name)


def pathways():
    share, every = round(1 - sum(map(len, KEPT)) / 90, 2), ["all", "all", "all"]
    rules = [kg.pairs.random_share(share, seed) for seed in range(3)]
    pathway = cut("outside the pathway", [kg.all_but(at) for at in KEPT])
    others = [cut("inside the pathway", KEPT), cut("everywhere", every)]
    return [pathway, *others, *(cut(rule.label, every, pairs=rule) for rule in rules)]


def make(model, quick):
    prompts = known_facts(model, 8 if quick else 48, ("country_language", "landmark_in_city"))
    rows = [kg.knockout(*edge, kg.all_but(9)) for edge in EDGES]
    rows.append(kg.joint(rows, name="all three"))
    windows = kg.sweep(model, prompts, rows, layers=some_layers(model, 5 if quick else 1))
    return {"pathways": kg.sweep(model, prompts, pathways()), "windows": windows}


def draw(tables):
    look = {"title": "cut in all layers but nine around ℓ"}
    return {"windows_js": kg.layer_heatmap(tables["windows"], **look)}


if __name__ == "__main__":
    study(__file__)
