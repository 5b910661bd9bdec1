"""Layer × token position, patched and restored: the picture of causal tracing.

python experiments/token_positions.py --quick --out runs/token_positions
"""

import knockgrid as kg
from knockgrid.cli.reproduce import known_facts, some_layers, study

TOWER = "The Eiffel Tower"
NAMES = ("bos", "subject_first", "subject_last", "between", "last")
WINDOWS = {"resid_post": 1, "mlp_out": 10, "attn_out": 10}


def make(model, quick):
    source = kg.corrupted_run(by=kg.noise(3.0))
    text = f"{TOWER} is located in the city of"
    tower = kg.Prompt(text, spans={"subject": TOWER}, answers=["Paris"], id="tower")
    tokens = len(kg.token_positions(tower, "all", model))
    options = {"layers": some_layers(model, 2 if quick else 1), "samples": 1 if quick else 10}
    made = {}
    for act_name, window in WINDOWS.items():
        rows = kg.per_position(kg.patch(act_name, "last", source, window), tokens)
        made[act_name] = kg.sweep(model, tower, rows, direction="denoising", **options)
    prompts = known_facts(model, 8 if quick else 48, ("country_language", "landmark_in_city"))
    rows = kg.per_position(kg.patch("resid_post", "last", source), NAMES)
    return {"patched": kg.sweep(model, prompts, rows), **made}


def draw(tables):
    drawn = {"patched_js": kg.position_heatmap(tables["patched"])}
    for act_name, window in WINDOWS.items():
        look = {"cmap": "Purples", "title": f"restored {act_name}, window {window}"}
        ax = kg.position_heatmap(tables[act_name], "logp_answer", **look)
        drawn[f"restored_{act_name}_logp_answer"] = ax
    return drawn


if __name__ == "__main__":
    study(__file__)
