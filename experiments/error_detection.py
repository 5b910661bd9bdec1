"""Layer × token position: what a probe reads there beside what the model uses (F4).

python experiments/error_detection.py --quick --out runs/error_detection
"""

import knockgrid as kg
from knockgrid.cli.reproduce import RELATIONS, some_layers, study, swept

EXTRA = "probes"


def make(model, quick):
    share = 24 if quick else 48
    prompts = [p for r in RELATIONS for p in kg.facts(r, tokenizer=model.tokenizer)[:share]]
    layers = some_layers(model, 10 if quick else 1)
    moved = swept(__file__, model, layers=layers, limit=24 if quick else 192)
    positions = list(moved["position"].unique())
    probes = kg.evidence.probe_auc(model, prompts, positions, layers=layers, n_tokens=9)
    return {"probes": probes, "divergence": moved}


def draw(tables):
    probes, moved = tables["probes"], tables["divergence"]
    return {
        "probe_beside_effect_js": kg.figures.probe_beside_effect(
            probes, moved, kg.evidence.readable_not_used(probes, moved)
        )
    }


if __name__ == "__main__":
    study(__file__)
