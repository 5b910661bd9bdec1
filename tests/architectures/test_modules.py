"""Modules of a block: what they are, their statistics, and patches of each one's output."""

import dataclasses
import importlib

import pandas as pd
import pytest
import torch
from agree import EXECUTORS, assert_agree, compare
from families import bridge
from mixtures import BY_NAME as FAMILY
from scipy.stats import spearmanr
from torch.nn.functional import linear
from transformers.pytorch_utils import Conv1D
from words import WORDS, word_tokenizer

import knockgrid as kg
from knockgrid.evidence.module_statistics import PARTS, weight_of
from knockgrid.host.bridge import hook_name
from knockgrid.host.modules import modules_of
from knockgrid.passes.run import run_hooked
from knockgrid.sources.source import Source

ATTENTION = ["attn. q", "attn. k", "attn. v", "attn. o"]
DENSE, GATED = ["mlp. up", "mlp. down"], ["mlp. up", "mlp. down", "mlp. gate"]
HAS = {
    **dict.fromkeys(("GPT-2", "GPT-NeoX, Pythia"), ATTENTION + DENSE),
    **dict.fromkeys(("Falcon (rotary)", "Falcon (ALiBi)"), ATTENTION + DENSE),
    **dict.fromkeys(("Llama", "Phi-3", "Gemma 2"), ATTENTION + GATED),
    "Mixtral": [*ATTENTION, "mlp. down"],
}
some = pytest.mark.parametrize("family", [FAMILY[name] for name in HAS], ids=list(HAS))


@pytest.fixture
def llama(boot):
    return boot(FAMILY["Llama"])


def statistics(model, prompts, **options):
    return kg.evidence.module_statistics(model, prompts, **options)


@some
def test_every_block_has_these_modules(family, boot):
    assert list(modules_of(boot(family))) == HAS[family.name]


def projected(model, module, layer):
    """What a module's projection was given and put out, and the projection, by its output's hook.

    The hooks of `attn. o` and `mlp. down` may sit behind a norm, so theirs are named here.
    """
    end = {"attn. o": "attn.o.hook_out", "mlp. down": "mlp.out.hook_out"}.get(module)
    out = f"blocks.{layer}.{end}" if end else hook_name(model, modules_of(model)[module], layer)
    part, seen = out.removesuffix(".hook_out"), {}
    hooks = [
        (f"{part}.{which}", lambda act, hook, which=which: seen.__setitem__(which, act))
        for which in ("hook_in", "hook_out")
    ]
    with torch.no_grad():
        run_hooked(model, torch.tensor([[1, 5, 9, 30, 7]]), hooks)
    given, made = (seen[which].reshape(1, 5, -1) for which in ("hook_in", "hook_out"))
    return given, made, model.get_submodule(part)


@some
def test_split_weights_reproduce_what_the_module_puts_out(family, boot):
    model = boot(family)
    for module in HAS[family.name]:
        if (family.name, module) == ("Mixtral", "mlp. down"):
            continue
        for layer in range(model.cfg.n_layers):
            given, out, part = projected(model, module, layer)
            weight = weight_of(model, module, layer)
            weight = weight.T if isinstance(part.original_component, Conv1D) else weight
            made = linear(given, weight, part.bias)
            assert out.abs().max() > 1e-3
            torch.testing.assert_close(made, out, rtol=0, atol=1e-10)


def test_joint_projections_are_split_where_the_model_splits_them(boot, prompts):
    """The squared norms of the parts add up to that of the joint matrix of the plain model."""
    for name, joint, modules in (
        ("GPT-2", "transformer.h.1.attn.c_attn", ATTENTION[:3]),
        ("GPT-NeoX, Pythia", "gpt_neox.layers.1.attention.query_key_value", ATTENTION[:3]),
        ("Falcon (rotary)", "transformer.h.1.self_attention.query_key_value", ATTENTION[:3]),
        ("Phi-3", "model.layers.1.self_attn.qkv_proj", ATTENTION[:3]),
        ("Phi-3", "model.layers.1.mlp.gate_up_proj", ["mlp. up", "mlp. gate"]),
    ):
        table = statistics(
            boot(FAMILY[name]), prompts, layers=[1], modules=modules, statistics="weight_norm"
        )
        whole = FAMILY[name].build().get_submodule(joint).weight.square().sum().item()
        squares = table.weight_norm[table["prompt"] == "rome"] ** 2
        assert len(squares) == len(modules)
        assert squares.sum() == pytest.approx(whole, rel=1e-12)


