"""Sources: what each one puts in place, against activations read by plain PyTorch hooks."""

import pytest
import torch


def values(telling, name, prompt, layer, sample=0):
    (edit,) = telling.edits[prompt, name, layer, sample]
    return edit.value


def embedded(plain, ids_of, prompt, positions):
    return plain.model.embed_tokens(ids_of(prompt.text))[0, list(positions)]


SUBJECT = {"france": (4,), "italy": (4,), "tower": (1, 2, 3)}


@pytest.fixture
def sigma(plain, ids_of, prompts):
    """The deviation over all entries of all subject embeddings of the prompt set."""
    rows = [embedded(plain, ids_of, prompt, SUBJECT[prompt.id]) for prompt in prompts]
    return torch.cat([row.flatten() for row in rows]).std().item()


def test_zero(sweep, telling, prompts):
    import knockgrid as kg

    sweep(prompts, kg.patch("resid_post", "subject", kg.zero(), name="p"), executor=telling)
    value = values(telling, "p", "tower", 2)
    assert value.shape == (3, 32)
    assert not value.any()


def test_mean_over_the_prompt_set(sweep, telling, prompts, outputs):
    """All tokens of the place count equally, over all prompts, whatever their batch."""
    import knockgrid as kg

    sweep(prompts, kg.patch("resid_post", "subject", kg.mean(), name="p"), executor=telling)
    every = torch.cat([outputs(p.text)[:, list(SUBJECT[p.id])] for p in prompts], dim=1)
    assert every.shape == (4, 5, 32)
    for prompt in prompts:
        for layer in range(4):
            value = values(telling, "p", prompt.id, layer)
            expected = every[layer].mean(0).expand_as(value)
            torch.testing.assert_close(value, expected, rtol=0, atol=1e-12)


def test_mean_belongs_to_its_place(sweep, telling, prompts, outputs):
    import knockgrid as kg

    rows = [kg.patch("resid_post", at, kg.mean(), name=at) for at in ("subject_last", "last")]
    sweep(prompts, rows, executor=telling)
    for at, index in (("subject_last", {"tower": 3}), ("last", {"tower": 9})):
        place = {"france": 4, "italy": 4} if at == "subject_last" else {"france": 5, "italy": 5}
        every = [outputs(p.text)[1, (place | index)[p.id]] for p in prompts]
        value = values(telling, at, "france", 1)
        torch.testing.assert_close(value[0], torch.stack(every).mean(0), rtol=0, atol=1e-12)


def test_sigma_is_the_deviation_of_the_subject_embeddings(sweep, prompts, sigma):
    import knockgrid as kg

    table = sweep(prompts, kg.patch("resid_post", "last"), layers=[0])
    assert table.attrs["knockgrid"]["sigma"] == {"subject": pytest.approx(sigma, rel=1e-12)}


def test_sigma_of_the_vocabulary(sweep, prompts, plain):
    import knockgrid as kg

    source = kg.corrupted_run(by=kg.noise(3.0, scale_from="vocabulary"))
    table = sweep(prompts, kg.patch("resid_post", "last", source), layers=[0])
    expected = plain.model.embed_tokens.weight.std().item()
    assert table.attrs["knockgrid"]["sigma"] == {"vocabulary": pytest.approx(expected, rel=1e-9)}


@pytest.mark.parametrize("k", [1.0, 3.0])
def test_the_corrupted_run(sweep, telling, prompts, plain, ids_of, sigma, k):
    """k sigma of keyed noise on the subject's embeddings alone, one run for all layers."""
    import knockgrid as kg
    from knockgrid.sources.source import normal

    source = kg.corrupted_run(by=kg.noise(k))
    sweep(prompts, kg.patch("resid_post", "subject", source, name="p"), executor=telling, seed=5)
    for prompt in prompts:
        at = list(SUBJECT[prompt.id])
        drawn = normal((len(at), 32), (5, prompt.id, "embed", k, "subject", 0))
        states = plain.model.embed_tokens(ids_of(prompt.text)).clone()
        states[0, at] += (k * sigma * drawn).double()
        expected = plain.model(inputs_embeds=states, output_hidden_states=True).hidden_states
        for layer in range(3):  # the last of them is normed
            value = values(telling, "p", prompt.id, layer)
            assert value.std() > 0.1
            torch.testing.assert_close(value, expected[layer + 1][0, at], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["corrupted", "noise"])
