"""What preflight refuses, what it falls back to, and what it lets through."""

import warnings
from dataclasses import dataclass, replace
from importlib import import_module

import pytest
import torch
from agree import EXECUTORS, prepared, seeded
from families import DENSE
from mixtures import BY_NAME, FAMILIES

import knockgrid as kg
from knockgrid.engine.executors.staircase import Staircase
from knockgrid.engine.memory import Memory
from knockgrid.engine.preflight import _RECEIPTS, choose
from knockgrid.engine.slower import FallbackWarning


@pytest.fixture
def llama(boot):
    """A model without receipts, before and after."""
    model = boot(BY_NAME["Llama"])
    _RECEIPTS.pop(model, None)
    yield model
    _RECEIPTS.pop(model, None)


def chosen(model, prompts, kinds, executor="auto", **options):
    ready, settings = prepared(model, prompts, kinds, **options)
    return choose(model, ready, settings, executor, Memory())


def spoilt(monkeypatch, change):
    """Every staircase's logits, changed."""
    _staircase = import_module("knockgrid.engine.executors.staircase")
    right = _staircase.run_pass

    def wrong(model, runs, plan, grow):
        logits = right(model, runs, plan, grow).clone()
        change(logits, plan, grow)
        return logits

    monkeypatch.setattr(_staircase, "run_pass", wrong)


def no_ops_moved(logits, plan, grow):
    logits[len(plan.null_row) :, :, 0] += 0.3 * grow


def null_rows_moved(logits, plan, grow):
    logits += 0.3 * torch.arange(logits.shape[-1]) / logits.shape[-1]


def not_a_number(logits, plan, grow):
    logits[-1] = torch.nan


@pytest.mark.parametrize(
    ("change", "n", "says", "tried"),
    [
        (no_ops_moved, 1, r"rectangle executor \(staircase: a no-op", ["staircase", "rectangle"]),
        (null_rows_moved, 2, "unedited pass is .* away from the clean run", list(EXECUTORS)),
        (not_a_number, 1, "JS by nan", list(EXECUTORS)),
    ],
)
def test_an_executor_that_disagrees_is_replaced_with_a_warning_that_says_so(
    llama, prompts, monkeypatch, change, n, says, tried
):
    spoilt(monkeypatch, change)
    with pytest.warns(FallbackWarning, match=says):
        executor, receipt = chosen(
            llama, prompts[:n], [kg.patch("resid_post", "subject", kg.zero())]
        )
    assert [one["executor"] for one in receipt["tried"]] == tried
    assert executor is EXECUTORS[tried[-1]]


def test_prompts_that_cannot_share_a_pass_are_seen(boot, prompts):
    """Gemma 4 looks its tokens up at every layer, and a staircase is fed with one prompt."""
    model, kinds = boot(BY_NAME["Gemma 4"]), [kg.patch("resid_post", "subject")]
    assert chosen(model, prompts[:1], kinds)[0] == replace(kg.executors.staircase, lift=False)
    with pytest.warns(FallbackWarning, match="staircase: with two prompts in one pass it is"):
        executor, receipt = chosen(model, prompts, kinds)
    assert executor is kg.executors.rectangle
    assert receipt["prompts"] == ["rome", "oslo"]


def test_an_executor_asked_for_by_name_is_refused_with_its_reason(boot, prompts):
    model = boot(BY_NAME["BLOOM"])
    with pytest.raises(
        kg.InputError, match="'staircase' cannot be used on BloomForCausalLM.*Runtime"
    ):
        chosen(model, prompts, [kg.patch("resid_post", "subject")], "staircase")


def test_an_executor_of_the_users_own_is_held_to_the_same(llama, prompts):
    class Idle(Staircase):
        def __call__(self, model, runs, cells):
            for outcome in kg.executors.reference(model, runs, cells):
                object.__setattr__(outcome, "logits", outcome.null)
                yield outcome

    with pytest.raises(kg.InputError, match="'idle' cannot be used .* differs from the reference"):
        chosen(llama, prompts[:1], [kg.patch("resid_post", "subject")], Idle(name="idle"))


@dataclass(frozen=True)
class CleanOnly(Staircase):
    """Does nothing in a run that is not the clean one."""

    def __call__(self, model, runs, cells):
        for outcome in kg.executors.reference(model, runs, cells):
            if runs[outcome.cell.runs[outcome.sample]].noise is not None:
                object.__setattr__(outcome, "logits", outcome.null)
            yield outcome


def test_the_direction_of_the_sweep_is_tried(llama, prompts):
    """Denoising edits corrupted runs, which no other trial does."""
    kinds, executor = [kg.patch("resid_post", "subject")], CleanOnly(name="clean only")
    assert kg.sweep(llama, prompts, kinds, executor=executor, progress=False)["js"].max() > 0
    with pytest.raises(kg.InputError, match="'clean only' cannot be used .* differs"):
        kg.sweep(llama, prompts, kinds, executor=executor, direction="denoising", progress=False)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (kg.patch("resid_post", "last", kg.fixed({0: seeded(32)})), "no vector for layer 1"),
        (kg.patch("resid_post", "last", kg.fixed(seeded(5))), "has a vector of shape"),
        (kg.knockout("last", "all", window=1), "nothing to attend to"),
        (kg.patch("resid_post", "last", heads=[1]), "'resid_post' of LlamaForC.* has no heads"),
        (kg.patch("v", "subject", heads=[3]), "names head 3, .* has heads 0 to 1"),
    ],
)
def test_bad_input_is_bad_input_and_not_a_reason_to_fall_back(llama, prompts, kind, says):
    with pytest.raises(kg.InputError, match=says):
        chosen(llama, prompts, [kind])