def test_a_mixture_has_no_single_matrix_to_weigh_but_all_other_numbers(boot, prompts):
    table = statistics(boot(FAMILY["Mixtral"]), prompts)
    experts = table["module"] == "mlp. down"
    assert table.weight_norm[experts].isna().all()
    assert table.status[experts].str.contains("no single weight matrix").all()
    assert not table.status.str.startswith("NA").any()
    assert (table.status[~experts] == "ok").all()
    assert (kg.grid(table, "grad_norm", "layer", "module") > 0).all(axis=None)
    weights = kg.grid(table, "weight_norm", "layer", "module")
    assert weights.columns[weights.isna().any()].tolist() == ["mlp. down"]


BLOCK, LAYER = "transformer.h.{}", "model.layers.{}"
SITES = {  # of plain models, with the part of the output that is the module's
    "GPT-2": {
        "attn. q": (f"{BLOCK}.attn.c_attn", slice(0, 32)),
        "attn. k": (f"{BLOCK}.attn.c_attn", slice(32, 64)),
        "attn. v": (f"{BLOCK}.attn.c_attn", slice(64, 96)),
        "attn. o": (f"{BLOCK}.attn.c_proj", slice(0, 32)),
        "mlp. up": (f"{BLOCK}.mlp.c_fc", slice(0, 128)),
        "mlp. down": (f"{BLOCK}.mlp.c_proj", slice(0, 32)),
    },
    "Llama": {
        **{f"attn. {x}": (f"{LAYER}.self_attn.{x}_proj", slice(0, 32)) for x in "qo"},
        **{f"attn. {x}": (f"{LAYER}.self_attn.{x}_proj", slice(0, 16)) for x in "kv"},
        **{f"mlp. {x}": (f"{LAYER}.mlp.{x}_proj", slice(0, 48)) for x in ("up", "gate")},
        "mlp. down": (f"{LAYER}.mlp.down_proj", slice(0, 32)),
    },
}
# Step of a finite difference, and what to expect of it: the norms and softmaxes of Llama and most
# others are float32 inside, whatever the dtype of the model.
ROUNDED = (3e-3, 1e-3)
STEP = {"GPT-2": (1e-5, 1e-7), "GPT-NeoX, Pythia": (1e-3, 1e-5), "Falcon (rotary)": (1e-3, 1e-5)}


@pytest.fixture(scope="module")
def ids():
    """The first prompt, as `WORDS` counts."""
    text = "the tower of rome is located in the"
    return torch.tensor([[1, *(4 + WORDS.index(word) for word in text.split())]])


def slope(plain, ids, name, part, pos, h):
    """By coordinate of one output at one token, d log p(clean argmax) of the plain model."""
    n = part.stop - part.start
    steps = h * torch.cat([torch.eye(n), -torch.eye(n)]).double()

    def add(_, args, output):
        out = output.clone()
        out[:, pos, part] += steps
        return out

    target = plain(ids).logits[0, -1].argmax()
    handle = plain.get_submodule(name).register_forward_hook(add)
    logits = plain(ids.expand(2 * n, -1)).logits[:, -1]
    handle.remove()
    up, down = logits.log_softmax(-1)[:, target].chunk(2)
    return (up - down) / (2 * h)


