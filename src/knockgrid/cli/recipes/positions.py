"""Layer × token position in both directions: the picture of causal tracing."""

from knockgrid.cli.recipes.recipe import Recipe, depth, every, known_facts
from knockgrid.edits import patch, per_position
from knockgrid.figures import position_heatmap
from knockgrid.passes.prepared import default_bos
from knockgrid.prompts.positions import tokenize
from knockgrid.prompts.prompt import Prompt
from knockgrid.sources import corrupted_run, noise
from knockgrid.sweep import sweep

TOWER = Prompt(
    "The Eiffel Tower is located in the city of",
    spans={"subject": "The Eiffel Tower"},
    answers=["Paris"],
    id="tower",
)
NAMES = ("bos", "subject_first", "subject_last", "between", "last")
WINDOWS = {"resid_post": 1, "mlp_out": 10, "attn_out": 10}


def _make(model, quick):
    samples, source = 1 if quick else 10, corrupted_run(by=noise(3.0))
    length = len(tokenize(TOWER.text, model.tokenizer, default_bos(model, None)))
    layers = every(depth(model), 2 if quick else 1)
    made = {}
    for act_name, window in WINDOWS.items():
        tokens = per_position(patch(act_name, "last", source, window), length)
        made[f"positions_restored_{act_name}"] = sweep(
            model, TOWER, tokens, layers=layers, direction="denoising", samples=samples
        )
    prompts = known_facts(model, 8 if quick else 48, ("country_language", "landmark_in_city"))
    made["positions_patched"] = sweep(
        model, prompts, per_position(patch("resid_post", "last", source), NAMES)
    )
    return made


def _draw(tables):
    drawn = {"positions_patched_js": position_heatmap(tables["positions_patched"])}
    for name, table in tables.items():
        if name.startswith("positions_restored"):
            act_name = name.removeprefix("positions_restored_")
            title = f"restored {act_name}, window {WINDOWS[act_name]}"
            picture = position_heatmap(table, "logp_answer", cmap="Purples", title=title)
            drawn[f"{name}_logp_answer"] = picture
    return drawn


positions = Recipe("layer × token position, patched and restored", _make, _draw)
