"""Whether an edited state is natural: against plain models, brute force and planted states."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.stats import entropy

import knockgrid as kg
from knockgrid.errors import InputError
from knockgrid.evidence import manifold
from knockgrid.evidence.natural import Natural

SUBJECTS = ("France", "Italy", "the Eiffel Tower", "Brazil", "Rome", "the Colosseum")


@pytest.fixture(scope="module")
def towns():
    """Six prompts, subjects of several lengths; the first two are swap partners."""
    made = [
        kg.Prompt(f"The city of {s} is in", spans={"subject": s}, id=s, relation="r")
        for s in SUBJECTS
    ]
    return [made[0].replace(swap=made[4]), *made[1:]]


@pytest.fixture(scope="module", params=["tiny_llama", "tiny_gpt2"])
def family(request, plain_of):
    """A bridge, and a plain Hugging Face model with its weights."""
    bridge = request.getfixturevalue(request.param)
    model = plain_of(bridge)
    blocks = model.model.layers if hasattr(model, "model") else model.transformer.h
    return bridge, model, blocks


def carry_out(model, blocks, ids, edit=None):
    """Block outputs `[layer, pos, d]` and attention `[layer, head, q, k]`, with one block edited.

    `edit` is (layer, positions, value).
    """
    kept, handles = {}, []
    for i, block in enumerate(blocks):

        def hook(_, __, out, i=i):
            state = out if torch.is_tensor(out) else out[0]
            if edit is not None and edit[0] == i:
                state = state.clone()
                state[0, list(edit[1])] = edit[2]
            kept[i] = state[0]
            return state if torch.is_tensor(out) else (state, *out[1:])

        handles.append(block.register_forward_hook(hook))
    attentions = model(ids, output_attentions=True).attentions
    for handle in handles:
        handle.remove()
    return torch.stack([kept[i] for i in range(len(blocks))]), torch.cat(attentions)


def brute_force(edited, natural, everything):
    """Norm ratio and percentile; `natural` and `everything` hold one array per prompt."""
    std = np.concatenate(everything).std(0)
    unit = np.maximum(std, 0.1 * np.sort(std)[(len(std) - 1) // 2])
    usual = []
    for i, mine in enumerate(natural):
        rest = np.concatenate([other for j, other in enumerate(natural) if j != i])
        usual += list(cdist(mine / unit, rest / unit).min(1))
    apart = cdist(edited / unit, np.concatenate(natural) / unit).min(1)
    below = [np.mean(np.array(usual) < one) for one in apart]
    norms = [np.linalg.norm(x, axis=1) for x in (edited, np.concatenate(natural))]
    return norms[0].mean() / norms[1].mean(), 100 * np.mean(below)


def attention_by_hand(attentions, layers):
    rows = np.stack([attentions[layer, :, -1].numpy() for layer in layers])
    return entropy(rows, axis=-1).mean(), rows[..., 0].mean()


def check(row, edited, i, everything, clean, after, layers):
    """A row against brute force: its states, and the last token's attention before and after."""
    others = everything[:i] + everything[i + 1 :]
    want = brute_force(edited.numpy(), others, everything)
    assert (row.norm_ratio, row.nn_percentile) == pytest.approx(want, rel=1e-6)
    assert row.n_natural == sum(map(len, others))
    for name, attentions in (("", after), ("_clean", clean)):
        seen = (row[f"attn_entropy{name}"], row[f"sink_mass{name}"])
        assert seen == pytest.approx(attention_by_hand(attentions, layers), rel=1e-5)
    assert row.status == "ok"


@pytest.fixture
def report(tiny_llama):
    """`kg.evidence.off_manifold` on the tiny Llama, silently."""

    def run(prompts, rows, model=tiny_llama, **options):
        return kg.evidence.off_manifold(model, prompts, rows, progress=False, **options)

    return run


def prepared(bridge, prompt):
    ids = torch.tensor([bridge.tokenizer(prompt.text)["input_ids"]])
    return ids, list(kg.token_positions(prompt, "subject", bridge))


