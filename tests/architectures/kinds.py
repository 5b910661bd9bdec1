"""The kinds of intervention that every family is tried with, by name."""

from dataclasses import replace

import knockgrid as kg
from knockgrid.edits.intervention import Intervention

PATCHES = ("resid_pre", "resid_post", "mlp_out", "attn_out", "z", "q", "k", "v")


def main_kinds() -> dict[str, Intervention]:
    """One of every kind, in the words of `Intervention.kind`; source is the corrupted run."""
    both = ["subject", "last"]  # the last query matters even where only the last layer has the site
    at = {"q": both, "z": both, "attn_out": both}
    patches = [kg.patch(name, at.get(name, "subject"), name=f"patch {name}") for name in PATCHES]
    cut = kg.knockout("last", "subject", layers="all")
    edits = [
        *patches,
        kg.patch("resid_post", "last", name="patch resid_post, last"),
        kg.patch("z", both, heads=[1], name="patch z (some heads)"),
        kg.knockout(window=1, name="knockout"),
        kg.knockout(window=5, name="knockout, window 5"),
        kg.knockout(window=1, heads=[0, 2], name="knockout (some heads)"),
        kg.edge_patch(window=1, name="edge_patch"),
        kg.edge_patch(window=5, heads=[0, 2], name="edge_patch (some heads)"),
        replace(cut, name="knockout, all layers"),
        kg.knockout(
            "all", "subject", 1, pairs=kg.pairs.farther_than(1), name="knockout, farther than 1"
        ),
        kg.joint(
            [cut, kg.patch("mlp_out", "subject_last", kg.zero())], name="knockout, in a joint"
        ),
        kg.joint(
            [kg.edge_patch(window=1), kg.patch("mlp_out", "subject_last", kg.zero())],
            name="edge_patch, joint",
        ),
    ]
    return {one.name: one for one in edits}


def kind_of(name: str) -> str:
    """The kind a name in `main_kinds` belongs to, as refusals list it."""
    return name.split(",")[0].split(" (")[0]
