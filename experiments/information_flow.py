"""Layer × subject, attention and last token, under a run corrupted by noise (F1).

python experiments/information_flow.py --quick --out runs/information_flow
"""

import knockgrid as kg
from knockgrid.cli.reproduce import known_facts, study


def make(model, quick):
    prompts = known_facts(model, 24 if quick else 120)
    rows = kg.information_flow(kg.corrupted_run(by=kg.noise(3.0)), window=5)
    return {"flow": kg.sweep(model, prompts, rows)}


def draw(tables):
    table = tables["flow"]
    return {
        "layer_heatmap_js": kg.layer_heatmap(table),
        "layer_curve_js": kg.layer_curve(table),
        "interval_js": kg.figures.with_interval(table),
    }


if __name__ == "__main__":
    study(__file__)