@pytest.mark.parametrize("layer", [0, 1])
def test_patches_against_a_plain_model(family, towns, report, layer):
    bridge, model, blocks = family
    value = torch.randn(32, generator=torch.Generator().manual_seed(3)).double()
    rows = [
        kg.patch("resid_post", "subject", kg.zero(), name="half", alpha=0.5),
        kg.patch("resid_post", "subject", kg.zero(), name="clean", alpha=0.0),
        kg.patch("resid_post", "subject", kg.fixed({layer: value}), name="fixed"),
    ]
    table = report(towns, rows, model=bridge, layers=[layer])
    clean = {}
    for one in towns:
        ids, pos = prepared(bridge, one)
        clean[one.id] = (ids, pos, *carry_out(model, blocks, ids))
    everything = [states[layer, pos].numpy() for _, pos, states, _ in clean.values()]
    for name, to in (("half", lambda s: s / 2), ("clean", lambda s: s), ("fixed", lambda _: value)):
        got = table[table.intervention == name].set_index("prompt")
        for i, one in enumerate(towns):
            ids, pos, states, attentions = clean[one.id]
            edit = (layer, pos, to(states[layer, pos]))
            edited, after = carry_out(model, blocks, ids, edit)
            row, above = got.loc[one.id], range(layer + 1, len(blocks))
            check(row, edited[layer, pos], i, everything, attentions, after, above)
            if name != "half":  # what is normed next hardly tells a vector from its half
                before = (row.attn_entropy_clean, row.sink_mass_clean)
                assert ((row.attn_entropy, row.sink_mass) == before) is (name == "clean")


def test_a_knockout_against_a_plain_model(family, towns, report, tiny_llama):
    """Blocked from layer 1 on: the state at the last layer, and rows over layers 1 and above."""
    bridge, model, blocks = family
    row = kg.knockout("last", "bos", window="from", name="sink")
    table = report(towns, [row], model=bridge, layers=[0, 1]).set_index(["prompt", "layer"])
    assert table.loc[("Italy", 0)].sink_mass == 0 < table.loc[("Italy", 0)].sink_mass_clean
    ids, _ = prepared(bridge, towns[1])
    mask = torch.full((ids.shape[1],) * 2, -1e300, dtype=torch.float64).triu(1)[None, None]
    blocked = mask.clone()
    blocked[..., -1, 0] = -1e300
    handles = [
        (block.self_attn if hasattr(block, "self_attn") else block.attn).register_forward_pre_hook(
            lambda _, args, kwargs: (args, {**kwargs, "attention_mask": blocked}), with_kwargs=True
        )
        for block in list(blocks)[1:]
    ]
    edited, after = carry_out(model, blocks, ids)
    for handle in handles:
        handle.remove()
    everything = [
        carry_out(model, blocks, prepared(bridge, one)[0])[0][-1, -1:].numpy() for one in towns
    ]
    clean, row = carry_out(model, blocks, ids)[1], table.loc[("Italy", 1)]
    check(row, edited[-1, -1:], 1, everything, clean, after, range(1, len(blocks)))


def test_planted_states(towns, report):
    far = kg.fixed({layer: torch.full((32,), 1e3) for layer in range(4)})
    rows = [
        kg.patch("resid_post", "last", kg.zero(), name="clean", alpha=0.0),
        kg.patch("resid_post", "last", kg.zero(), name="zero"),
        kg.patch("resid_post", "last", far, name="far"),
    ]
    table = report(towns, rows, layers=[2, 3])
    ratio = kg.grid(table, "norm_ratio")
    assert ratio.loc["clean"].tolist() == pytest.approx([1, 1], rel=0.1)
    assert ratio.loc["zero"].tolist() == [0, 0]
    percentile = kg.grid(table, "nn_percentile")
    assert (percentile.loc["far"] == 100).all()
    assert percentile.loc["clean"].between(20, 80).all()
    last = table[table.layer == 3]
    assert (last.status == "no attention above layer 3").all()
    assert last[["attn_entropy", "sink_mass", "sink_mass_clean"]].isna().all().all()
    assert last.nn_percentile.notna().all()


