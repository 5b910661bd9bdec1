"""All for one: tokens that know only themselves, and a last token that reads them for some layers.

python experiments/all_for_one.py --quick --out runs/all_for_one
"""

import torch

import knockgrid as kg
from knockgrid.cli.reproduce import some_layers, study
from knockgrid.sources.source import RunSpec

SUMS = [(a, b) for a in range(1, 9) for b in range(1, 10 - a)]


def given_token(ids, states):
    """A source: the mean state of a token over all prompts that have it at the same place."""

    class GivenToken(kg.Source):
        label = "given_token()"

        def run(self, prompt):
            return RunSpec(prompt)

        def value(self, where):
            layer, same = states[where.act_name, where.layer], ids == where.run.ids
            return torch.stack([layer[same[:, at], at].mean(0) for at in where.run_pos])

    return GivenToken()


def asked(a, b):
    text = f"1 + 1 = 2\n4 + 2 = 6\n2 + 5 = 7\n{a} + {b} = "
    return kg.Prompt(text, answers=[str(a + b)], id=f"{a} + {b}")


def make(model, quick):
    prompts = [asked(a, b) for a, b in SUMS[:: 3 if quick else 1]]
    ids = model.to_tokens([one.text for one in prompts])
    source = given_token(ids, model.run_with_cache(ids)[1])
    n, rows, alone = model.cfg.n_layers, [], kg.pairs.not_self()
    for end in (n // 2, n * 2 // 3, n * 5 // 6):
        own = kg.patch("resid_post", "all", source, window=1)
        others = kg.knockout("rest", "all", window="from", pairs=alone)
        last = kg.knockout("last", "all", layers=range(end, n), pairs=alone)
        rows.append(kg.joint([own, others, last], name=f"the last token reads until {end}"))
    layers = some_layers(model, 5 if quick else 1)
    return {"sums": kg.sweep(model, prompts, rows, layers=layers, metrics=["js", "rank_answer"])}


def draw(tables):
    return {"sums_js": kg.layer_heatmap(tables["sums"])}


if __name__ == "__main__":
    study(__file__)
