"""Layer × subject, attention and last token, under a run corrupted by noise (F1).

python experiments/information_flow.py --quick --out runs/information_flow
"""

import knockgrid as kg
from knockgrid.cli.reproduce import study, swept


def make(model, quick):
    return {"flow": swept(__file__, model, limit=24 if quick else 120)}


def draw(tables):
    table = tables["flow"]
    return {
        "layer_heatmap_js": kg.layer_heatmap(table),
        "layer_curve_js": kg.layer_curve(table),
        "interval_js": kg.figures.with_interval(table),
    }


if __name__ == "__main__":
    study(__file__)
