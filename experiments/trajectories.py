"""The state that writes the first token, from another run: how many sampled texts flip.

python experiments/trajectories.py --quick --out runs/trajectories
"""

import knockgrid as kg
from knockgrid.cli.reproduce import known_facts, some_layers, study

FREE = {"mode": "free_run", "n_tokens": 4, "temperature": 0.7, "metrics": ["js"]}


def donors(prompts, others, fits):
    """For every prompt the first of the others that fits."""
    return {a.id: next(b for b in others if b.id != a.id and fits(a, b)) for a in prompts}


def make(model, quick):
    facts, towers = (known_facts(model, 40, (r,)) for r in ("country_language", "landmark_in_city"))
    said = [one.answers[0] for one in facts]
    prompts = [a for a in facts if said.count(a.answers[0]) > 1][: 4 if quick else 12]
    rows = {
        "another answer": donors(prompts, facts, lambda a, b: a.answers[0] != b.answers[0]),
        "the same answer": donors(prompts, facts, lambda a, b: a.answers[0] == b.answers[0]),
        "a random prompt": {a.id: towers[i] for i, a in enumerate(prompts)},
    }
    edits = [kg.patch("resid_post", "last", kg.donor(d), name=name) for name, d in rows.items()]
    options = {"layers": some_layers(model, 10 if quick else 3), "sampled_runs": 5 if quick else 20}
    return {"trajectories": kg.sweep(model, prompts, edits, **FREE, **options)}


def draw(tables):
    table = tables["trajectories"]
    return {"trajectories_flipped": kg.layer_heatmap(table[table["token"] == 0], "flipped")}


if __name__ == "__main__":
    study(__file__)
