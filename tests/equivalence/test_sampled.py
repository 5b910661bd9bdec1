"""Sampled runs, against a loop on the plain Hugging Face model that draws by the same numbers."""

import json
from collections import Counter
from importlib import import_module

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.stats import binomtest, chisquare

import knockgrid as kg
from knockgrid.engine.sampled import drawn, uniform_draws
from knockgrid.reports.methods import methods

T, RUNS, N = 1.3, 6, 4
PROMPT = kg.Prompt(
    "The Eiffel Tower is located in",
    spans={"subject": "Eiffel Tower"},
    id="tower",
    answers=["Tower"],
)
ROWS = [
    kg.patch("mlp_out", "last", kg.zero(), layers=[1], name="zero"),
    kg.knockout("last", "subject", layers="all", name="cut"),
]
FREE = {"mode": "free_run", "n_tokens": N, "temperature": T, "progress": False}


@pytest.fixture(scope="module")
def table(tiny_llama):
    return kg.sweep(tiny_llama, PROMPT, ROWS, sampled_runs=RUNS, **FREE)


def first(table, name):
    return table[(table["intervention"] == name) & (table["token"] == 0)].iloc[0]


def loop(raw, ids, number, hook):
    """One text, without a cache, drawn by hand from the cumulative distribution."""
    draws, n_prompt = uniform_draws(0, PROMPT, number, N).tolist(), len(ids)
    for draw in draws:
        handle = hook(n_prompt)
        with torch.no_grad():
            p = (raw(torch.tensor([ids]), use_cache=False).logits[0, -1] / T).softmax(-1)
        if handle is not None:
            handle.remove()
        total = p.cumsum(-1)
        ids = [*ids, int((total <= draw * total[-1]).sum())]
    return ids[n_prompt:]


def zeroed(raw, pos):
    def put(module, args, output):
        output = output.clone()
        output[0, pos] = 0
        return output

    return raw.model.layers[1].mlp.register_forward_hook(put)


def test_texts_are_those_of_a_plain_loop(tiny_llama, table, plain_of):
    raw = plain_of(tiny_llama)
    ids = [1, *tiny_llama.tokenizer(PROMPT.text, add_special_tokens=False)["input_ids"]]

    decode = tiny_llama.tokenizer.decode
    own = [decode(loop(raw, ids, i, lambda n: zeroed(raw, n - 1))) for i in range(RUNS)]
    clean = [decode(loop(raw, ids, i, lambda n: None)) for i in range(RUNS)]
    assert len(set(own)) > 1
    assert own != clean
    row = first(table, "zero")
    assert json.loads(row["written"]) == own
    gave, before = ([text.lstrip().startswith("Tower") for text in some] for some in (own, clean))
    assert row["gave_answer"] == np.mean(gave)
    assert row["gave_answer_clean"] == np.mean(before)
    assert (sum(gave), sum(before)) == (1, 0)
    flips = sum(one != other for one, other in zip(gave, before, strict=True))
    ends = binomtest(flips, RUNS).proportion_ci(method="wilson")
    assert row["flipped"] == flips / RUNS
    assert row["flipped_low"] == pytest.approx(ends.low)
    assert row["flipped_high"] == pytest.approx(ends.high)


def test_draws_follow_the_distribution_at_the_temperature():
    logits = torch.tensor([[0.0, 1.0, -1.0, 2.0, float("-inf")]])
    draws = torch.linspace(0, 1, 20_001, dtype=torch.float64)[:-1]
    tokens = torch.cat([drawn(logits, T, one) for one in draws])
    expected = (logits[0, :4].double() / T).softmax(-1) * len(draws)
    counts = torch.bincount(tokens, minlength=5)
    assert counts[4] == 0
    assert chisquare(counts[:4], expected).pvalue > 0.99  # a grid of draws, so nearly exact
    many = torch.cat([uniform_draws(0, PROMPT, i, 50) for i in range(40)])
    assert chisquare(torch.histc(many, 10, 0, 1)).pvalue > 0.01
    assert not torch.equal(uniform_draws(0, PROMPT, 0, 9), uniform_draws(1, PROMPT, 0, 9))


def test_first_tokens_follow_the_plain_models_distribution(tiny_llama, plain_of):
    """Of many texts of one token, each decoded token as often as the plain model gives it."""
    many, decode = 1500, tiny_llama.tokenizer.decode
    ids = [1, *tiny_llama.tokenizer(PROMPT.text, add_special_tokens=False)["input_ids"]]
    raw = plain_of(tiny_llama)
    handle = zeroed(raw, len(ids) - 1)
    with torch.no_grad():
        p = (raw(torch.tensor([ids])).logits[0, -1].double() / T).softmax(-1).tolist()
    handle.remove()
    one = {**FREE, "n_tokens": 1, "metrics": ["js"]}
    table = kg.sweep(tiny_llama, PROMPT, ROWS[0], sampled_runs=many, **one)
    texts = Counter(json.loads(first(table, "zero")["written"]))
    expected = Counter[str]()
    for token, share in enumerate(p):
        # an end token writes nothing
        expected["" if token == tiny_llama.tokenizer.eos_token_id else decode([token])] += share
    assert set(texts) <= set(expected)
    often = [text for text, share in expected.items() if share * many >= 5]
    counts, shares = ([of[text] for text in often] for of in (texts, expected))
    if (rest := 1 - sum(shares)) * many >= 5:
        counts, shares = [*counts, many - sum(counts)], [*shares, rest]
    assert len(shares) > 20
    expected_counts = np.array(shares) / sum(shares) * sum(counts)
    assert chisquare(counts, expected_counts).pvalue > 0.01


