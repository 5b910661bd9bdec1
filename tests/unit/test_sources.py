"""Sources: what each one puts in place, against activations read by plain PyTorch hooks."""

import pytest
import torch

import knockgrid as kg
from knockgrid.sources.source import normal


@pytest.fixture
def put(sweep, telling):
    """Sweeps one row, and gives what it puts at a prompt, layer and sample."""

    def swept(prompts, act_name, at, source, **options):
        sweep(prompts, kg.patch(act_name, at, source, name="p"), executor=telling, **options)
        return lambda prompt, layer: telling.edits[prompt, "p", layer, 0][0].value

    return swept


def same(one, other, atol=1e-12, rtol=0):
    torch.testing.assert_close(one, other, rtol=rtol, atol=atol)


def embedded(plain, ids_of, prompt, positions):
    return plain.model.embed_tokens(ids_of(prompt.text))[0, list(positions)]


SUBJECT = {"france": (4,), "italy": (4,), "tower": (1, 2, 3)}


@pytest.fixture
def sigma(plain, ids_of, prompts):
    """The deviation over all entries of all subject embeddings of the prompt set."""
    rows = [embedded(plain, ids_of, prompt, SUBJECT[prompt.id]) for prompt in prompts]
    return torch.cat([row.flatten() for row in rows]).std().item()


def test_zero(put, prompts):
    value = put(prompts, "resid_post", "subject", kg.zero())("tower", 2)
    assert value.shape == (3, 32)
    assert not value.any()


@pytest.mark.parametrize("at", ["subject", "subject_last", "last"])
def test_mean_over_the_prompt_set(put, prompts, outputs, at):
    """All tokens of the place count equally, over all prompts, whatever their batch."""
    where = {
        "subject": SUBJECT,
        "subject_last": {name: found[-1:] for name, found in SUBJECT.items()},
        "last": {"france": (5,), "italy": (5,), "tower": (9,)},
    }[at]
    found = put(prompts, "resid_post", at, kg.mean_activation())
    every = torch.cat([outputs(p.text)[:, list(where[p.id])] for p in prompts], dim=1)
    assert every.shape == (4, sum(map(len, where.values())), 32)
    for prompt in prompts:
        for layer in range(4):
            value = found(prompt.id, layer)
            same(value, every[layer].mean(0).expand(len(where[prompt.id]), 32))


def test_sigma(sweep, prompts, sigma, plain):
    """That of the subject embeddings, or of the vocabulary."""
    vocabulary = plain.model.embed_tokens.weight.std().item()
    for scale_from, expected in (("subject", sigma), ("vocabulary", vocabulary)):
        source = kg.corrupted_run(by=kg.noise(3.0, scale_from=scale_from))
        table = sweep(prompts, kg.patch("resid_post", "last", source), layers=[0])
        found = table.attrs["knockgrid"]["sigma"]
        assert found == {scale_from: pytest.approx(expected, rel=1e-9)}


@pytest.mark.parametrize("k", [1.0, 3.0])
def test_the_corrupted_run(put, prompts, plain, ids_of, sigma, k):
    """k sigma of keyed noise on the subject's embeddings alone, one run for all layers."""
    found = put(prompts, "resid_post", "subject", kg.corrupted_run(by=kg.noise(k)), seed=5)
    for prompt in prompts:
        at = list(SUBJECT[prompt.id])
        drawn = normal((len(at), 32), (5, prompt.id, "embed", k, "subject", 0))
        states = plain.model.embed_tokens(ids_of(prompt.text)).clone()
        states[0, at] += (k * sigma * drawn).double()
        expected = plain.model(inputs_embeds=states, output_hidden_states=True).hidden_states
        for layer in range(3):  # the last of them is normed
            value = found(prompt.id, layer)
            assert value.std() > 0.1
            same(value, expected[layer + 1][0, at], atol=1e-6)


@pytest.mark.parametrize("source", [kg.corrupted_run(), kg.noise()], ids=["corrupted", "noise"])
def test_randomness_is_keyed_and_not_drawn_in_turn(sweep, telling, prompts, source):
    """The draw of a prompt depends on neither the other prompts, nor rows, nor the layer list."""
    row = kg.patch("resid_post", "subject", source, name="p")
    other = kg.patch("resid_post", "last", source, name="other")

    def run(chosen, rows, **options):
        told = type(telling)()
        sweep(chosen, rows, executor=told, **options)
        return {prompt.id: told.edits[prompt.id, "p", 1, 0][0].value for prompt in chosen}

    first = run(prompts, [row])
    for again in (
        run(prompts[::-1], [row]),
        run(prompts, [other, row], layers=[3, 1]),
        run(prompts, [row], samples=2),
    ):
        for prompt in prompts:
            same(again[prompt.id], first[prompt.id], atol=1e-10)
    seeded = run(prompts, [row], seed=1)
    assert all((seeded[p.id] - first[p.id]).abs().max() > 0.01 for p in prompts)
    assert (first["france"] - first["italy"]).abs().max() > 0.01


