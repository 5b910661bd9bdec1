"""The three rows under two corruptions, noise beside swapped subjects (F2).

The published F2 is F1 for a second model: python experiments/information_flow.py --model MODEL

python experiments/sources.py --quick --out runs/sources
"""

import knockgrid as kg
from knockgrid.cli.reproduce import known_facts, study


def make(model, quick):
    prompts = known_facts(model, 16 if quick else 120)
    treatments = {"noise": kg.noise(3.0), "swap": kg.swap()}
    return {
        name: kg.sweep(model, prompts, kg.information_flow(kg.corrupted_run(by=by), window=5))
        for name, by in treatments.items()
    }


def draw(tables):
    return {
        "layer_heatmap_js": kg.layer_heatmap(tables["swap"]),
        "side_by_side_js": kg.side_by_side(tables),
    }


if __name__ == "__main__":
    study(__file__)
