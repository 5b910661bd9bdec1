"""A state of one layer put into another one: source layer × target layer.

python experiments/layer_pairs.py --quick --out runs/layer_pairs
"""

import knockgrid as kg
from knockgrid.cli.reproduce import known_facts, some_layers, study

SHOT = "Syria: Syria, Leonardo DiCaprio: Leonardo DiCaprio, Samsung: Samsung, x"
SPAN = {"x": (len(SHOT) - 1, len(SHOT))}


def rows(source, at, layers):
    return kg.edits.per_source_layer(kg.patch("resid_post", at, source, name="from"), layers)


def make(model, quick):
    layers = some_layers(model, 6 if quick else 2)
    prompts = known_facts(model, 8 if quick else 32)
    back = rows(kg.donor({one.id: one for one in prompts}), "last", layers)
    tower = kg.Prompt("The Eiffel Tower", spans={"subject": "The Eiffel Tower"}, id="tower")
    scope = rows(kg.donor(tower, pos="subject_last"), "x", layers)
    shot = kg.Prompt(SHOT, spans=SPAN, id="shot")
    return {
        "back_patching": kg.sweep(model, prompts, back, layers=layers),
        "patchscope": kg.sweep(model, shot, scope, layers=layers),
    }


def draw(tables):
    back, look = tables["back_patching"], {"title": "back-patching at the last token"}
    scope = kg.layer_pair_heatmap(tables["patchscope"], title="Patchscope")
    named = {"back_patching_logp_answer": kg.layer_pair_heatmap(back, "logp_answer", **look)}
    return {**named, "patchscope_js": scope}


if __name__ == "__main__":
    study(__file__)