def test_windows_end_at_their_highest_layer_and_heads_are_compared_alone(towns, report):
    z = {layer: torch.zeros(4, 8) for layer in range(4)}
    rows = [
        kg.patch("resid_post", "last", kg.zero(), window=3, name="window"),
        kg.patch("resid_post", "last", kg.zero(), name="one"),
        kg.patch("z", "last", kg.fixed(z), heads=[1], name="head"),
        kg.patch("z", "last", kg.fixed(z), heads=[1], alpha=0.0, name="same"),
    ]
    table = report(towns, rows, layers=[1], n_prompts=2).set_index(["prompt", "intervention"])
    for prompt in table.index.levels[0]:
        assert table.loc[(prompt, "window")].layers == "0,1,2"
        assert table.loc[(prompt, "window")].norm_ratio == 0
        assert table.loc[(prompt, "head")].norm_ratio == 0
        assert table.loc[(prompt, "same")].norm_ratio > 0
        window, one = (table.loc[(prompt, name)].sink_mass_clean for name in ("window", "one"))
        assert window != one
    direct = report(towns, rows[1:2], layers=[2], n_prompts=2)
    clean = direct.set_index("prompt").sink_mass_clean
    assert clean.to_dict() == table.xs("window", level="intervention").sink_mass_clean.to_dict()


def test_an_edge_patch_is_read_at_its_query(towns, report):
    rows = [kg.edge_patch(source=kg.corrupted_run()), kg.knockout(window=1, heads=[])]
    table = report(towns, rows, layers=[1]).set_index("intervention")
    edge, idle = (table.loc[row.name] for row in rows)
    assert (idle.sink_mass == idle.sink_mass_clean).all()
    assert (edge.sink_mass != edge.sink_mass_clean).all()
    assert (edge.norm_ratio.to_numpy() != idle.norm_ratio.to_numpy()).all()


def test_the_sample_is_keyed_by_id_and_all_prompts_are_the_reference(towns, report):
    row = kg.patch("resid_post", "last", kg.mean_activation())
    table = report(towns, row, layers=[1], n_prompts=3)
    said = table.attrs["knockgrid"]
    assert (len(said["sample"]), said["n_reference"]) == (3, 6)
    assert set(table.n_natural) == {5}
    assert table.prompt.tolist() == said["sample"]
    again = report(towns[::-1], row, layers=[1], n_prompts=3)
    assert again.prompt.tolist() == said["sample"][::-1]
    one, other = (t.set_index("prompt").sort_index().nn_percentile for t in (table, again))
    assert one.to_dict() == pytest.approx(other.to_dict())
    samples = {
        tuple(report(towns, row, layers=[1], n_prompts=3, seed=seed).attrs["knockgrid"]["sample"])
        for seed in range(5)
    }
    assert len(samples) > 1


def test_another_reference(towns, report):
    row = kg.patch("resid_post", "subject_last", kg.zero(), alpha=0.0)
    named = report(towns[:2], row, layers=[1], reference=towns[1:])
    assert named.n_natural.tolist() == [5, 4]
    few = report(towns[:2], row, layers=[1], reference=towns[:3])
    assert few.nn_percentile.isna().all()
    assert few.norm_ratio.isna().all()
    assert set(few.status) == {"natural states of 2 other prompts, fewer than 3"}
    assert few.sink_mass.notna().all()
    none = report(towns[:1], row, layers=[1], reference=[kg.Prompt("The city is")])
    assert none.status.tolist() == ["natural states of 0 other prompts, fewer than 3"]


def test_prompts_without_a_partner_are_named_and_edges_that_cannot_be_seen_are_na(
    towns, report, tmp_path
):
    rows = [
        kg.patch("resid_post", "subject", kg.corrupted_run(by=kg.swap()), name="swap"),
        kg.knockout("subject_last", "last", name="backward"),
    ]
    table = report(towns, rows, layers=[0, 1])
    assert len(table.attrs["knockgrid"]["dropped"]["swap"]) >= 5
    backward = table[table.intervention == "backward"]
    assert backward.status.str.startswith("NA: no layer of").all()
    assert backward.nn_percentile.isna().all()
    figure = kg.layer_heatmap(backward, metric="nn_percentile").figure
    assert figure is not None
    kg.runs.write_table(table, tmp_path / "manifold.parquet")
    kept = kg.runs.read_table(tmp_path / "manifold.parquet")
    assert kept.equals(table)


def test_a_swap_partner_is_no_neighbour_of_its_own_state(towns, report):
    swap = kg.patch("resid_post", "last", kg.corrupted_run(by=kg.swap()))
    pair = [towns[0], towns[4].replace(swap=towns[0])]
    table = report([*pair, *towns[1:4], towns[5]], swap, layers=[1], n_prompts=6)
    assert len(table) == 2
    assert set(table.n_natural) == {4}


