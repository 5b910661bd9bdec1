"""Layer × generated token, in three modes (F3).

python experiments/generated_tokens.py --quick --out runs/generated_tokens
"""

import knockgrid as kg
from knockgrid.cli.reproduce import known_facts, study

MODES = ("prompt_only", "persistent", "free_run")


def make(model, quick):
    prompts, n = known_facts(model, 4 if quick else 32), model.cfg.n_layers
    layers = {0, *range(n // 2, n - n // 4, 2 if quick else 1), n - n // 4 + 1, n - 2}
    row = kg.knockout("last", "subject", window=5, name="attention")
    options = {"layers": sorted(layers), "n_tokens": 5}
    return {mode: kg.sweep(model, prompts, row, mode=mode, **options) for mode in MODES}


def draw(tables):
    return {
        f"token_heatmap_{mode}_kl": kg.token_heatmap(table, "kl", annotate=True)
        for mode, table in tables.items()
    }


if __name__ == "__main__":
    study(__file__)