def test_normal_numbers_depend_on_the_whole_key_alone():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(987)
        before = torch.get_rng_state()
        one = normal((2000,), (0, "a", 0))
        assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one, normal((2000,), (0, "a", 0)))
    assert abs(one.mean()) < 0.1
    assert abs(one.std() - 1) < 0.1
    for key in ((1, "a", 0), (0, "b", 0), (0, "a", 1), (0, "a")):
        assert not torch.equal(one, normal((2000,), key))


def test_noise_on_the_activation_itself(sweep, telling, prompts, outputs):
    """Added, k deviations of this very activation over the prompt set, a draw for each layer."""
    row = kg.patch("resid_post", "subject", kg.noise(2.0), name="p")
    sweep(prompts, row, executor=telling, seed=3)
    every = torch.cat([outputs(p.text)[:, list(SUBJECT[p.id])] for p in prompts], dim=1)
    for layer in (0, 2):
        (edit,) = telling.edits["tower", "p", layer, 0]
        assert edit.add
        drawn = normal((3, 32), (3, "tower", "noise(2.0)", 0, "resid_post", layer))
        expected = 2.0 * every[layer].std() * drawn.double()
        same(edit.value, expected, rtol=1e-6, atol=0)


def test_a_swap_is_the_partners_run(put, prompts, outputs):
    pair = [prompts[0], prompts[2]]
    found = put(pair, "resid_post", "subject", kg.corrupted_run(by=kg.swap()))
    for prompt, other in (pair, pair[::-1]):
        for layer in range(4):
            same(found(prompt.id, layer)[0], outputs(other.text)[layer, 4])


def test_prompts_without_a_fitting_partner_are_dropped_and_counted(sweep, prompts):
    france, tower, italy = prompts
    long = kg.Prompt("The capital of the Eiffel Tower is", spans={"subject": "the Eiffel Tower"})
    early = kg.Prompt("The France of capital is", spans={"subject": "France"})
    given = [
        france.replace(id="fits"),
        tower,
        italy.replace(id="long", swap=long),
        italy.replace(id="early", swap=early),
        france.replace(id="same", answers=("Paris", "x"), swap=italy.replace(answers=("paris",))),
    ]
    rows = [
        kg.patch("resid_post", "subject", kg.corrupted_run(by=kg.swap()), name="swap"),
        kg.knockout(name="cut"),
    ]
    table = sweep(given, rows, layers=[0, 1])
    assert set(table[table.intervention == "swap"].prompt) == {"fits"}
    assert table[table.intervention == "cut"].prompt.nunique() == 5
    dropped = table.attrs["knockgrid"]["dropped"]
    assert set(dropped) == {"swap"}
    assert set(dropped["swap"]) == {"tower", "long", "early", "same"}
    assert dropped["swap"]["tower"].startswith("prompt 'tower' has no swap partner")
    assert "differs in token length or subject position" in dropped["swap"]["long"]
    assert "differs in token length or subject position" in dropped["swap"]["early"]
    assert dropped["swap"]["same"] == "the swap partner of 'same' has the same answer 'paris'"


@pytest.mark.parametrize(("at", "index"), [("subject_last", 3), ("subject_first", 1), ("last", 9)])
def test_a_donor_is_aligned_by_role(put, prompts, outputs, at, index):
    """The last subject token of a longer prompt goes to the last subject token of this one."""
    france, tower, _ = prompts
    found = put(france, "resid_post", at, kg.donor(tower))
    for layer in range(4):
        same(found("france", layer)[0], outputs(tower.text)[layer, index])


def test_a_donor_for_each_prompt(sweep, telling, prompts, outputs):
    source = kg.donor({"france": prompts[2], "italy": prompts[0]})
    table = sweep(prompts, kg.patch("resid_post", "subject", source, name="p"), executor=telling)
    (edit,) = telling.edits["france", "p", 1, 0]
    same(edit.value[0], outputs(prompts[2].text)[1, 4])
    assert set(table.prompt) == {"france", "italy"}
    dropped = table.attrs["knockgrid"]["dropped"]
    assert dropped == {"p": {"tower": "donor() has no prompt for 'tower'"}}


