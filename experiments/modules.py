"""Layer × module, patched and estimated, with norms of activations and weights (F5).

python experiments/modules.py --quick --out runs/modules
"""

import knockgrid as kg
from knockgrid.cli.reproduce import known_facts, study, swept

ESTIMATE = "attribution_size"
STATISTICS = (ESTIMATE, "act_shift", "act_norm", "grad_norm", "weight_norm")


def make(model, quick):
    limit = 8 if quick else 48
    prompts = known_facts(model, limit)
    return {
        "patched": swept(__file__, model, limit=limit),
        "statistics": kg.evidence.module_statistics(model, prompts, pos="subject"),
    }


def draw(tables):
    patched, statistics = tables["patched"], tables["statistics"]
    agreement = kg.stats.rank_agreement(statistics, patched)
    titles = {ESTIMATE: f"estimate; Spearman {agreement:.2f} with the exact JS"}
    drawn = {"module_heatmap_js": kg.figures.module_heatmap(patched, diverging=True)}
    for name in STATISTICS:
        ax = kg.figures.module_heatmap(statistics, name, title=titles.get(name), diverging=True)
        drawn[f"module_heatmap_{name}"] = ax
    return drawn


if __name__ == "__main__":
    study(__file__)