@pytest.mark.parametrize("family", SITES)
def test_gradients_are_finite_differences_of_the_plain_model(family, boot, prompts, ids):
    plain, (h, within) = FAMILY[family].build().requires_grad_(False), STEP.get(family, ROUNDED)
    model, pos = boot(FAMILY[family]), 4  # <s> the tower of rome
    table = statistics(model, prompts, pos="subject_last", statistics="grad_norm")
    found = table[table["prompt"] == "rome"].set_index(["module", "layer"]).grad_norm
    for module, (name, part) in SITES[family].items():
        for layer in range(3):
            expected = float(slope(plain, ids, name.format(layer), part, pos, h).norm())
            # in the last layer only keys and values of this token can still matter
            idle = layer == 2 and module not in ("attn. k", "attn. v")
            assert (expected > 1e-3) is not idle
            assert found[module, layer] == pytest.approx(expected, rel=within, abs=1e-12)


class Step(Source):
    """The clean value, and a small step from it."""

    label = "step"

    def __init__(self, size):
        object.__setattr__(self, "size", size)

    def value(self, where):
        drawn = torch.randn(where.base.shape, generator=torch.Generator().manual_seed(where.layer))
        return where.base + self.size * drawn.to(where.base)


@some
def test_attributions_are_the_slope_of_the_exact_change(family, boot, prompts):
    model, at = boot(family), ["subject", "last"]
    size, within = STEP.get(family.name, ROUNDED)
    table = statistics(model, prompts, pos=at, source=Step(size))
    once = {"executor": "reference", "progress": False}
    up, down = (
        kg.sweep(model, prompts, kg.per_module(model, at, Step(sign * size)), **once)
        for sign in (1, -1)
    )
    assert list(up.intervention) == list(table.intervention)
    exact = (up.logp_clean - down.logp_clean) / 2
    assert exact.abs().median() > 0.01 * size
    assert (table.attribution - exact).abs().max() <= within * exact.abs().max()
    assert (table.attribution_size == table.attribution.abs()).all()


def test_norms_and_shifts_are_those_of_the_plain_model(llama, prompts, ids):
    kept = {}
    plain = FAMILY["Llama"].build().requires_grad_(False)
    for module, (name, _) in SITES["Llama"].items():
        part = plain.get_submodule(name.format(1))
        part.register_forward_hook(lambda _, __, out, m=module: kept.setdefault(m, []).append(out))
    plain(ids)
    plain(ids + torch.eye(9, dtype=int)[4])  # after "rome", "lima" in the list of words
    source = kg.corrupted_run(by=kg.swap())
    table = statistics(llama, prompts, pos="subject", layers=[1], source=source)
    table = table[table["prompt"] == "rome"].set_index("module")
    for module, (clean, other) in kept.items():
        a, b = clean[0, 2:5], other[0, 2:5]
        shift = float((b - a).norm() / a.norm())
        assert shift > 1e-3
        assert table.act_norm[module] == pytest.approx(float(a.norm(dim=1).mean()), rel=1e-6)
        assert table.act_shift[module] == pytest.approx(shift, rel=1e-6)


@some
def test_a_prompt_that_is_its_own_donor_shifts_nothing(family, boot, prompts):
    itself = kg.donor({one.id: one.replace(id=f"{one.id} again") for one in prompts})
    quiet = statistics(boot(family), prompts, source=itself)
    assert (quiet.act_shift == 0).all()
    assert (quiet.attribution == 0).all()
    loud = statistics(boot(family), prompts)
    assert (kg.grid(loud, "act_shift", "layer", "module").iloc[1:] > 1e-3).all(axis=None)


def test_a_prompt_without_a_source_keeps_what_needs_none(llama, prompts):
    table = statistics(llama, prompts, source=kg.donor({"rome": prompts[0].swap}))
    oslo = table[table["prompt"] == "oslo"]
    assert oslo[["act_shift", "attribution", "attribution_size"]].isna().all(axis=None)
    assert oslo[["act_norm", "grad_norm", "weight_norm"]].notna().all(axis=None)
    assert oslo.status.str.startswith("no source: donor() has no prompt").all()
    assert (table.status[table["prompt"] == "rome"] == "ok").all()


