"""Layer × generated token, in three modes (F3).

python experiments/generated_tokens.py --quick --out runs/generated_tokens
"""

import knockgrid as kg
from knockgrid.cli.reproduce import some_layers, study, swept

MODES = ("prompt_only", "persistent", "free_run")


def make(model, quick):
    options = {"limit": 4 if quick else 32}
    if model.cfg.n_layers != 30:  # not the demo model, whose layers the study file names
        options["layers"] = some_layers(model, max(1, model.cfg.n_layers // 6))
    return {mode: swept(__file__, model, mode=mode, **options) for mode in MODES}


def draw(tables):
    return {
        f"token_heatmap_{mode}_kl": kg.token_heatmap(table, "kl", annotate=True)
        for mode, table in tables.items()
    }


if __name__ == "__main__":
    study(__file__)
