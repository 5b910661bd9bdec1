"""Where the information flows, and whether there is a spare path."""

from knockgrid.cli.recipes.recipe import Recipe, known_facts
from knockgrid.edits import edge_patch, knockout, patch, per_alpha, per_window
from knockgrid.edits import paths as three_paths
from knockgrid.figures import dose_heatmap, layer_curve, layer_heatmap
from knockgrid.stats.contrast import redundancy
from knockgrid.sweep import sweep

BETWEEN = ("country_language", "landmark_in_city")  # these have tokens after the subject


def _make(model, quick):
    prompts = known_facts(model, 8 if quick else 48, BETWEEN)
    rows = [
        knockout("last", "subject", 5, name="knockout", label="Attn. knockout"),
        edge_patch("last", "subject", window=5, name="edge patch", label="Attn. edge patch"),
        *per_window(knockout("last", "subject", name="block", label="block")),
        *three_paths(),
    ]
    doses = per_alpha(patch("resid_post", "subject"), [0.25, 0.5, 0.75, 1.0])
    return {"paths": sweep(model, prompts, rows), "paths_dose": sweep(model, prompts, doses)}


def _draw(tables):
    table = tables["paths"]
    spare = redundancy(table, "block only", "block from")
    return {
        "paths_layer_heatmap_js": layer_heatmap(table),
        "paths_redundancy_js": layer_curve(spare, title="sum of single layers − all from ℓ on"),
        "paths_dose_heatmap_js": dose_heatmap(tables["paths_dose"]),
    }


paths = Recipe("paths, redundancy and dose", _make, _draw)
