"""The three rows under two corruptions, noise beside swapped subjects (F2).

The published F2 is F1 for a second model: python experiments/information_flow.py --model MODEL

python experiments/sources.py --quick --out runs/sources
"""

from pathlib import Path

import knockgrid as kg
from knockgrid.cli.reproduce import study, swept


def make(model, quick):
    files = {"noise": Path(__file__).with_name("information_flow.yaml"), "swap": __file__}
    limit = 16 if quick else 120
    return {name: swept(file, model, limit=limit) for name, file in files.items()}


def draw(tables):
    return {
        "layer_heatmap_js": kg.layer_heatmap(tables["swap"]),
        "side_by_side_js": kg.figures.side_by_side(tables),
    }


if __name__ == "__main__":
    study(__file__)
