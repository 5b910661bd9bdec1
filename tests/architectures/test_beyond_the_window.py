"""Prompts several times as long as the attention window, on every family with local layers."""

from dataclasses import replace

import pytest
import torch
from agree import EXECUTORS, assert_agree, bound, compare
from mixtures import BY_NAME
from scipy.spatial.distance import jensenshannon

import knockgrid as kg
from knockgrid.engine.executors.free_run import FreeRun

WINDOW = {"sliding_window": 4}
SOME = {**WINDOW, "use_sliding_window": True, "max_window_layers": 1}
# What makes layers local, in the families where `families.py` does not do so already
LOCAL = {
    **dict.fromkeys(("GPT-Neo", "Mistral", "Gemma 2", "Gemma 3", "Gemma 4", "VaultGemma"), {}),
    **dict.fromkeys(("Gemma 4 (shared keys and values)", "OLMo 3", "Cohere 2", "EXAONE 4"), {}),
    **dict.fromkeys(("ModernBERT decoder", "GPT-OSS", "Llama 4"), {}),
    **dict.fromkeys(("Ministral 3", "Phi-3", "StarCoder 2", "Mixtral", "Phi-MoE", "AFMoE"), WINDOW),
    **dict.fromkeys(("Qwen 2, 2.5", "Qwen 3", "SmolLM3", "Qwen 2 MoE", "Qwen 3 MoE"), SOME),
}
families = pytest.mark.parametrize("name", LOCAL)


def local_family(name):
    sizes = {**BY_NAME[name].sizes, **LOCAL[name]}
    return replace(BY_NAME[name], name=f"{name}, local", sizes=sizes)


@pytest.fixture
def local(boot, name):
    """A family, some of whose layers see four tokens."""
    family = local_family(name)
    return family, boot(family)


@pytest.fixture(scope="module")
def long():
    """18 tokens, BOS included, with places before, beyond and inside the window of the last."""
    text = "the old king of the red tower by the river of oslo in norway is in the"
    spans = {"early": (0, 7), "subject": "river of oslo", "near": "is in"}
    return kg.Prompt(text, spans=spans, id="long")


def kinds(family):
    """Knockouts and patches of places outside and inside the window of the last token."""
    rows = {
        "knockout": [
            kg.knockout(src="near", window="from", name="knockout near"),
            kg.knockout(src=["subject", "near"], window="from", name="knockout both"),
        ],
        "edge_patch": [
            kg.edge_patch(src="near", source=kg.corrupted_run(by=NOISE), window=5, name="edges")
        ],
        "patch resid_post": [kg.patch("resid_post", "subject", name="patch")],
        "patch v": [kg.patch("v", "near", kg.zero(), name="patch v")],
    }
    return [one for kind, ones in rows.items() if kind not in family.refused for one in ones]


NOISE = kg.noise(3.0, pos=["subject", "near"])
OPTIONS = {"layers": [0, 1], "n_tokens": 4}


@families
@pytest.mark.parametrize("persistent", [False, True], ids=["prompt_only", "persistent"])
def test_every_kind_is_that_of_the_reference(persistent, local, long):
    family, model = local
    found = compare(
        model, [EXECUTORS[family.executor]], [long], kinds(family), persistent=persistent, **OPTIONS
    )
    assert_agree(found, within=max(family.within, 1e-8), above=1e-6)


@families
def test_free_run_with_a_cache_is_free_run_without_one(local, long):
    family, model = local
    rows = kinds(family)
    # Of later queries too, which see it in global layers alone
    early = kg.knockout("early_last", "early_first", window="from")
    rows += [] if "knockout" in family.refused else [early]
    (batch,) = bound(model, [long], rows, persistent=True, **OPTIONS)
    mine, theirs = (
        {o.cell.index: o for o in FreeRun(cached=cached)(model, batch.runs, batch.cells)}
        for cached in (True, False)
    )
    assert mine.keys() == theirs.keys()
    moved = dict.fromkeys((one.name for one in rows), 0.0)
    for index, one in mine.items():
        assert one.generated == theirs[index].generated
        torch.testing.assert_close(one.logits, theirs[index].logits, rtol=0, atol=1e-5)
        name = one.cell.intervention.name
        moved[name] = max(moved[name], float((one.logits - one.null).abs().max()))
    moved.pop(early.name, None)  # too far away for a model of local layers alone
    assert min(moved.values()) > 1e-3


def raw_logits(model, ids, layers, queries, keys):
    """Last logits of the Hugging Face model, without cache; the mask forbids some edges."""

    def forbid(module, args, kwargs):
        mask = kwargs["attention_mask"].clone()
        mask[:, :, [[q] for q in queries(ids.shape[1])], keys] = torch.finfo(mask.dtype).min
        return args, {**kwargs, "attention_mask": mask}

    handles = [
        model.model.layers[i].self_attn.register_forward_pre_hook(forbid, with_kwargs=True)
        for i in layers
    ]
    try:
        with torch.no_grad():
            return model(ids, use_cache=False).logits[0, -1]
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("mode", ["prompt_only", "persistent", "free_run"])
@pytest.mark.parametrize("name", ["Gemma 3", "Mistral", "Qwen 3"])
def test_knockouts_are_those_of_raw_hooks_on_a_recomputed_text(name, mode, local, long):
    _, bridge = local
    model, tokenizer = local_family(name).build(), bridge.tokenizer
    prompt = torch.tensor([tokenizer(long.text)["input_ids"]])
    n, every = prompt.shape[1], range(bridge.cfg.n_layers)
    src = list(kg.token_positions(long, ["subject", "near"], bridge, True))
    clean, edited, ids, own = [], [], prompt, prompt
    for _ in range(4):

        def queries(length):
            return [n - 1] if mode == "prompt_only" else range(n - 1, length)

        clean.append(raw_logits(model, ids, [], queries, src))
        start = own if mode == "free_run" else ids
        edited.append(raw_logits(model, start, every, queries, src))
        ids, own = (
            torch.cat([before, logits[-1].argmax()[None, None]], dim=1)
            for before, logits in ((ids, clean), (own, edited))
        )
    expected = [
        float(jensenshannon(*rows) ** 2) for rows in zip(*map(shares, (clean, edited)), strict=True)
    ]
    row = kg.knockout(src=["subject", "near"], window="from")
    options = {"layers": [0], "n_tokens": 4, "prepend_bos": True, "progress": False}
    table = kg.sweep(bridge, long, row, mode=mode, **options)
    assert table["js"].tolist() == pytest.approx(expected, abs=1e-7)
    assert expected[0] > 1e-3
    assert max(expected[1:]) > 1e-4


def shares(rows):
    return [row.softmax(-1).numpy() for row in rows]