def test_randomness_is_keyed_and_not_drawn_in_turn(sweep, telling, prompts, kind):
    """The draw of a prompt depends on neither the other prompts, nor rows, nor the layer list."""
    import knockgrid as kg

    source = kg.corrupted_run() if kind == "corrupted" else kg.noise()
    row = kg.patch("resid_post", "subject", source, name="p")
    other = kg.patch("resid_post", "last", source, name="other")

    def run(chosen, rows, **options):
        told = type(telling)()
        sweep(chosen, rows, executor=told, **options)
        return {prompt.id: values(told, "p", prompt.id, 1) for prompt in chosen}

    first = run(prompts, [row])
    for again in (
        run(prompts[::-1], [row]),
        run(prompts, [other, row], layers=[3, 1]),
        run(prompts, [row], samples=2),
    ):
        for prompt in prompts:
            torch.testing.assert_close(again[prompt.id], first[prompt.id], rtol=0, atol=1e-10)
    seeded = run(prompts, [row], seed=1)
    assert all((seeded[p.id] - first[p.id]).abs().max() > 0.01 for p in prompts)
    assert (first["france"] - first["italy"]).abs().max() > 0.01


def test_normal_numbers_depend_on_the_whole_key():
    from knockgrid.sources.source import normal

    one = normal((2000,), (0, "a", 0))
    assert torch.equal(one, normal((2000,), (0, "a", 0)))
    assert abs(one.mean()) < 0.1
    assert abs(one.std() - 1) < 0.1
    for key in ((1, "a", 0), (0, "b", 0), (0, "a", 1), (0, "a")):
        assert not torch.equal(one, normal((2000,), key))


def test_drawing_leaves_the_global_generator_alone():
    from knockgrid.sources.source import normal

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(987)
        torch.rand(3)
        before = torch.get_rng_state()
        normal((3,), (0,))
        assert torch.equal(before, torch.get_rng_state())


def test_noise_on_the_activation_itself(sweep, telling, prompts, outputs):
    """Added, k deviations of this very activation over the prompt set, a draw for each layer."""
    import knockgrid as kg
    from knockgrid.sources.source import normal

    row = kg.patch("resid_post", "subject", kg.noise(2.0), name="p")
    sweep(prompts, row, executor=telling, seed=3)
    every = torch.cat([outputs(p.text)[:, list(SUBJECT[p.id])] for p in prompts], dim=1)
    for layer in (0, 2):
        (edit,) = telling.edits["tower", "p", layer, 0]
        assert edit.add
        drawn = normal((3, 32), (3, "tower", "noise(2.0)", 0, "resid_post", layer))
        expected = 2.0 * every[layer].std() * drawn.double()
        torch.testing.assert_close(edit.value, expected, rtol=1e-6, atol=0)


def test_a_swap_is_the_partners_run(sweep, telling, prompts, outputs):
    import knockgrid as kg

    pair = [prompts[0], prompts[2]]
    row = kg.patch("resid_post", "subject", kg.corrupted_run(by=kg.swap()), name="p")
    sweep(pair, row, executor=telling)
    for prompt, other in (pair, pair[::-1]):
        expected = outputs(other.text)[:, 4]
        for layer in range(4):
            value = values(telling, "p", prompt.id, layer)
            torch.testing.assert_close(value[0], expected[layer], rtol=0, atol=1e-12)


def test_prompts_without_a_fitting_partner_are_dropped_and_counted(sweep, prompts):
    import knockgrid as kg

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


def test_a_donor_is_aligned_by_role(sweep, telling, prompts, outputs):
    """The last subject token of a longer prompt goes to the last subject token of this one."""
    import knockgrid as kg

    france, tower, _ = prompts
    rows = [
        kg.patch("resid_post", at, kg.donor(tower), name=at)
        for at in ("subject_last", "subject_first", "last")
    ]
    sweep(france, rows, executor=telling)
    states = outputs(tower.text)
    for at, index in (("subject_last", 3), ("subject_first", 1), ("last", 9)):
        for layer in range(4):
            value = values(telling, at, "france", layer)
            torch.testing.assert_close(value[0], states[layer, index], rtol=0, atol=1e-12)


