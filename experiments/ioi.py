"""Indirect objects: which heads and places say the one of two names that was named once.

python experiments/ioi.py --quick --out runs/ioi
"""

from itertools import permutations

import knockgrid as kg
from knockgrid.cli.reproduce import some_layers, study

NAMES = ("Mary", "John", "Anna", "Tom", "Lucy", "Paul")
TEXT = "When {} and {} went to the store, {} gave a drink to"


def asked(a, b, again, other):
    """A prompt that names one name again, which is its subject; the other is the answer."""
    at = TEXT.format(a, b, "{").index("{")
    spans = {"subject": (at, at + len(again))}
    return kg.Prompt(TEXT.format(a, b, again), spans=spans, answers=[other], foil=again)


def make(model, quick):
    names = list(permutations(NAMES, 2))[: 8 if quick else 30]
    prompts = [asked(a, b, b, a).replace(swap=asked(a, b, a, b)) for a, b in names]
    swap = kg.corrupted_run(by=kg.swap())
    heads = kg.per_head(kg.patch("z", "last", swap), model.cfg.n_heads)
    places = kg.per_position(kg.patch("resid_post", "last", swap), ["subject", "last"])
    options = {"layers": some_layers(model, 5 if quick else 1)}
    options["metrics"] = ["logit_diff", "recovered"]
    made = {"heads": heads, "places": places}
    return {name: kg.sweep(model, prompts, rows, **options) for name, rows in made.items()}


def draw(tables):
    named = {"heads_recovered": kg.figures.head_heatmap(tables["heads"], "recovered")}
    return named | {"places_recovered": kg.position_heatmap(tables["places"], "recovered")}


if __name__ == "__main__":
    study(__file__)
