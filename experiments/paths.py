"""Where the information flows, whether there is a spare path, and how much dose it takes.

python experiments/paths.py --relation country_language --limit 24
"""

import argparse
from pathlib import Path

import knockgrid as kg


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--relation", default="country_language")
    parser.add_argument("--limit", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path("runs/paths"))
    given = parser.parse_args()
    paths = [given.out / f"{name}.parquet" for name in ("paths", "dose")]
    if not all(path.exists() for path in paths):
        model = kg.load(given.model)
        facts = kg.facts(given.relation, tokenizer=model.tokenizer)
        prompts = list(kg.known(model, facts))[: given.limit]
        rows = [
            kg.knockout(name="knockout"),
            kg.edge_patch(name="edge patch"),
            *kg.per_window(kg.knockout(name="block")),
            *kg.paths(),
        ]
        doses = kg.per_alpha(kg.patch("resid_post", "subject"), [0.25, 0.5, 0.75, 1.0])
        for some, path in zip((rows, doses), paths, strict=True):
            kg.runs.write_table(kg.sweep(model, prompts, some), path)
    table, dose = map(kg.runs.read_table, paths)
    drawn = {
        "layer_heatmap_js": kg.layer_heatmap(table),
        "redundancy_js": kg.layer_curve(kg.stats.redundancy(table, "block only", "block from")),
        "dose_heatmap_js": kg.dose_heatmap(dose),
    }
    for name, ax in drawn.items():
        print(*kg.save(ax, given.out / name), sep="\n")


if __name__ == "__main__":
    main()