def test_a_heatmap_names_the_statistic(towns, report):
    table = report(towns, kg.information_flow(), layers=[0, 1], n_prompts=2)
    ax = kg.layer_heatmap(table, metric="nn_percentile")
    words = [axis.get_ylabel() + axis.get_xlabel() for axis in ax.figure.axes]
    assert any("nearest-neighbour percentile" in word for word in words)


def test_a_bridge_without_pattern_says_so(towns, report, monkeypatch):
    rows = kg.patch("resid_post", "last", kg.zero())
    note = manifold.note
    monkeypatch.setattr(manifold, "note", lambda *_, **__: None)
    table = report(towns, rows, layers=[1], n_prompts=1)
    assert table.status.tolist() == ["the bridge gives no attention pattern"]
    assert table[["attn_entropy", "sink_mass"]].isna().all().all()
    assert table.nn_percentile.notna().all()
    flat, seen = torch.ones(1, 3, 3), {}
    note(seen, 0, 0, flat, hook=None)
    note(seen, 0, 1, flat[None], hook=None)
    assert list(seen) == [1]


def natural(states, texts, distance="standardised"):
    return Natural(torch.as_tensor(states, dtype=torch.float32), texts, distance)


@pytest.fixture
def cloud():
    """A function: 40 normal states, one dimension scaled, and the first one moved in another."""
    draw = np.random.default_rng(0)

    def made(n_dims, scaled, by, moved, to, distance="standardised"):
        states = draw.normal(size=(40, n_dims))
        states[:, scaled] *= by
        odd = torch.as_tensor(states[:1].copy(), dtype=torch.float32)
        found = [odd.clone() for _ in to]
        for one, value in zip(found, to, strict=True):
            one[0, moved] += value
        some = natural(states, list(map(str, range(40))), distance)
        return [some.compare(one, "0").nn_percentile for one in found]

    return made


def test_a_massive_dimension_does_not_hide_the_others(cloud):
    """Ten units away in a quiet dimension, beside one that varies by thousands."""
    assert cloud(6, 0, 5000, 3, [10]) == [100]
    assert cloud(6, 0, 5000, 3, [10], "euclidean")[0] < 100


def test_nearly_dead_dimensions_do_not_count_more_than_a_tenth_of_the_median(cloud):
    """A hundred and a hundred thousand of its own units away."""
    same, near, far = cloud(5, 1, 1e-4, 1, [0, 0.01, 10])
    assert near == pytest.approx(same, abs=10)
    assert far == 100


def test_states_that_are_all_the_same_put_an_equal_one_in_the_middle():
    """As at BOS, which sees nothing but itself."""
    made = natural(np.ones((5, 3)), list("abcde"))
    assert made.compare(torch.ones(1, 3), "a").nn_percentile == 50
    assert made.compare(torch.full((1, 3), 1.5), "a").nn_percentile == 100
    assert made.compare(torch.full((1, 3), 1.5), "a").norm_ratio == pytest.approx(1.5)


def test_neighbours_are_those_of_other_prompts():
    """Each prompt has two tokens close to each other and far from all others."""
    states = [[x + dx, 0.0] for x in (0, 10, 20, 31) for dx in (0, 0.1)]
    texts = [text for text in "abcd" for _ in range(2)]
    found = natural(states, texts).compare(torch.tensor([[5.0, 0.0]]), "a")
    assert found.nn_percentile < 50
    assert found.n_natural == 6


def test_numbers_that_are_not_finite_are_named():
    states, odd = np.arange(8.0).reshape(4, 2), torch.tensor([[torch.inf, 0]])
    found = natural(states, list("abcd")).compare(odd, "a")
    assert found == "the edited state is not finite"
    states[2, 1] = np.nan
    found = natural(states, list("abcd")).compare(torch.zeros(1, 2), "a")
    assert found == "the natural state of 'c' is not finite"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"distance": "cosine"}, "unknown distance 'cosine'"),
        *(({"n_prompts": bad}, "n_prompts is") for bad in (0, -1, True)),
        ({"layers": [9]}, "layer 9 is out of range"),
    ],
)
def test_bad_input(towns, report, options, words):
    with pytest.raises(InputError, match=words):
        report(towns, kg.patch("resid_post", "last", kg.zero()), **options)
    swap = kg.patch("resid_post", "subject", kg.corrupted_run(by=kg.swap()))
    with pytest.raises(InputError, match="swap"):
        report(towns[1:3], swap, layers=[1])
