"""F5: layer × module, and layer × head, with an estimate of the former from one backward pass.

python experiments/modules_and_heads.py --limit 24 --at subject
"""

import argparse
from pathlib import Path

import knockgrid as kg

ESTIMATE = "attribution_size"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--relation", default="country_capital_city")
    parser.add_argument("--limit", type=int, default=12)
    parser.add_argument("--at", default="subject")
    parser.add_argument("--out", type=Path, default=Path("runs/modules_and_heads"))
    given = parser.parse_args()
    names = ("modules", "statistics", "heads")
    paths = {name: given.out / f"{name}.parquet" for name in names}
    if not all(path.exists() for path in paths.values()):
        model = kg.load(given.model)
        facts = kg.facts(given.relation, tokenizer=model.tokenizer)
        prompts = list(kg.known(model, facts))[: given.limit]
        heads = kg.per_head(kg.knockout(window=1), int(model.cfg.n_heads))
        made = {
            "modules": kg.sweep(model, prompts, kg.per_module(model, given.at)),
            "statistics": kg.evidence.module_statistics(model, prompts, at=given.at),
            "heads": kg.sweep(model, prompts, heads),
        }
        for name, table in made.items():
            kg.runs.write_table(table, paths[name])
    tables = {name: kg.runs.read_table(path) for name, path in paths.items()}
    agree = kg.stats.rank_agreement(tables["statistics"], tables["modules"])
    print(f"Spearman's rank agreement of {ESTIMATE} with the exact JS: {agree:.2f}")
    drawn = {
        "module_heatmap_js": kg.module_heatmap(tables["modules"], diverging=True),
        f"module_heatmap_{ESTIMATE}": kg.module_heatmap(
            tables["statistics"], ESTIMATE, diverging=True
        ),
        "head_heatmap_js": kg.head_heatmap(tables["heads"]),
    }
    for name, ax in drawn.items():
        print(*kg.save(ax, given.out / name), sep="\n")


if __name__ == "__main__":
    main()