def test_rows_are_those_of_a_sweep_and_layers_and_modules_keep_their_order(llama, prompts):
    modules = ["mlp. down", "attn. q"]
    prompts = [prompts[0].replace(text=f"{prompts[0].text} old city", id="long"), *prompts]
    table = statistics(llama, prompts, modules=modules, layers=[2, 0], pos="subject")
    rows = kg.per_module(llama, "subject", modules=modules)
    swept = kg.sweep(llama, prompts, rows, layers=[2, 0], progress=False)
    same = ["prompt", "group", "intervention", "layer", "layers", "module", "token", "token_text"]
    pd.testing.assert_frame_equal(table[same], swept[same])
    wide = kg.grid(table, "act_norm", "layer", "module")
    assert wide.index.tolist() == [2, 0]
    assert wide.columns.tolist() == modules
    metadata = table.attrs["knockgrid"]
    assert metadata["module_order"] == modules
    assert metadata["source"] == "corrupted_run(noise(3.0))"
    assert "nats" in metadata["statistics"]["attribution"]
    assert "weight_change" not in table


def test_batches_change_nothing(llama, prompts):
    together = statistics(llama, prompts)
    for one in prompts:
        alone = statistics(llama, one)
        part = together[together["prompt"] == one.id].reset_index(drop=True)
        for name in ("act_norm", "grad_norm", "weight_norm"):
            assert part[name].to_numpy() == pytest.approx(alone[name].to_numpy(), rel=1e-9)


def test_only_what_is_asked_for_is_computed(llama, prompts, monkeypatch):
    # the room's name `module_statistics` is the function: the file is asked for by its path
    file = importlib.import_module("knockgrid.evidence.module_statistics")
    monkeypatch.setattr(file, "gradients", None)
    bare = [one.replace(spans={}, swap=None) for one in prompts]  # no subject to corrupt
    table = statistics(llama, bare, statistics=["weight_norm", "act_norm"])
    assert table.columns[-2:].tolist() == ["act_norm", "weight_norm"]
    assert table.attrs["knockgrid"]["source"] is None


def test_a_second_checkpoint(boot, prompts):
    family = dataclasses.replace(FAMILY["Phi-3"], name="Phi-3, tuned")
    tuned = family.build()
    with torch.no_grad():
        weight = tuned.get_submodule("model.layers.1.mlp.gate_up_proj").weight
        gate, up = weight.chunk(2)  # in the order in which Phi-3 keeps them
        up *= 1.25
    object.__setattr__(family, "build", lambda: tuned)
    other = bridge(family, word_tokenizer())
    base, only = boot(FAMILY["Phi-3"]), ["weight_change"]
    table = statistics(base, prompts, compare_to=other, statistics=only)
    wide = kg.grid(table, "weight_change", "layer", "module")
    assert wide.loc[1, "mlp. up"] == pytest.approx(0.25)
    wide.loc[1, "mlp. up"] = 0
    assert (wide == 0).all(axis=None)
    with pytest.raises(kg.InputError, match="LlamaForCausalLM with 3 layers.*two checkpoints"):
        statistics(other, prompts, compare_to=boot(FAMILY["Llama"]))
    sizes = {**family.sizes, "num_key_value_heads": 1}
    few = boot(dataclasses.replace(FAMILY["Phi-3"], name="Phi-3, one key", sizes=sizes))
    with pytest.raises(kg.InputError, match=r"attn\. k of shape .*two checkpoints"):
        statistics(other, prompts, compare_to=few)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"modules": ["mlp. upp"]}, r"unknown module of .*'mlp\. upp'.*attn\. q, attn\. k"),
        ({"statistics": "act_nrm"}, "did you mean 'act_norm'"),
        ({"statistics": ["weight_change"]}, "give compare_to="),
        ({"statistics": []}, "no statistics given"),
        ({"pos": "sbject"}, "unknown position"),
    ],
)
def test_bad_input_says_what_is_allowed(llama, prompts, boot, options, says):
    with pytest.raises(kg.InputError, match=says):
        statistics(llama, prompts, **options)
    with pytest.raises(kg.InputError, match=r"unknown module of GPT2LMHead.*'mlp\. gate'"):
        kg.per_module(boot(FAMILY["GPT-2"]), modules=["mlp. gate"])


