"""Edges between the parts of a text, cut as four papers cut them: windows, pair rules, distance.

python experiments/edges.py --quick --out runs/edges
"""

import knockgrid as kg
from knockgrid.cli.reproduce import some_layers, study

HOMES = {"Anna": "Rome", "Ben": "Paris", "Emma": "London", "Tom": "Berlin"}
EDGES = [("question", "fact"), ("last", "question"), ("last", "fact"), ("last", "last")]
TURN = "\nUser: Which word was it?\nAssistant: The word was violin."
SIZES = {"windows": 9, "outside": kg.all_but(9)}
FAR, TURNS = (8, 16, 32, 48), ["m1", "m2", "m3", "m4"]
FACT, WHOLE = ("fact", "fact"), {"layers": "all"}


def asked(name):
    """A text of facts and a question about one of them, the fact."""
    facts = {one: f"{one} lives in {city}." for one, city in HOMES.items()}
    question = f"Where does {name} live?"
    text = " ".join([*facts.values(), question, f"Answer: {name} lives in"])
    spans = {"fact": facts.pop(name), **facts, "question": question}
    return kg.Prompt(text, spans=spans, answers=[HOMES[name]], id=name)


def recalled():
    """A word and turns that say it again, as a text of its own."""
    prompt = kg.Prompt("User: Remember: the word is violin.", continuation=TURN * 4)
    spans = kg.prompts.matches(prompt, "(?<=word )was|(?<=is )violin")
    return prompt.with_spans(spans | {"written": (len(prompt.text), len(prompt.whole))})


def make(model, quick):
    prompts, metrics = [asked(name) for name in HOMES], ["p_change", "rank_answer", "js"]
    layers, tables = some_layers(model, 10 if quick else 1), {}
    for name, size in SIZES.items():
        rows = [kg.knockout(*edge, size) for edge in EDGES]
        tables[name] = kg.sweep(model, prompts, rows, layers=layers, metrics=metrics)
    parts = [kg.knockout(*FACT, pairs=kg.pairs.not_self(), **WHOLE)]
    parts += [kg.knockout("all", "all", pairs=kg.pairs.to_earlier_spans(), **WHOLE)]
    tables["parts"] = kg.sweep(model, prompts, parts, metrics=metrics)
    far = [kg.knockout("written", "m0", pairs=kg.pairs.farther_than(w), **WHOLE) for w in FAR]
    tables["distance"] = kg.sweep(model, recalled(), far, measure=TURNS, metrics=["kl", "js"])
    return tables


def draw(tables):
    return {f"{one}_p_change": kg.layer_heatmap(tables[one], "p_change") for one in SIZES}


if __name__ == "__main__":
    study(__file__)
