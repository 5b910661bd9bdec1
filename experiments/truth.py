"""How often claims about models whose mechanism is known are true.

python experiments/truth.py --models 200 --out runs/truth

Models are drawn one by one and measured; a run that was interrupted goes on where it stopped.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest

import knockgrid as kg
from knockgrid.stats.size import SHARE

PLAIN = 4  # of twelve models
TURN = [*["plain"] * PLAIN, "backup", "parallel", "decoy", "presence", "two_hops", "nothing"]
TURN += ["last_mlp", "by_relation"]
SWAP = kg.corrupted_run(by=kg.swap())
SAME = ("presence", "nothing")  # another subject has the same answer, which no swap takes


def drawn(i, seed=0, **fixed):
    """The i-th model: its variant in turn, all else by chance; one that leaks drown is redrawn."""
    rng = np.random.default_rng([seed, i])
    while True:
        options = {
            "shape": str(rng.choice(["llama", "gpt2"])),
            "n_layers": int(rng.integers(6, 13)),
            "n_relations": int(rng.choice([6, 8, 10, 12])),
            "prompts_each": int(rng.integers(2, 5)),
            "leak": float(rng.uniform(0.03, 0.13)),
            "seed": int(rng.integers(2**31)),
        }
        try:
            return kg.evidence.planted(TURN[i % len(TURN)], **{**options, **fixed})
        except kg.InputError as error:
            if "drowns" not in str(error):
                raise


def truth(made):
    """What is true of a model: ranges or sets of layers by claim; a claim that is absent is not."""
    layers = sorted({layer for layer, _ in made.reads})
    if made.variant == "nothing":
        return {}
    if made.variant == "presence":  # another subject changes nothing
        return {"attention: the peak": layers, "attention exceeds": layers}
    if made.variant == "backup":
        layers = layers[:1]
    ends = [made.hop[0]] if made.hop else layers
    found = {
        "subject: the step ends": (ends[0] - 0.5, ends[-1] - 0.5),
        "last: the step begins": (layers[0] - 0.5, layers[-1] - 0.5),
    }
    if len(layers) == 1:
        found |= {"subject: the step is sharp": (), "last: the step is sharp": ()}
    if made.hop:
        return found | {"through tokens between": ()}
    direct = ("attention: the peak", "attention exceeds")
    return found | dict.fromkeys(direct, layers) | {"subject, attention, last": ()}


def kind_of(line):
    """A claim without the name of its contrast."""
    row, *contrast = line["claim"].split(" exceeds ")
    return f"{row} exceeds" if contrast else row


def is_true(line, true):
    """Whether what a held claim says is so."""
    claim = kind_of(line)
    if claim not in true:
        return False
    if claim.endswith(("ends", "begins")):
        low, high = true[claim]
        return low - 1 <= float(line["confirmed"]) <= high + 1
    if claim.endswith("peak"):
        return bool(set(map(int, line["value"].replace(" or ", ", ").split(", "))) & {*true[claim]})
    if claim.endswith("exceeds"):
        return layers_in(line["value"]) <= {*true[claim]}
    return True


def layers_in(said):
    """The layers of words such as "at 2–4, 7"."""
    parts = [part.split("–") for part in said.removeprefix("at ").split(", ")]
    return {layer for part in parts for layer in range(int(part[0]), int(part[-1]) + 1)}


def measured(made, share=SHARE):
    """One line per claim, and one per place that was looked for, of a model."""
    partners = {str(one.id): one.swap for one in made.prompts}
    source = kg.donor(partners) if made.variant in SAME else SWAP
    rows = kg.information_flow(source, window=1)
    every = [*rows, *kg.contrasts(rows), *kg.edits.paths(source)]
    table = kg.sweep(made.model, made.prompts, every, progress=False, metrics=["js"])
    true = truth(made)
    for line in kg.evidence.claims({"plain": table}, share=share).to_dict("records"):
        kind, held = kind_of(line), line["outcome"] == "held"
        right = is_true(line, true) if held else None
        yield {"kind": kind, "outcome": line["outcome"], "right": right, "so": kind in true}
    if made.variant in ("plain", "decoy", "last_mlp"):
        best = int(kg.grid(table).loc["attention"].idxmax())
        yield {"kind": "row: attention's peak", "right": best == made.reads[0][0]}
        n_heads = made.model.cfg.n_heads
        heads = kg.per_head(kg.knockout("last", "subject", window=1), n_heads)
        heads = kg.sweep(made.model, made.prompts, heads, progress=False, metrics=["js"])
        first = heads.groupby(["layer", "head"])["js"].mean().idxmax()
        yield {"kind": "head: first of all", "right": tuple(map(int, first)) == made.reads[0]}


def scored(lines):
    """Per variant and kind: held and true, held and false, missed, with Wilson intervals."""
    rows = []
    for (variant, kind), part in lines.groupby(["variant", "kind"], sort=False):
        held = part["right"].dropna().astype(bool)
        row = {"variant": variant, "kind": kind, "models": part["model"].nunique()}
        row |= {"true": int(held.sum()), "false": int((~held).sum())}
        if "so" in part and part["so"].notna().any():
            row["missed"] = int((part["so"].astype(bool) & part["right"].isna()).sum())
        if len(held):
            ends = binomtest(row["false"], len(held)).proportion_ci(method="wilson")
            row |= {"false_low": round(ends.low, 3), "false_high": round(ends.high, 3)}
        rows.append(row)
    return pd.DataFrame(rows)


def lines_of(i, made, share=SHARE):
    """The lines of a model, each with its number and variant."""
    return [{"model": i, "variant": made.variant, **line} for line in measured(made, share)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share", type=float, default=SHARE)
    parser.add_argument("--out", type=Path, default=Path("runs/truth"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    for i in range(given.models):
        if (kept := given.out / f"{given.seed}-{given.share:g}-{i}.json").is_file():
            continue
        lines = lines_of(i, drawn(i, given.seed), given.share)
        kept.with_suffix(".part").write_text(json.dumps(lines))
        kept.with_suffix(".part").rename(kept)
        print(f"model {i + 1} of {given.models}: {lines[0]['variant']}", flush=True)
    files = given.out.glob(f"{given.seed}-{given.share:g}-*.json")
    lines = pd.DataFrame([line for file in files for line in json.loads(file.read_text())])
    print(scored(lines).to_string(index=False))


if __name__ == "__main__":
    main()
