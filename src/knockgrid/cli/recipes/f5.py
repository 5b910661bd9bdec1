"""F5: layer × module, exact and estimated, with what can be read off activations and weights."""

from knockgrid.cli.recipes.recipe import Recipe, known_facts
from knockgrid.edits import per_module
from knockgrid.evidence import module_statistics
from knockgrid.figures import module_heatmap
from knockgrid.stats import rank_agreement
from knockgrid.sweep import sweep

STATISTICS = ("attribution_size", "act_shift", "act_norm", "grad_norm", "weight_norm")


def _make(model, quick):
    prompts = known_facts(model, 8 if quick else 48)
    exact = sweep(model, prompts, per_module(model, "subject"))
    return {"f5_patch": exact, "f5_statistics": module_statistics(model, prompts, at="subject")}


def _draw(tables):
    exact, statistics = tables["f5_patch"], tables["f5_statistics"]
    agree = rank_agreement(statistics, exact)
    title = f"estimate; Spearman {agree:.2f} with the exact JS"
    drawn = {"f5_module_heatmap_js": module_heatmap(exact, diverging=True)}
    for name in STATISTICS:
        words = title if name == "attribution_size" else None
        ax = module_heatmap(statistics, name, title=words, diverging=True)
        drawn[f"f5_module_heatmap_{name}"] = ax
    return drawn


f5 = Recipe("layer × module", _make, _draw)