def test_a_donor_for_each_prompt(sweep, telling, prompts, outputs):
    import knockgrid as kg

    source = kg.donor({"france": prompts[2], "italy": prompts[0]})
    row = kg.patch("resid_post", "subject", source, name="p")
    table = sweep(prompts, row, executor=telling)
    expected = outputs(prompts[2].text)[1, 4]
    torch.testing.assert_close(values(telling, "p", "france", 1)[0], expected, rtol=0, atol=1e-12)
    assert set(table.prompt) == {"france", "italy"}
    assert table.attrs["knockgrid"]["dropped"] == {
        "p": {"tower": "donor() has no prompt for 'tower'"}
    }


@pytest.mark.parametrize("executor", ["reference", "staircase", "rectangle"])
@pytest.mark.parametrize("n_tokens", [1, 2])
def test_a_donor_that_is_the_prompt_s_beginning(
    sweep, prompts, plain, ids_of, scipy_js, executor, n_tokens
):
    """After the last block the donor's last state is the donor's own prediction."""
    import knockgrid as kg

    row = kg.patch("resid_post", "last", kg.donor(kg.Prompt("The capital of")))
    options = {"layers": [3], "executor": executor, "n_tokens": n_tokens}
    table = sweep(prompts[0], row, **options)
    texts = ("The capital of", "The capital of France is")
    expected = scipy_js(*(plain(ids_of(text)).logits[0, -1] for text in texts))
    assert expected > 1e-3
    assert table.js[0] == pytest.approx(expected, abs=1e-12)
    assert table.attrs["knockgrid"]["receipt"]["executor"] == executor


def test_a_fixed_vector(sweep, telling, prompts):
    import knockgrid as kg

    one = torch.linspace(-1, 1, 32)
    each = torch.stack([one * i for i in range(4)])
    some = {1: one, 2: -one}
    rows = [
        kg.patch("resid_post", "subject", kg.fixed(vectors), name=name)
        for name, vectors in (("one", one), ("each", each), ("some", some))
    ]
    sweep(prompts, rows, executor=telling, layers=[1, 2])
    for layer in (1, 2):
        for name, expected in (("one", one), ("each", one * layer), ("some", some[layer])):
            value = values(telling, name, "tower", layer)
            torch.testing.assert_close(value, expected.double().expand(3, 32), rtol=0, atol=0)


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
    import knockgrid as kg

    one = isinstance(shape, tuple)
    vectors = torch.ones(shape) if one else {i: torch.ones(s) for i, s in shape.items()}
    source = kg.sources.random_direction(kg.fixed(vectors)) if like else kg.fixed(vectors)
    with pytest.raises(kg.InputError, match=said):
        sweep(prompts, kg.patch(act_name, "subject", source), layers=[2])


def test_a_fixed_vector_for_each_head(sweep, telling, prompts):
    import knockgrid as kg

    per_head, per_layer = torch.randn(4, 8), torch.randn(4, 4, 8)
    rows = [
        kg.patch("z", "subject", kg.fixed(vectors), name=name)
        for name, vectors in (("map", {2: per_head}), ("each", per_layer))
    ]
    sweep(prompts, rows, executor=telling, layers=[2])
    for name, expected in (("map", per_head), ("each", per_layer[2])):
        value = values(telling, name, "tower", 2)
        torch.testing.assert_close(value, expected.double().expand(3, 4, 8), rtol=0, atol=0)


def test_labels():
    import knockgrid as kg

    assert [s.label for s in (kg.zero(), kg.mean(), kg.noise(), kg.noise(1, "vocabulary"))] == [
        "zero()",
        "mean()",
        "noise(3.0)",
        "noise(1.0, scale_from='vocabulary')",
    ]
    assert kg.corrupted_run(by=kg.swap()).label == "corrupted_run(swap())"
    assert kg.corrupted_run().label == "corrupted_run(noise(3.0))"
    ones, zeros = (kg.fixed(make(4)).label for make in (torch.ones, torch.zeros))
    assert ones != zeros
    assert ones == kg.fixed(torch.ones(4)).label


@pytest.mark.parametrize("k", [0, -1.0, float("nan"), float("inf")])
def test_a_noise_level_that_is_refused(k):
    import knockgrid as kg

    with pytest.raises(kg.InputError, match="needs a positive number of standard deviations"):
        kg.noise(k)


def test_the_vectors_of_fixed_are_read_back_once():
    """Its label is asked for once per cell, and the vectors may lie on a device."""
    import knockgrid as kg

    source = kg.fixed(torch.zeros(4))
    assert source.label is source.label