def test_a_head_dimension_does_not_pass_for_positions(boot):
    """Four tokens and four heads: the shape alone does not tell them apart."""
    prompt = kg.Prompt("king of rome", spans={"subject": "king"}, id="four")
    with pytest.raises(kg.InputError, match=r"not \[batch, pos, ...\]"):
        chosen(boot(BY_NAME["DeepSeek V3"]), [prompt], [kg.patch("q", "subject")])


def test_an_empty_knockout_and_alpha_0_are_no_reason_to_refuse(llama, prompts):
    kinds = [kg.knockout(heads=[]), kg.patch("resid_post", "subject", alpha=0.0)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        executor, receipt = chosen(llama, prompts, kinds)
    assert executor is kg.executors.staircase
    assert receipt["unseen"] == ["knockout (some heads)"]


def test_both_ends_of_a_kind_are_tried(llama, prompts):
    """Where a pass begins decides what it takes from the cache."""
    kinds = [kg.patch("resid_post", at, name=str(at)) for at in ("last", 4, "subject")]
    _, receipt = chosen(llama, prompts, kinds)
    assert list(receipt["maximal_effects"]) == ["patch resid_post"]
    _, again = chosen(llama, prompts, kinds)
    assert again["tried"] is receipt["tried"]  # remembered


def test_a_receipt_does_not_outlive_the_model_it_was_made_for(llama, prompts):
    kinds = [kg.patch("resid_post", "subject")]
    _, first = chosen(llama, prompts, kinds)
    llama.original_model.config._attn_implementation = "changed"
    try:
        _, second = chosen(llama, prompts, kinds)
    finally:
        llama.original_model.config._attn_implementation = "eager"
    assert second["tried"] is not first["tried"]
    _, other = chosen(llama, prompts, [*kinds, kg.knockout(window=1)])
    assert set(other["maximal_effects"]) == {"patch resid_post", "knockout"}


def test_hooks_of_the_users_own_go_to_the_reference_and_those_of_the_bridge_do_not(boot, prompts):
    opt, kinds = boot(BY_NAME["OPT"]), [kg.patch("resid_post", "subject")]
    assert (
        chosen(opt, prompts, kinds)[0] is kg.executors.staircase
    )  # it wires permanent hooks of its own
    opt.add_hook("blocks.1.hook_resid_post", lambda act, hook: act * 1.1, is_permanent=True)
    try:
        with pytest.warns(FallbackWarning, match=r"hooks of your own \(at blocks.1"):
            executor, receipt = chosen(opt, prompts, kinds)
    finally:
        point = opt.hook_dict["blocks.1.hook_resid_post"]
        point.remove_hooks("fwd", including_permanent=True)
    assert executor is kg.executors.reference
    assert receipt["user_hooks"]
    assert chosen(opt, prompts, kinds)[0] is kg.executors.staircase


def test_an_edge_that_no_layer_can_see_is_na_with_a_reason_and_not_0(boot, prompts):
    kinds = [kg.knockout(window=5), kg.edge_patch(window=1), kg.patch("resid_post", "subject")]
    table = kg.sweep(boot(BY_NAME["Mistral"]), prompts[0], kinds, progress=False)
    for name in ("subject->last", "edge subject->last"):
        row = table[table["intervention"] == name]
        assert len(row) == 4
        assert row["js"].isna().all()
        assert row["status"].str.contains("lets 'last' see 'subject'").all()
    assert (table.loc[table["intervention"] == "resid_post@subject", "status"] == "ok").all()
    visible = kg.sweep(boot(BY_NAME["Mistral"]), prompts[1], kinds[0], progress=False)
    assert (visible["status"] == "ok").all()
    assert (visible["js"] > 1e-6).all()


def test_local_layers_are_na_and_global_ones_are_not(boot, prompts):
    for name in ("Gemma 2", "Gemma 3"):
        table = kg.sweep(boot(BY_NAME[name]), prompts[0], kg.knockout(window=1), progress=False)
        assert (table["status"] == "ok").tolist() == [False, True, False, True]
        assert (table["js"] > 1e-6).tolist() == [False, True, False, True]


def test_weights_in_place_of_scores_show_what_a_layer_can_see(boot, prompts):
    """GPT-Neo's bridge hands out attention weights; its odd layers are local."""
    table = kg.sweep(boot(BY_NAME["GPT-Neo"]), prompts[0], kg.edge_patch(window=1), progress=False)
    assert (table["status"] == "ok").tolist() == [True, False, True, False]


@pytest.mark.parametrize("name", ["Mamba", "Mamba 2", "RWKV"])
def test_a_model_without_attention_has_no_edges(name, boot, prompts):
    with pytest.warns(FallbackWarning, match="keeps no keys and values"):
        table = kg.sweep(boot(BY_NAME[name]), prompts[0], kg.knockout(), progress=False)
    assert table["status"].str.contains("has attention scores").all()


def test_layers_without_attention_are_left_out_of_a_window(boot, prompts):
    model = boot(BY_NAME["Qwen 3-Next"])  # layer 3 of 4 has attention
    kinds = [kg.knockout(window=1), kg.edge_patch(window=3)]
    with pytest.warns(FallbackWarning, match="reference executor .*linear attention"):
        table = kg.sweep(model, prompts, kinds, progress=False)
    for name, seeing in (("subject->last", [3]), ("edge subject->last", [2, 3])):
        rows = table[(table["intervention"] == name) & (table["prompt"] == "rome")]
        assert rows.loc[rows["status"] == "ok", "layer"].tolist() == seeing
        assert (rows.loc[rows["status"] == "ok", "js"] > 1e-6).all()


def test_every_family_has_a_name_of_its_own():
    assert len({family.name for family in FAMILIES}) == len(FAMILIES) >= 70
    assert [one.name for one in DENSE if one.executor == "reference"] == ["OpenAI GPT"]
