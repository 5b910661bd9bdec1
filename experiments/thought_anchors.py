"""Sentence × sentence: what later sentences of a chain of thought take from an earlier one.

python experiments/thought_anchors.py --quick --out runs/thought_anchors
"""

import knockgrid as kg
from knockgrid.cli.reproduce import study

ASKED = (
    "A farmer has 3 boxes with 4 apples each. He gives 2 apples to his neighbour and finds 5 more "
    "under the tree. How many apples does he have now? Think step by step."
)


def thought(model, asked, n):
    """A question in the model's chat form, with the answer that it writes greedily as its text."""
    turn, form = [{"role": "user", "content": asked}], model.tokenizer.apply_chat_template
    text = form(turn, tokenize=False, add_generation_prompt=True)
    ids = model.to_tokens(text, prepend_bos=False)
    made = model.generate(ids, max_new_tokens=n, do_sample=False, verbose=False)
    written = model.tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True)
    trace = kg.Prompt(text, continuation=written, id="thought")
    return trace.with_spans(kg.sentences(trace))


def make(model, quick):
    trace = thought(model, ASKED, 90 if quick else 240)
    rows = kg.per_span(kg.knockout("all", "span", layers="all"), trace.span_names)
    options = {"measure": "all", "temperature": 0.6, "metrics": ["kl", "js"]}
    return {"sentences": kg.sweep(model, trace, rows, **options)}


def draw(tables):
    return {"sentences_kl": kg.span_heatmap(tables["sentences"], mean="log")}


if __name__ == "__main__":
    study(__file__)
