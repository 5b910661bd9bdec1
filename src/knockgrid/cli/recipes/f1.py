"""F1: layer × {Subj., Attn., Last.}, under a corrupted run by noise."""

from knockgrid.cli.recipes.recipe import Recipe, known_facts
from knockgrid.edits import information_flow
from knockgrid.figures import layer_curve, layer_heatmap, with_interval
from knockgrid.sources import corrupted_run, noise
from knockgrid.sweep import sweep


def _make(model, quick):
    prompts = known_facts(model, 24 if quick else 120)
    rows = information_flow(corrupted_run(by=noise(3.0)), window=5)
    return {"f1": sweep(model, prompts, rows)}


def _draw(tables):
    table = tables["f1"]
    return {
        "f1_layer_heatmap_js": layer_heatmap(table),
        "f1_layer_curve_js": layer_curve(table),
        "f1_interval_js": with_interval(table),
    }


f1 = Recipe("layer × subject, attention and last token (noise)", _make, _draw)
