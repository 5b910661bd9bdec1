"""F1 by label: reliance first, then FA-high, FA-low, AH and UH, and what they are made of.

python experiments/labels.py --known 110 --unknown 110
"""

import argparse
from pathlib import Path

import knockgrid as kg
from knockgrid.cli.app import DEMO_RELATIONS

CURVES = ("subject_norm", "subject_attention", "last_similarity")


def evenly(prompts, n):
    """At most n prompts, taken in turn from each relation."""
    by = {}
    for prompt in prompts:
        by.setdefault(prompt.relation, []).append(prompt)
    deepest = max(map(len, by.values()), default=0)
    turns = [own[i] for i in range(deepest) for own in by.values() if i < len(own)]
    return sorted(turns[:n], key=lambda prompt: (prompt.relation, prompt.id))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--known", type=int, default=110)
    parser.add_argument("--unknown", type=int, default=110)
    parser.add_argument("--relation", action="append", default=None)
    parser.add_argument("--threshold", default="mean_fa")
    parser.add_argument("--out", type=Path, default=Path("runs/labels"))
    given = parser.parse_args()
    names = ("labels", "sensitivity", "table", "diagnostics", "pairs", "norm_ratio", "probe")
    path = {name: given.out / f"{name}.parquet" for name in (*names, *CURVES)}
    if not all(one.exists() for one in path.values()):
        compute(given, path)
    found = {name: kg.runs.read_table(one) for name, one in path.items()}
    print(found["diagnostics"].to_string(index=False))
    draw(found, given.out)


def compute(given, path):
    model = kg.load(given.model)
    relations = given.relation or list(DEMO_RELATIONS)
    split = kg.known(model, kg.facts(relations, tokenizer=model.tokenizer))
    prompts = [*evenly(split, given.known), *evenly(split.dropped, given.unknown)]
    frame = kg.evidence.labels(kg.evidence.reliance(model, prompts), given.threshold)
    kg.runs.write_table(frame, path["labels"])
    kg.runs.write_table(kg.evidence.threshold_sensitivity(frame), path["sensitivity"])
    table = kg.evidence.with_labels(kg.sweep(model, prompts, kg.information_flow()), frame)
    kg.runs.write_table(table, path["table"])
    kg.runs.write_table(kg.evidence.diagnostics(frame, table), path["diagnostics"])
    kg.runs.write_table(kg.evidence.matched(frame), path["pairs"])
    for name in CURVES:
        kg.runs.write_table(getattr(kg, name)(model, prompts, frame), path[name])
    kg.runs.write_table(
        kg.evidence.norm_ratio(kg.runs.read_table(path["subject_norm"])), path["norm_ratio"]
    )
    layers = list(range(0, model.cfg.n_layers, 4))
    kg.runs.write_table(
        kg.evidence.label_probe(model, prompts, frame, layers=layers), path["probe"]
    )


def draw(found, out):
    written = kg.save(kg.figures.reliance_plot(found["labels"]), out / "reliance_js")
    written += kg.save(kg.figures.threshold_curve(found["sensitivity"]), out / "threshold_js")
    written += kg.save(kg.panels(found["table"]), out / "labels_js")
    for name in (*CURVES, "norm_ratio"):
        written += kg.save(kg.layer_curve(found[name], name), out / name)
    probe = kg.position_heatmap(found["probe"], "auc", annotate=True, limits=(0.3, 1.0))
    written += kg.save(probe, out / "probe_auc")
    print(*written, sep="\n")


if __name__ == "__main__":
    main()
