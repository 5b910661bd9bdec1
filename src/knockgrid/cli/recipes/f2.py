"""F2: the same grid beside itself under another treatment: subjects swapped instead of noised.

The published F2 is F1 for a second model; give that model with `--model`.
"""

from knockgrid.cli.recipes.recipe import Recipe, known_facts
from knockgrid.edits import information_flow
from knockgrid.figures import layer_heatmap, side_by_side
from knockgrid.sources import corrupted_run, noise, swap
from knockgrid.sweep import sweep


def _make(model, quick):
    prompts = known_facts(model, 16 if quick else 120)
    treatments = {"noise": noise(3.0), "swap": swap()}
    return {
        f"f2_{name}": sweep(model, prompts, information_flow(corrupted_run(by=by), window=5))
        for name, by in treatments.items()
    }


def _draw(tables):
    both = {name.removeprefix("f2_"): table for name, table in tables.items()}
    swapped = layer_heatmap(tables["f2_swap"])
    return {"f2_layer_heatmap_js": swapped, "f2_side_by_side_js": side_by_side(both)}


f2 = Recipe("layer × subject, attention and last token (swap)", _make, _draw)
