"""The three rows by label: reliance, then FA-high, FA-low, AH and UH, and what they are made of.

python experiments/labels.py --quick --out runs/labels
"""

import knockgrid as kg
from knockgrid.cli.reproduce import DEMO_RELATIONS, evenly, study

EXTRA = "probes"
CURVES = ("subject_norm", "subject_attention", "last_similarity")


def make(model, quick):
    split = kg.known(model, kg.facts(DEMO_RELATIONS, tokenizer=model.tokenizer))
    prompts = [p for half in (split, split.dropped) for p in evenly(half, 20 if quick else 110)]
    labels = kg.evidence.labels(kg.evidence.reliance(model, prompts))
    table = kg.evidence.with_labels(kg.sweep(model, prompts, kg.information_flow()), labels)
    made = {"labels": labels, "table": table, "pairs": kg.evidence.pair_prompts(labels)}
    made |= {name: getattr(kg.evidence, name)(model, prompts, labels) for name in CURVES}
    layers = list(range(0, model.cfg.n_layers, 12 if quick else 4))
    return made | {
        "sensitivity": kg.evidence.threshold_sensitivity(labels),
        "diagnostics": kg.evidence.diagnostics(labels, table),
        "norm_ratio": kg.evidence.norm_ratio(made["subject_norm"]),
        "probe": kg.evidence.label_probe(model, prompts, labels, layers=layers),
    }


def draw(tables):
    curves = {name: kg.layer_curve(tables[name], name) for name in (*CURVES, "norm_ratio")}
    return curves | {
        "reliance_js": kg.figures.reliance_plot(tables["labels"]),
        "threshold_js": kg.figures.threshold_curve(tables["sensitivity"]),
        "labels_js": kg.panels(tables["table"]),
        "probe_auc": kg.position_heatmap(tables["probe"], "auc", annotate=True, limits=(0.3, 1)),
    }


if __name__ == "__main__":
    study(__file__)
