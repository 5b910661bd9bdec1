"""Layers of their own, pair rules, joints and donors of another layer, against raw PyTorch hooks.

The oracle is the Hugging Face model with the additive mask changed and outputs replaced by hooks;
which edges a rule cuts is written out here once more, pair by pair.
"""

import hashlib
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
import torch

import knockgrid as kg

TEXT = "The Eiffel Tower is located in the city of"
SPANS = {"subject": "Eiffel Tower", "verb": "is located", "place": "the city"}
WITHIN = 1e-6  # TransformerLens' softmax is float32 inside
N_LAYERS = 4


@pytest.fixture(scope="module")
def raw(tiny_llama, plain_of):
    return plain_of(tiny_llama)


@pytest.fixture(scope="module")
def prompt():
    return kg.Prompt(TEXT, spans=SPANS, id="tower")


@pytest.fixture(scope="module")
def at(prompt, tiny_llama):
    """Positions by name, and the token ids."""
    found = {name: kg.token_positions(prompt, name, tiny_llama) for name in (*SPANS, "last", "all")}
    found["ids"] = [1, *tiny_llama.tokenizer(TEXT, add_special_tokens=False)["input_ids"]]
    assert len(found["all"]) == len(found["ids"])
    return found


@contextmanager
def cutting(raw, layers, pairs):
    """In some layers, `pairs(layer)` of (query, key) are forbidden by the additive mask."""

    def forbid(layer):
        def hook(module, args, kwargs):
            mask = kwargs["attention_mask"].clone()
            for query, key in pairs(layer):
                mask[0, :, query, key] = torch.finfo(mask.dtype).min
            return args, {**kwargs, "attention_mask": mask}

        return hook

    blocks = raw.model.layers
    handles = [
        blocks[i].self_attn.register_forward_pre_hook(forbid(i), with_kwargs=True) for i in layers
    ]
    yield
    for handle in handles:
        handle.remove()


@contextmanager
def putting(module, positions, value):
    """The output of a module at some positions is replaced."""

    def put(module, args, output):
        hidden = (output if torch.is_tensor(output) else output[0]).clone()
        hidden[0, list(positions)] = value
        return hidden if torch.is_tensor(output) else (hidden, *output[1:])

    handle = module.register_forward_hook(put)
    yield
    handle.remove()


def logits(raw, ids, *hooks):
    with ExitStack() as stack, torch.no_grad():
        for hook in hooks:
            stack.enter_context(hook)
        return raw(torch.tensor([ids]), use_cache=False).logits[0, -1]


def states(raw, ids, layer):
    """What a block puts out."""
    kept = []
    handle = raw.model.layers[layer].register_forward_hook(
        lambda module, args, output: kept.append(output if torch.is_tensor(output) else output[0])
    )
    logits(raw, ids)
    handle.remove()
    return kept[0][0]


def product(dest, src, rule=lambda query, key: True):
    return [(q, k) for q in dest for k in src if k <= q and rule(q, k)]


@pytest.fixture(scope="module")
def agree(tiny_llama, raw, prompt, at, scipy_js):
    """Holds rows on every executor against logits by row and layer; returns the effects."""

    def check(rows, expected, **options):
        clean = logits(raw, at["ids"])
        truth = [scipy_js(clean, one) for one in expected]
        for executor in ("reference", "staircase", "rectangle"):
            options |= {"executor": executor, "metrics": ["js"], "progress": False}
            table = kg.sweep(tiny_llama, prompt, rows, **options)
            assert (table.status == "ok").all()
            np.testing.assert_allclose(table.js, truth, rtol=0, atol=WITHIN, err_msg=executor)
        return truth

    return check


