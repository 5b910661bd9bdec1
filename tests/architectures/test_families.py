"""Every family: the executor preflight chooses, the kinds it refuses, and executor = reference."""

import warnings

import pytest
from agree import EXECUTORS, assert_agree, compare, prepared
from kinds import kind_of, main_kinds
from mixtures import FAMILIES

import knockgrid as kg
from knockgrid.engine.memory import Memory
from knockgrid.engine.preflight import choose
from knockgrid.engine.slower import FallbackWarning
from knockgrid.host.hooks import user_hooks

pytestmark = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
TRIED = ("patch resid_post", "patch mlp_out", "patch z", "patch v", "knockout", "edge_patch")
EVERY_LAYER = ("GPT-2", "Llama", "Mistral", "BLOOM")
OPTIONS = {"n_tokens": 2, "persistent": True}


def by_layers(family):
    """The interventions that work on a family, grouped by the layers they can be asked for."""
    groups = {}
    for name, one in main_kinds().items():
        if kind_of(name) not in family.refused:
            ends = "all" if family.name in EVERY_LAYER else [0, -1]
            layers = family.layers.get(kind_of(name), ends)
            groups.setdefault(str(layers), (layers, []))[1].append(one)
    return list(groups.values())


def test_every_kind_agrees_with_the_reference_executor(family, boot, prompts):
    model = boot(family)
    executors = [EXECUTORS[family.executor]]
    for layers, kinds in by_layers(family):
        found = compare(model, executors, prompts, kinds, layers=layers, **OPTIONS)
        assert_agree(found, within=family.within, above=max(1e-7, 10 * family.within))
    assert not user_hooks(model)


def test_preflight_takes_the_fastest_executor_that_is_right_and_says_why(family, boot, prompts):
    model = boot(family)
    slowest = []
    for layers, kinds in by_layers(family):
        kinds = [one for one in kinds if one.name in TRIED]
        ready, settings = prepared(model, prompts[::-1], kinds, layers=layers, **OPTIONS)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", FallbackWarning)
            chosen, receipt = choose(model, ready, settings, "auto", Memory())
        slowest.append(chosen.name)
        reasons = [t["refused"] for t in receipt["tried"] if "refused" in t]
        said = [str(w.message) for w in caught if w.category is FallbackWarning]
        assert len(said) == bool(reasons)
        assert all(reason in said[0] and len(reason) > 10 for reason in reasons)
        assert receipt["executor"] == chosen.name == receipt["tried"][-1]["executor"]
        assert set(receipt["maximal_effects"]) | set(receipt["unseen"])
        assert all(effect > 0 for effect in receipt["maximal_effects"].values())
    assert family.executor in slowest
    assert set(slowest) <= {family.executor, "staircase"}


def test_a_kind_that_cannot_work_is_refused_by_name(family, boot, prompts):
    model = boot(family)
    kinds = {kind_of(name): one for name, one in reversed(main_kinds().items())}
    for kind, reason in family.refused.items():
        if not reason:
            continue
        with pytest.raises(kg.InputError, match=reason) as refusal:
            kg.sweep(model, prompts[1], kinds[kind], executor="reference", progress=False)
        if not reason.startswith("unknown"):
            assert family.hf_name in str(refusal.value)
            assert "other kinds are not affected" in str(refusal.value)
