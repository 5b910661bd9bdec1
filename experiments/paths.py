"""Where the information flows, whether there is a spare path, and how much dose it takes.

python experiments/paths.py --quick --out runs/paths
"""

import knockgrid as kg
from knockgrid.cli.reproduce import known_facts, study

BETWEEN = ("country_language", "landmark_in_city")  # these have tokens after the subject


def rows():
    return [
        kg.knockout("last", "subject", 5, name="knockout", label="Attn. knockout"),
        kg.edge_patch("last", "subject", window=5, name="edge patch", label="Attn. edge patch"),
        *kg.edits.per_window(kg.knockout("last", "subject", name="block", label="block")),
        *kg.edits.paths(),
    ]


def make(model, quick):
    prompts = known_facts(model, 8 if quick else 48, BETWEEN)
    doses = kg.edits.per_alpha(kg.patch("resid_post", "subject"), [0.25, 0.5, 0.75, 1.0])
    return {"paths": kg.sweep(model, prompts, rows()), "dose": kg.sweep(model, prompts, doses)}


def draw(tables):
    spare = kg.stats.redundancy(tables["paths"], "block only", "block from")
    return {
        "layer_heatmap_js": kg.layer_heatmap(tables["paths"]),
        "redundancy_js": kg.layer_curve(spare, title="sum of single layers − all from ℓ on"),
        "dose_heatmap_js": kg.figures.dose_heatmap(tables["dose"]),
    }


if __name__ == "__main__":
    study(__file__)
