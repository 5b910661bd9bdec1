"""Layer × token position: what a probe reads there beside what the model uses (F4).

python experiments/error_detection.py --quick --out runs/error_detection
"""

import knockgrid as kg
from knockgrid.cli.reproduce import RELATIONS, some_layers, study, swept

EXTRA = "probes"
EXACT = ("relation", "model")


def make(model, quick):
    some = 24 if quick else 45
    relations = (*RELATIONS, "us_state_capital")
    prompts = [p for r in relations for p in kg.facts(r, tokenizer=model.tokenizer)[:some]]
    layers = some_layers(model, 10 if quick else 1)
    moved = swept(__file__, model, layers=layers, limit=10 if quick else 24)
    positions = list(moved["position"].unique())
    options = {"layers": layers, "n_tokens": 9, "exact_answer": EXACT}
    probes = kg.evidence.probe_auc(model, prompts, positions, **options)
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
