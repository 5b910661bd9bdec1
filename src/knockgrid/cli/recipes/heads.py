"""Layer × head: which heads carry the subject to the last token."""

from knockgrid.cli.recipes.recipe import Recipe, known_facts
from knockgrid.edits import edge_patch, knockout, patch, per_head
from knockgrid.figures import head_heatmap
from knockgrid.sweep import sweep


def _make(model, quick):
    prompts, n = known_facts(model, 4 if quick else 48), int(model.cfg.n_heads)
    kinds = {
        "knockout": knockout("last", "subject", window=1),
        "edge_patch": edge_patch("last", "subject", window=1),
        "z": patch("z", "last"),
    }
    return {
        f"heads_{name}": sweep(model, prompts, per_head(one, n), metrics=["js", "kl"])
        for name, one in kinds.items()
    }


def _draw(tables):
    titles = {
        "heads_knockout": "knockout subject → last",
        "heads_edge_patch": "edge patch subject → last",
        "heads_z": "patch of the head's output at the last token",
    }
    return {f"{n}_js": head_heatmap(table, title=titles[n]) for n, table in tables.items()}


heads = Recipe("layer × head", _make, _draw)
