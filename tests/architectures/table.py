"""Prints the table of architectures for the documentation, from what preflight finds.

python tests/architectures/table.py
"""

import os
import sys
import warnings
from pathlib import Path

import torch

import knockgrid as kg
from knockgrid.engine.checks import check_edits
from knockgrid.engine.memory import Memory
from knockgrid.engine.preflight import choose

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parent))

PATCHED = ("resid_pre", "resid_post", "mlp_out", "attn_out", "z", "q", "k", "v")
RANK = ("staircase", "rectangle", "reference")


def measured(model, family, prompts):
    """Per kind of edit the executor that preflight takes, "NA" (no such edge) or "no" (refused)."""
    from agree import prepared
    from kinds import kind_of, main_kinds

    found = {}
    for name, one in main_kinds().items():
        if name != kind_of(name):
            continue
        try:
            layers = family.layers.get(name, "all")
            ready, settings = prepared(model, prompts, [one], layers=layers, keep_kv=False)
            check_edits(model, [one], settings.layers)
            executor, receipt = choose(model, ready, settings, "auto", Memory())
            found[name] = "NA" if name in receipt["unseen"] else executor.name
        except kg.InputError:
            found[name] = "no"
    return found


def line(family, found) -> str:
    """One row of the table."""
    patches = [name for name in PATCHED if found[f"patch {name}"] in RANK]
    edges = ["yes" if found[name] in RANK else found[name] for name in ("knockout", "edge_patch")]
    missing = [name for name in PATCHED if name not in patches]
    patch = "all" if not missing else ", ".join(f"`{name}`" for name in patches)
    used = [executor for executor in found.values() if executor in RANK]
    executor = max(used, key=RANK.index)
    if set(used) != {executor}:
        slow = [name for name, taken in found.items() if taken == executor]
        executor = f"{min(used, key=RANK.index)} ({executor}: {', '.join(slow)})"
    return f"| {family.name} | {executor} | {patch} | {' | '.join(edges)} | {family.note} |"


def main(names) -> None:
    """Prints the whole table, or the rows of some families."""
    from families import bridge
    from mixtures import FAMILIES
    from words import word_tokenizer

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    texts = {
        "river of oslo": "in the river of oslo people speak the",
        "tower of rome": "by the tower of rome people speak norway",
    }
    prompts = [kg.Prompt(text, spans={"subject": subject}) for subject, text in texts.items()]
    tokenizer = word_tokenizer()
    print("| family | executor | patch | knockout | edge patch | notes |")
    print("| --- | --- | --- | --- | --- | --- |")
    for family in FAMILIES:
        if not names or family.name in names:
            found = measured(bridge(family, tokenizer), family, prompts)
            print(line(family, found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