def state(model):
    points = {p for p in model.hook_dict.values() if p.fwd_hooks or p.bwd_hooks}
    parameters = list(model.original_model.parameters())
    return points, [(p.requires_grad, p.grad) for p in parameters], torch.is_grad_enabled()


@pytest.mark.parametrize("frozen", [False, True])
def test_hooks_and_parameters_are_left_alone_also_after_an_error(frozen, llama, prompts):
    parameters = list(llama.original_model.parameters())
    asked = [p.requires_grad for p in parameters]

    def fail(part, args):
        if torch.is_grad_enabled():
            raise RuntimeError("planted")

    try:
        for p in parameters:
            p.requires_grad_(p is parameters[0] and not frozen)
        before = state(llama)
        statistics(llama, prompts)
        assert state(llama) == before
        handle = llama.blocks[2].mlp.register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="planted"):
            statistics(llama, prompts)
        handle.remove()
        assert state(llama) == before
        with torch.inference_mode():
            statistics(llama, prompts)
        assert state(llama) == before
    finally:
        for p, value in zip(parameters, asked, strict=True):
            p.requires_grad_(value)


def test_a_module_that_no_gradient_reaches_is_refused_by_name(llama, prompts):
    handle = llama.blocks[1].mlp.register_forward_hook(lambda part, args, out: out.detach())
    try:
        with pytest.raises(kg.InputError, match="no gradient reaches 'pre_linear' at layer 1"):
            statistics(llama, prompts, modules=["mlp. up"])
    finally:
        handle.remove()


def test_rank_agreement(llama, prompts):
    swept = kg.sweep(llama, prompts, kg.per_module(llama, "subject"), progress=False)
    table = statistics(llama, prompts, pos="subject")
    mine, exact = (
        kg.grid(*pair, "layer", "module").to_numpy().ravel()
        for pair in ((table, "attribution_size"), (swept, "js"))
    )
    expected = spearmanr(mine, exact).statistic
    assert kg.stats.rank_agreement(table, swept) == pytest.approx(expected)
    assert 0.3 < expected < 1
    shuffled = swept.sample(frac=1, random_state=0)
    shuffled.attrs = {}
    assert kg.stats.rank_agreement(table, shuffled) == pytest.approx(expected)
    few = table["module"].isin(["attn. q", "mlp. up"]) & (table.layer == 1)
    with pytest.raises(kg.InputError, match="share 2 .*at least 3"):
        kg.stats.rank_agreement(table[few], swept)
    with pytest.raises(kg.InputError, match="'act_norm' is 1 in all 21 cells"):
        kg.stats.rank_agreement(table.assign(act_norm=1.0), swept, "act_norm")


@some
def test_patches_of_every_module_agree_with_the_reference(family, boot, prompts):
    model = boot(family)
    at = ["subject", "last"]
    prompts = [*prompts, prompts[0].swap]  # as long and with its subject there: it shares a pass
    for source in (kg.corrupted_run(), kg.zero()):
        kinds = kg.per_module(model, at, source)
        assert [one.module for one in kinds] == HAS[family.name]
        found = compare(model, [EXECUTORS[family.executor]], prompts, kinds, n_tokens=2)
        assert_agree(found, within=1e-12, above=1e-6)


def test_the_outputs_patched_are_those_that_are_measured(llama):
    """A name that stood for another activation would agree with itself everywhere above."""
    for module, act_name in modules_of(llama).items():
        name = hook_name(llama, act_name, 0)
        part = name.removeprefix("blocks.0.").removesuffix(".hook_out")
        assert part in (PARTS[module], PARTS[module].split(".")[0])
