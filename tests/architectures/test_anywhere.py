"""Whole texts on every family: the final states of each kind of edit, at every position."""

import pytest
from agree import EXECUTORS, assert_agree, compare, effects_anywhere
from kinds import kind_of, main_kinds
from mixtures import FAMILIES

from knockgrid.engine.executors import states
from knockgrid.passes import chunked

SHIFTED = 1e-8
"""MPT counts its position bias from the last key, so that scores of a part are shifted by a
constant before the softmax, which TransformerLens makes in float32."""
FAST = [family for family in FAMILIES if family.executor != "reference"]
NAMES = ("knockout, all layers", "knockout", "edge_patch", "patch mlp_out", "knockout, in a joint")


@pytest.mark.parametrize("family", FAST, ids=lambda family: family.name)
@pytest.mark.parametrize("size", ["whole", "parts"])
def test_states_of_every_kind(family, size, boot, prompts, monkeypatch):
    if size == "parts":  # of four tokens, and of few rows
        monkeypatch.setattr(chunked, "LEAST", 4)
        monkeypatch.setattr(chunked, "SCORES", 1)
        monkeypatch.setattr(states, "PASS", 1)
    groups = {}
    for name in NAMES:
        if kind_of(name) not in family.refused:
            layers = family.layers.get(kind_of(name), "all")
            groups.setdefault(str(layers), (layers, []))[1].append(main_kinds()[name])
    executors, options = [EXECUTORS[family.executor]], {"anywhere": True}
    for layers, kinds in groups.values():
        found = compare(
            boot(family), executors, prompts[1:], kinds, effects_anywhere, layers=layers, **options
        )
        within = max(family.within, SHIFTED if (family.name, size) == ("MPT", "parts") else 0.0)
        assert_agree(found, within, above=max(1e-7, 10 * within))