@pytest.mark.parametrize(
    ("layers", "inside"),
    [
        ("all", [0, 1, 2, 3]),
        ([1, 2], [1, 2]),
        (-1, [3]),
        (kg.all_but([0, 3]), [1, 2]),
        (kg.all_but(range(1, 3)), [0, 3]),
    ],
    ids=str,
)
def test_layers_of_its_own_are_one_cell_whatever_the_sweep_has(agree, raw, at, layers, inside):
    row = kg.knockout("last", "subject", layers=layers)
    expected = logits(
        raw, at["ids"], cutting(raw, inside, lambda _: product(at["last"], at["subject"]))
    )
    for swept in ("all", [2]):
        (effect,) = agree([row], [expected], layers=swept)
        assert effect > 1e-4


def test_all_but_a_window_is_a_cell_for_every_layer(agree, raw, at):
    row = kg.knockout("last", "subject", window=kg.all_but(1))
    sets = [[i for i in range(N_LAYERS) if i != layer] for layer in range(N_LAYERS)]
    pairs = product(at["last"], at["subject"])
    expected = [logits(raw, at["ids"], cutting(raw, some, lambda _: pairs)) for some in sets]
    assert min(agree([row], expected)) > 1e-4


@pytest.mark.parametrize(
    ("rule", "cut"),
    [
        (kg.pairs.not_self(), lambda q, k, at: q != k),
        (kg.pairs.farther_than(3), lambda q, k, at: q - k > 3),
        (kg.pairs.within(2), lambda q, k, at: q - k <= 2 and k > 0),
        (
            kg.pairs.to_earlier_spans(),
            lambda q, k, at: any(
                q in at[late] and k in at[early]
                for early, late in (("subject", "verb"), ("subject", "place"), ("verb", "place"))
            ),
        ),
    ],
    ids=lambda one: getattr(one, "label", ""),
)
def test_pair_rules(agree, raw, at, rule, cut):
    row = kg.knockout(
        ["subject", "verb", "place", "last"], ["subject", "verb", "place"], pairs=rule, layers="all"
    )
    dest = [p for name in (*SPANS, "last") for p in at[name]]
    src = [p for name in SPANS for p in at[name]]
    pairs = product(dest, src, lambda q, k: cut(q, k, at))
    assert 0 < len(pairs) < len(product(dest, src))
    expected = logits(raw, at["ids"], cutting(raw, range(N_LAYERS), lambda _: pairs))
    assert agree([row], [expected])[0] > 1e-4


def test_a_random_share_is_drawn_for_every_layer_and_seed(agree, raw, at, tiny_llama, prompt):
    n, shares = len(at["ids"]), []

    def pairs(seed):
        def of(layer):
            key = repr(("pairs", seed, "tower", layer)).encode()
            start = int.from_bytes(hashlib.sha256(key).digest()[:7], "big")
            lot = torch.rand(n, n, generator=torch.Generator().manual_seed(start))
            found = product(at["all"], at["subject"], lambda q, k: bool(lot[q, k] < 0.58))
            shares.append(len(found) / len(product(at["all"], at["subject"])))
            return found

        return of

    effects = []
    for seed in (0, 1):
        rule = kg.pairs.random_share(0.58, seed)
        row = kg.knockout("all", "subject", pairs=rule, layers="all")
        expected = logits(raw, at["ids"], cutting(raw, range(N_LAYERS), pairs(seed)))
        effects += agree([row], [expected])
    assert effects[0] > 1e-4
    assert abs(effects[0] - effects[1]) > 1e-6
    assert 0.4 < np.mean(shares) < 0.75
    assert len(set(shares)) > 1


def test_a_joint_makes_all_its_edits_each_at_its_own_layers(agree, raw, at):
    row = kg.joint(
        [
            kg.knockout("verb", "subject", layers=kg.all_but([1])),
            kg.knockout("last", "verb", layers=[2, 3]),
            kg.knockout("last", "subject", window=1, heads=[0, 2]),
            kg.patch("mlp_out", "place", kg.zero(), window="from"),
        ],
        name="pathway",
    )
    expected = []
    for layer in range(N_LAYERS):
        hooks = [
            cutting(raw, [0, 2, 3], lambda _: product(at["verb"], at["subject"])),
            cutting(raw, [2, 3], lambda _: product(at["last"], at["verb"])),
            heads_cutting(raw, layer, [0, 2], product(at["last"], at["subject"])),
        ]
        mlps = [raw.model.layers[i].mlp for i in range(layer, N_LAYERS)]
        hooks += [putting(mlp, at["place"], 0.0) for mlp in mlps]
        expected.append(logits(raw, at["ids"], *hooks))
    assert min(agree([row], expected)) > 1e-4


