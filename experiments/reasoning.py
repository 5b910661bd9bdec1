"""From reasoning to answer: a region of the reasoning and a head, alone and together.

python experiments/reasoning.py --quick --out runs/reasoning
"""

from itertools import permutations

import knockgrid as kg
from knockgrid.cli.reproduce import some_layers, study

HOMES = {
    "Rome": ("Italy", "Italian"),
    "Paris": ("France", "French"),
    "Berlin": ("Germany", "German"),
}
TEXT = "Question: Anna is from {}. What does she speak?\nReasoning: {}\nAnswer: Anna speaks"
SWAP = kg.corrupted_run(by=kg.swap())


def asked(city, other):
    """A question with its reasoning; the foil is what is spoken in the other city."""
    country, language = HOMES[city]
    reasoning = f"{city} is the capital of {country}, and people in {country} speak {language}."
    spans = {"reasoning": reasoning, "subject": f"{city}."}
    told = {"spans": spans, "answers": [language], "foil": HOMES[other][1]}
    return kg.Prompt(TEXT.format(city, reasoning), id=f"{city}, not {other}", **told)


def make(model, quick):
    pairs = list(permutations(HOMES, 2))[: 2 if quick else 6]
    prompts = [asked(*pair).replace(swap=asked(*pair[::-1])) for pair in pairs]
    options = {"layers": some_layers(model, 5 if quick else 1), "metrics": ["recovered", "js"]}
    heads = kg.per_head(kg.patch("z", "last", SWAP), model.cfg.n_heads)
    heads = kg.sweep(model, prompts, heads, **options)
    layer, head = heads.groupby(["layer", "head"])["recovered"].mean().idxmin()
    region = kg.patch("resid_pre", "reasoning", SWAP, name="reasoning")
    one = kg.patch("z", "last", SWAP, heads=[int(head)], layers=[int(layer)], name="head")
    rows = [region, one, kg.joint([region, one], name="both")]
    return {"heads": heads, "together": kg.sweep(model, prompts, rows, **options)}


def draw(tables):
    return {"together_recovered": kg.layer_heatmap(tables["together"], "recovered")}


if __name__ == "__main__":
    study(__file__)
