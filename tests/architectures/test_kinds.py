"""The full cross product on a few families: sources, windows, modes, batches, each kind alone."""

import pytest
import torch
from agree import assert_agree, bound, compare, effects, fast, null_and_clean, seeded
from families import DENSE, Family
from kinds import main_kinds
from mixtures import FAMILIES

import knockgrid as kg
from knockgrid.engine.executors.staircase import Staircase

NAMES = ("GPT-2", "GPT-NeoX, Pythia", "BLOOM", "Llama", "Mistral", "Gemma 2")
FEW = [family for family in DENSE if family.name in NAMES]
WITHIN = 1e-12
OTHER_LENGTH = 1e-8  # TransformerLens' softmax is float32 inside
few = pytest.mark.parametrize("family", FEW, ids=lambda family: family.name)


def sources():
    """Every source, as a patch of one place."""
    longer = kg.Prompt(
        "near the old blue tower of chad people speak the",
        spans={"subject": "tower of chad"},
        id="chad",
    )
    at = "subject_last"
    return [
        kg.patch("resid_post", "subject", kg.corrupted_run(by=kg.swap()), name="swap"),
        kg.patch("resid_pre", "subject", kg.zero(), name="zero"),
        kg.patch("mlp_out", "subject", kg.mean_activation(), name="mean"),
        kg.patch("attn_out", "last", kg.noise(1.0), name="added noise"),
        kg.patch("resid_post", at, kg.fixed(seeded(32)), name="fixed"),
        kg.patch("resid_post", at, kg.fixed(seeded(4, 32)), name="fixed per layer"),
        kg.patch("resid_post", at, kg.donor(longer), name="donor"),
        kg.edge_patch("last", at, kg.donor(longer), 3, name="edges of a donor"),
        kg.edge_patch(source=kg.corrupted_run(by=kg.swap()), name="edges of a swap"),
    ]


def windows():
    """Sets of layers and places, among them a patch whose window reaches above its entry."""
    return [
        kg.knockout(window=2, name="window 2"),
        kg.knockout(window="all_but", name="all but"),
        kg.knockout(window="from", name="from"),
        kg.knockout(window="up_to", name="up to"),
        kg.knockout("last", "rest", window="only", name="from the rest"),
        kg.knockout("last", "last", window=1, name="last to last"),
        kg.knockout("subject_last", "subject_first", window=1, name="inside the subject"),
        kg.knockout(["subject_last", "last"], "subject_first", window=3, name="two queries"),
        kg.patch("resid_post", "subject", kg.zero(), 3, name="patch, window 3"),
        kg.patch("mlp_out", "last", window="up_to", name="patch, up to"),
        kg.patch("v", "subject", window="from", heads=[1], name="one head of v, from"),
        kg.patch("resid_post", "subject", alpha=0.5, name="half way"),
        kg.edge_patch("last", "subject", window="all_but", alpha=0.5, name="edges, half way"),
        kg.edge_patch(["subject_last", "last"], "subject_first", window=2, name="two edges"),
    ]


@few
def test_sources(family, boot, prompts):
    kinds = sources()
    found = compare(boot(family), fast(family), prompts, kinds)
    assert_agree(found, OTHER_LENGTH if family.executor == "rectangle" else WITHIN, above=1e-6)


@few
def test_windows_and_places(family, boot, prompts):
    found = compare(boot(family), fast(family), prompts[1:], windows())
    assert_agree(found, WITHIN, above=1e-6)


@few
@pytest.mark.parametrize("persistent", [False, True], ids=["prompt_only", "persistent"])
def test_several_measured_tokens(family, persistent, boot, prompts):
    options = {"n_tokens": 3, "persistent": persistent, "layers": [0, 2]}
    kinds = [
        kg.patch("resid_post", "subject", name="patch"),
        kg.knockout("last", ["subject_last", "rest"], window=1, name="knockout"),
        kg.edge_patch("last", ["subject_last", "rest"], window=3, name="edge_patch"),
    ]
    found = compare(boot(family), fast(family), prompts[1:], kinds, **options)
    assert_agree(found, WITHIN, above=1e-6)


