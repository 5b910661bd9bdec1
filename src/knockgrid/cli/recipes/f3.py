"""F3: layer × generated token, in three modes."""

from knockgrid.cli.recipes.recipe import Recipe, depth, known_facts
from knockgrid.edits import knockout
from knockgrid.engine.checks import MODES
from knockgrid.figures import token_heatmap
from knockgrid.sweep import sweep


def _make(model, quick):
    prompts = known_facts(model, 4 if quick else 32)
    n = depth(model)
    picked = sorted({0, *range(n // 2, n - n // 4, 1 if not quick else 2), n - n // 4 + 1, n - 2})
    row = knockout("last", "subject", window=5, name="attention")
    return {
        f"f3_{mode}": sweep(model, prompts, row, layers=picked, n_tokens=5, mode=mode)
        for mode in MODES
    }


def _draw(tables):
    return {
        f"{name}_kl": token_heatmap(table, "kl", annotate=True) for name, table in tables.items()
    }


f3 = Recipe("layer × generated token", _make, _draw)