@pytest.mark.parametrize("lies", ["at later tokens", "in later texts"])
def test_a_cache_that_lies_is_refused(tiny_llama, monkeypatch, lies):
    """The first logits are made without it, so later ones must be held against a whole pass."""
    module = import_module("knockgrid.engine.executors.free_run")
    sound, later = module.step, []

    def broken(model, run, plan, ids, start, past):
        if start >= run.n_prompt:
            later.append(start)
            if lies == "at later tokens" or later.count(start) > 1:  # the second text
                for layer in past.layers:
                    layer.keys, layer.values = layer.keys.flip(2), layer.values * 2
        return sound(model, run, plan, ids, start, past)

    monkeypatch.setattr(module, "step", broken)
    with pytest.raises(kg.InputError, match=r"step by step is .* in JS away from the clean run"):
        kg.sweep(tiny_llama, PROMPT, ROWS[0], sampled_runs=2, **FREE)
    kg.sweep(tiny_llama, PROMPT, ROWS[0], sampled_runs=2, executor="reference", **FREE)


def test_an_edit_that_does_nothing_flips_nothing(tiny_llama):
    answers = ["the", "city", "of", "is", "France", "Rome", "Paris"]
    prompt = PROMPT.replace(answers=answers)
    row = kg.knockout("last", "subject", layers="all", heads=[], name="nothing")
    table = kg.sweep(tiny_llama, prompt, row, sampled_runs=RUNS, **FREE)
    assert float(table["js"].max()) <= 1e-12
    assert table["flipped"].dropna().tolist() == [0.0]
    assert first(table, "nothing")["gave_answer"] == first(table, "nothing")["gave_answer_clean"]


def test_neither_the_batch_nor_other_cells_nor_the_cache_matter(tiny_llama, table):
    alone = kg.sweep(tiny_llama, PROMPT, ROWS[1:], sampled_runs=RUNS, max_rows=2, **FREE)
    whole = kg.sweep(tiny_llama, PROMPT, ROWS, sampled_runs=RUNS, executor="reference", **FREE)
    for other in (alone, whole):
        assert first(other, "cut")["written"] == first(table, "cut")["written"]
        mine = table[table["intervention"] == "cut"]["js"]
        theirs = other[other["intervention"] == "cut"]["js"]
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-6)
    seeded = kg.sweep(tiny_llama, PROMPT, ROWS[1:], sampled_runs=RUNS, seed=5, **FREE)
    assert first(seeded, "cut")["written"] != first(table, "cut")["written"]


def test_divergences_are_means_over_texts(tiny_llama, table, plain_of):
    """Those of each clean text and the edited one with its numbers; no text's stands for all."""
    raw = plain_of(tiny_llama)
    ids = [1, *tiny_llama.tokenizer(PROMPT.text, add_special_tokens=False)["input_ids"]]
    found = []
    for number in range(RUNS):
        own = loop(raw, ids, number, lambda n: zeroed(raw, n - 1))
        clean = loop(raw, ids, number, lambda n: None)
        with torch.no_grad():
            before = raw(torch.tensor([ids + clean[:-1]])).logits[0, len(ids) - 1 :]
            handle = zeroed(raw, len(ids) - 1)
            after = raw(torch.tensor([ids + own[:-1]])).logits[0, len(ids) - 1 :]
            handle.remove()
        p, q = ((x.double() / T).softmax(-1).numpy() for x in (before, after))
        found.append([jensenshannon(a, b) ** 2 for a, b in zip(p, q, strict=True)])
    mine = table[table["intervention"] == "zero"]["js"]
    np.testing.assert_allclose(mine, np.mean(found, axis=0), rtol=1e-5, atol=1e-7)
    assert "js_mean_dist" not in table


def test_a_low_temperature_writes_greedily(tiny_llama):
    cold = {**FREE, "temperature": 1e-6}
    sampled = kg.sweep(tiny_llama, PROMPT, ROWS, sampled_runs=2, metrics=["js"], **cold)
    greedy = kg.sweep(tiny_llama, PROMPT, ROWS, metrics=["js"], **cold)
    for one in ("zero", "cut"):
        assert json.loads(first(sampled, one)["written"]) == [first(greedy, one)["written"]] * 2


def test_a_folder_keeps_and_verifies_them(tiny_llama, tmp_path):
    table = kg.sweep(tiny_llama, [PROMPT], ROWS, sampled_runs=3, out=tmp_path / "run", **FREE)
    again = kg.open_run(tmp_path / "run")
    assert again["flipped"].dropna().tolist() == table["flipped"].dropna().tolist()
    found = kg.verify(tmp_path / "run", model=tiny_llama, cells=9)
    assert found.ok, found.mismatches
    said = methods(tmp_path / "run")
    assert "wrote 3 texts, sampled by the same random numbers" in said
    assert "random edits" not in said
    kg.report(tmp_path / "run")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mode": "prompt_only"}, "writes no text; give mode='free_run'"),
        ({"sampled_runs": 0}, "sampled_runs"),
        ({"samples": 2}, "draw texts or values, not both"),
        ({"direction": "denoising"}, "edits a corrupted run, whose texts are no clean ones"),
        ({"measure": "tokens"}, "writes its own text"),
    ],
)
def test_what_cannot_be_sampled_is_refused(tiny_llama, options, said):
    with pytest.raises(kg.InputError, match=said):
        kg.sweep(tiny_llama, PROMPT, ROWS, **{**FREE, "sampled_runs": 2, **options})


def test_a_prompt_without_answers_has_texts_and_no_share(tiny_llama):
    bare = kg.Prompt(PROMPT.text, spans=PROMPT.spans)
    table = kg.sweep(tiny_llama, bare, ROWS[1:], sampled_runs=2, **FREE)
    assert table["flipped"].isna().all()
    assert len(json.loads(first(table, "cut")["written"])) == 2
