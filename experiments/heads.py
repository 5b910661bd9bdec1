"""Layer × head: which heads carry the subject to the last token.

python experiments/heads.py --quick --out runs/heads
"""

import knockgrid as kg
from knockgrid.cli.reproduce import known_facts, study

TITLES = {
    "knockout": "knockout subject → last",
    "edge_patch": "edge patch subject → last",
    "z": "patch of the head's output at the last token",
}


def make(model, quick):
    prompts, n = known_facts(model, 4 if quick else 48), int(model.cfg.n_heads)
    kinds = {
        "knockout": kg.knockout("last", "subject", window=1),
        "edge_patch": kg.edge_patch("last", "subject", window=1),
        "z": kg.patch("z", "last"),
    }
    return {
        name: kg.sweep(model, prompts, kg.per_head(kind, n), metrics=["js", "kl"])
        for name, kind in kinds.items()
    }


def draw(tables):
    return {
        f"head_heatmap_{name}_js": kg.figures.head_heatmap(table, title=TITLES[name])
        for name, table in tables.items()
    }


if __name__ == "__main__":
    study(__file__)
