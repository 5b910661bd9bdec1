"""F4: what a probe can read at a position beside what the model uses there.

python experiments/error_detection.py --per-relation 48 --layers 0 6 12 18 24 29
"""

import argparse
from pathlib import Path

import knockgrid as kg

POSITIONS = ["last_q", "first_answer", "second_answer", "exact_answer_before_first"]
POSITIONS += [f"exact_answer_{part}" for part in ("first", "last", "after_last")]
POSITIONS += [f"-{k}" for k in range(8, 0, -1)]
RELATIONS = ["country_capital_city", "country_language", "landmark_in_city", "us_city_state"]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--relation", action="append", default=None)
    parser.add_argument("--per-relation", type=int, default=24)
    parser.add_argument("--layers", type=int, nargs="+", default=[0, 6, 12, 18, 24, 29])
    parser.add_argument("--positions", nargs="+", default=POSITIONS)
    parser.add_argument("--out", type=Path, default=Path("runs/error_detection"))
    given = parser.parse_args()
    paths = [given.out / f"{name}.parquet" for name in ("probes", "divergence")]
    if not all(path.exists() for path in paths):
        model = kg.load(given.model)
        prompts = [
            fact
            for relation in given.relation or RELATIONS
            for fact in kg.facts(relation, tokenizer=model.tokenizer)[: given.per_relation]
        ]
        probes = kg.evidence.probe_auc(
            model, prompts, given.positions, layers=given.layers, n_tokens=9
        )
        family = kg.per_position(kg.patch("resid_post", "last"), given.positions)
        moved = kg.sweep(model, prompts, family, layers=given.layers, n_tokens=9)
        for table, path in zip((probes, moved), paths, strict=True):
            kg.runs.write_table(table, path)
    probes, moved = map(kg.runs.read_table, paths)
    figure = kg.figures.probe_beside_effect(
        probes, moved, kg.evidence.readable_not_used(probes, moved)
    )
    print(*kg.save(figure, given.out / "probe_twin_js"), sep="\n")


if __name__ == "__main__":
    main()