@pytest.mark.parametrize("executor", ["reference", "staircase", "rectangle"])
@pytest.mark.parametrize("n_tokens", [1, 2])
def test_a_donor_that_is_the_prompt_s_beginning(
    sweep, prompts, plain, ids_of, scipy_js, executor, n_tokens
):
    """After the last block the donor's last state is the donor's own prediction."""
    row = kg.patch("resid_post", "last", kg.donor(kg.Prompt("The capital of")))
    options = {"layers": [3], "executor": executor, "n_tokens": n_tokens}
    table = sweep(prompts[0], row, **options)
    texts = ("The capital of", "The capital of France is")
    expected = scipy_js(*(plain(ids_of(text)).logits[0, -1] for text in texts))
    assert expected > 1e-3
    assert table.js[0] == pytest.approx(expected, abs=1e-12)
    assert table.attrs["knockgrid"]["receipt"]["executor"] == executor


ONE, OF_HEADS = torch.linspace(-1, 1, 32), torch.randn(4, 4, 8)


@pytest.mark.parametrize(
    ("act_name", "vectors", "expected"),
    [
        ("resid_post", ONE, ONE),
        ("resid_post", torch.stack([ONE * i for i in range(4)]), ONE * 2),
        ("resid_post", {1: ONE, 2: -ONE}, -ONE),
        ("z", {2: OF_HEADS[0]}, OF_HEADS[0]),
        ("z", OF_HEADS, OF_HEADS[2]),
    ],
)
def test_a_fixed_vector(put, prompts, act_name, vectors, expected):
    value = put(prompts, act_name, "subject", kg.fixed(vectors), layers=[2])("tower", 2)
    same(value, expected.double().expand(3, *expected.shape), atol=0)


FITS = "all layers.*for each, or a mapping"


@pytest.mark.parametrize(
    ("act_name", "shape", "said"),
    [
        ("z", (4, 8), r"\(4, 8\), which may be one for each layer or for each head.*" + FITS),
        ("resid_post", (1, 32), r"\(1, 32\).*" + FITS),
        ("resid_post", (5, 32), r"\(5, 32\).*" + FITS),
        ("resid_post", (4, 4, 8), r"\(4, 4, 8\), which does not fit.*" + FITS),
        ("resid_post", (), r"\(\), which does not fit.*" + FITS),
        ("z", (8,), r"\(8,\), which does not fit at 'z'.*" + FITS),
        ("z", (3, 8), r"has a vector of shape \(3, 8\)"),
        ("resid_post", (31,), r"has a vector of shape \(31,\)"),
        ("resid_post", {2: (3, 32)}, r"has a vector of shape \(3, 32\)"),
    ],
)
@pytest.mark.parametrize("like", [False, True])
def test_a_fixed_vector_that_does_not_fit_its_place(act_name, shape, said, like, sweep, prompts):
    """Four layers, four heads of eight entries, 32 entries in the stream, three subject tokens."""
    one = isinstance(shape, tuple)
    vectors = torch.ones(shape) if one else {i: torch.ones(s) for i, s in shape.items()}
    source = kg.sources.random_direction(kg.fixed(vectors)) if like else kg.fixed(vectors)
    with pytest.raises(kg.InputError, match=said):
        sweep(prompts, kg.patch(act_name, "subject", source), layers=[2])


def test_labels():
    sources = (
        kg.zero(),
        kg.mean_activation(),
        kg.noise(),
        kg.noise(1, "vocabulary"),
        kg.corrupted_run(),
    )
    assert [source.label for source in sources] == [
        *("zero()", "mean_activation()", "noise(3.0)", "noise(1.0, scale_from='vocabulary')"),
        "corrupted_run(noise(3.0))",
    ]
    assert kg.corrupted_run(by=kg.swap()).label == "corrupted_run(swap())"
    ones = kg.fixed(torch.ones(4))
    assert ones.label == kg.fixed(torch.ones(4)).label != kg.fixed(torch.zeros(4)).label
    assert ones.label is ones.label  # read back once: the vectors may lie on a device


@pytest.mark.parametrize("k", [0, -1.0, float("nan"), float("inf")])
def test_a_noise_level_that_is_refused(k):
    with pytest.raises(kg.InputError, match="needs a positive number of standard deviations"):
        kg.noise(k)
