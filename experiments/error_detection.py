"""Layer × token position: what a probe reads there beside what the model uses (F4).

python experiments/error_detection.py --quick --out runs/error_detection
"""

import knockgrid as kg
from knockgrid.cli.reproduce import RELATIONS, some_layers, study

EXTRA = "probes"
POSITIONS = ["last_q", "first_answer", "second_answer", "exact_answer_before_first"]
POSITIONS += [f"exact_answer_{part}" for part in ("first", "last", "after_last")]
FROM_THE_END = [f"-{k}" for k in range(8, 0, -1)]


def make(model, quick):
    share = 24 if quick else 48
    prompts = [p for r in RELATIONS for p in kg.facts(r, tokenizer=model.tokenizer)[:share]]
    positions = [*POSITIONS, *(["-1"] if quick else FROM_THE_END)]
    options = {"layers": some_layers(model, 6 if quick else 2), "n_tokens": 9}
    row = kg.patch("resid_post", "last", kg.corrupted_run(by=kg.noise(3.0)))
    rows = kg.per_position(row, positions)
    return {
        "probes": kg.evidence.probe_auc(model, prompts, positions, **options),
        "divergence": kg.sweep(model, prompts[:: 4 if quick else 1], rows, **options),
    }


def draw(tables):
    probes, moved = tables["probes"], tables["divergence"]
    return {
        "probe_beside_effect_js": kg.figures.probe_beside_effect(
            probes, moved, kg.evidence.readable_not_used(probes, moved)
        )
    }


if __name__ == "__main__":
    study(__file__)