def test_persistent_edits_bind_later_queries_and_prompt_only_ones_do_not(boot, prompts):
    kinds = [kg.knockout(window=1), kg.edge_patch(window=1)]
    model, by_mode = boot(FEW[3]), []
    assert FEW[3].name == "Llama"
    for persistent in (False, True):
        (batch,) = bound(model, prompts, kinds, n_tokens=3, persistent=persistent)
        by_mode.append(effects(model, batch, batch.cells, kg.executors.staircase))
    for key, values in by_mode[0].items():
        other = by_mode[1][key]
        assert values[0] == pytest.approx(float(other[0]), abs=WITHIN)
        assert (values[1:] - other[1:]).abs().max() > 1e-6


@few
def test_samples_and_the_corrupted_run_as_base(family, boot, prompts):
    kinds = [
        kg.patch("resid_post", "subject", name="patch"),
        kg.edge_patch(window=3, name="edges"),
        kg.patch("z", "last", kg.corrupted_run(by=kg.swap()), name="swap"),
    ]
    model = boot(family)
    for direction in ("noising", "denoising"):
        found = list(
            compare(model, fast(family), prompts, kinds, samples=2, direction=direction, layers=[1])
        )
        assert_agree(iter(found), WITHIN, above=1e-6)
        assert {one.cells for one in found if one.name == "patch"} == {4}
    (batch,) = bound(model, prompts, kinds[:1], samples=2, layers=[1])
    for executor in (*fast(family), kg.executors.reference):
        seen = effects(model, batch, batch.cells, executor)
        assert all(seen[i, 0] != pytest.approx(float(seen[i, 1])) for i, _ in seen)


@few
def test_a_subject_at_position_0_without_bos(family, boot):
    prompt = kg.Prompt("rome in the old king of", spans={"subject": "rome in"}, id="first")
    kinds = [
        kg.patch("resid_pre", "subject", name="pre"),
        kg.patch("v", "subject", name="v"),
        kg.knockout("last", ["subject", 3], window=3, name="knockout"),
        kg.edge_patch("last", ["subject", 3], kg.corrupted_run(), 3, name="edge"),
        kg.knockout("subject_last", "subject_first", window=1, name="in the subject"),
    ]
    found = compare(boot(family), fast(family), [prompt], kinds, bos=False)
    assert_agree(found, WITHIN, above=1e-6)


@few
@pytest.mark.parametrize("max_rows", [3, 7])
def test_a_memory_budget_changes_nothing(family, max_rows, boot, prompts):
    grow = family.executor == "staircase"
    small = Staircase(name="small", max_rows=max_rows, grow=grow)
    kinds = [
        kg.patch("resid_post", "subject", name="patch"),
        kg.knockout(window=2, name="knockout"),
        kg.edge_patch(window=2, name="edge"),
    ]
    found = compare(boot(family), [small], prompts, kinds, n_tokens=2)
    assert_agree(found, WITHIN, above=1e-6)


@few
def test_all_kinds_in_one_pass_give_what_each_gives_alone(family, boot, prompts):
    model = boot(family)
    (batch,) = bound(model, prompts, list(main_kinds().values()), n_tokens=2)
    executor = fast(family)[-1]
    together = effects(model, batch, batch.cells, executor)
    assert set(together) == {(cell.index, 0) for cell in batch.cells}
    for name in main_kinds():
        cells = [cell for cell in batch.cells if cell.intervention.name == name]
        alone = effects(model, batch, cells, executor)
        assert cells
        assert all((together[key] - alone[key]).abs().max() <= WITHIN for key in alone)


@few
def test_the_unedited_row_of_a_pass_is_the_clean_run(family, boot, prompts):
    model = boot(family)
    kinds = [kg.patch("resid_post", "subject"), kg.patch("z", "last"), kg.knockout(window=1)]
    (batch,) = bound(model, prompts, kinds, n_tokens=3)
    for executor in fast(family):
        assert null_and_clean(model, batch, executor) <= 1e-6  # float32 rotary tables inside


def single(family: Family) -> Family:
    """The same family in float32."""
    values = {name: getattr(family, name) for name in ("model", "sizes", "executor", "refused")}
    return Family(f"{family.name}, float32", **values, dtype=torch.float32)


HALVES = [single(one) for one in FAMILIES if one.name in ("Llama", "Gemma 2", "BLOOM", "Mixtral")]


@pytest.mark.parametrize("family", HALVES, ids=lambda family: family.name)
def test_float32(family, boot, prompts):
    found = compare(boot(family), fast(family), prompts, list(main_kinds().values()), layers=[0, 1])
    assert_agree(found, within=5e-6, above=2e-5)