@contextmanager
def heads_cutting(raw, layer, heads, pairs):
    """Some heads of a layer are kept from some edges."""

    def forbid(module, args, kwargs):
        mask = kwargs["attention_mask"]
        mask = mask.expand(1, raw.config.num_attention_heads, -1, -1).clone()
        for query, key in pairs:
            mask[0, heads, query, key] = torch.finfo(mask.dtype).min
        return args, {**kwargs, "attention_mask": mask}

    attention = raw.model.layers[layer].self_attn
    handle = attention.register_forward_pre_hook(forbid, with_kwargs=True)
    yield
    handle.remove()


def test_edge_patches_of_a_joint_have_a_row_each(tiny_llama, prompt):
    """Apart from rounding, both at once are one edge patch of both keys where queries differ."""
    zero = kg.patch("mlp_out", "last", kg.zero(), layers=[3])
    to_last, to_verb = kg.edge_patch("last", "subject"), kg.edge_patch("verb", "subject")
    rows = [
        kg.joint([to_last, to_verb, zero], name="both"),
        kg.joint([to_verb, zero, to_last], name="in another order"),
        kg.joint([kg.edge_patch(["verb", "last"], "subject"), zero], name="as one"),
    ]
    for executor in ("reference", "staircase", "rectangle"):
        table = kg.sweep(tiny_llama, prompt, rows, executor=executor, progress=False)
        found = kg.grid(table).to_numpy()
        assert found.min() > 1e-4
        np.testing.assert_allclose(found[1], found[0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(found[2], found[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("pos", [None, "verb_last"])
def test_a_donor_of_another_layer(agree, raw, at, tiny_llama, pos):
    other = kg.Prompt(
        "The Louvre is located in Paris", spans={"subject": "Louvre", "verb": "is located"}
    )
    ids = [1, *tiny_llama.tokenizer(other.text, add_special_tokens=False)["input_ids"]]
    (of,) = kg.token_positions(other, pos or "subject_last", tiny_llama)
    rows, expected = [], []
    for source in (0, 3):
        given = kg.donor(other, layer=source, pos=pos)
        rows.append(kg.patch("resid_post", "subject_last", given))
        value = states(raw, ids, source)[of]
        for layer in range(N_LAYERS):
            hook = putting(raw.model.layers[layer], at["subject"][-1:], value)
            expected.append(logits(raw, at["ids"], hook))
    effects = np.array(agree(rows, expected)).reshape(2, N_LAYERS)
    assert effects[:, :-1].min() > 1e-4
    assert abs(effects[0] - effects[1])[:-1].min() > 1e-6


def test_back_patching_reads_the_prompt_itself(agree, raw, at, prompt):
    """A state of a late layer is put in early, in the same prompt."""
    rows = kg.edits.per_source_layer(
        kg.patch("resid_post", "verb_last", kg.donor(prompt)), N_LAYERS
    )
    assert [one.source.layer for one in rows] == [0, 1, 2, 3]
    expected = []
    for source in range(N_LAYERS):
        value = states(raw, at["ids"], source)[at["verb"][-1]]
        for layer in range(N_LAYERS):
            hook = putting(raw.model.layers[layer], at["verb"][-1:], value)
            expected.append(logits(raw, at["ids"], hook))
    effects = np.array(agree(rows, expected)).reshape(N_LAYERS, N_LAYERS)
    assert abs(np.diag(effects)).max() < 1e-9
    assert effects[3, 0] > 1e-4
