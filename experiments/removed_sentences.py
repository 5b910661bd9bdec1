"""Sentences of a context: how far a given answer moves where one of them is hidden.

python experiments/removed_sentences.py --quick --out runs/removed_sentences
"""

import knockgrid as kg
from knockgrid.cli.reproduce import study

CONTEXT = (
    "The old mill stands by the river. It was built by Anna Bell in 1820. The walls are made of "
    "grey stone. A storm took its roof in 1901. Today it is a small museum. Children like it."
)
ASKED = {"Who built the mill?": "Anna Bell", "What is the mill today?": "a small museum"}


def asked(question, answer):
    """A context with a question, whose answer is given, and the sentences of the context."""
    prompt = kg.Prompt(f"{CONTEXT}\n\nQuestion: {question}\nAnswer:", continuation=f" {answer}.")
    return prompt.replace(id=question).with_spans(kg.sentences(kg.Prompt(CONTEXT)))


def make(model, quick):
    prompts = [asked(*one) for one in ASKED.items()]
    rows = kg.per_span(kg.knockout("all", "span", layers="all"), prompts[0].span_names)
    table = kg.sweep(model, prompts, rows, metrics=["js", "kl"])
    # the sum over the answer's tokens, on a row of its own
    total = table.groupby(["prompt", "span"], sort=False)["js"].transform("sum")
    return {"sentences": table.assign(js_sum=total)[table["token"] == 0]}


def draw(tables):
    table = tables["sentences"].assign(measured=tables["sentences"]["prompt"])
    ax = kg.span_heatmap(table, "js_sum", colorbar="sum of JS over the answer (nats)")
    ax.set(xlabel="Question", ylabel="Hidden sentence")
    return {"sentences_js_sum": ax}


if __name__ == "__main__":
    study(__file__)
