"""Measured tokens after the first: teacher forcing, modes, and where the text ends."""

import numpy as np
import pytest
import torch

LOWEST = torch.finfo(torch.float64).min


@pytest.fixture(scope="module")
def continued(plain, ids_of, tower):
    """The prompt and its next three greedy tokens, by whole forwards; `[1, 13]`."""
    ids = ids_of(tower.text)
    for _ in range(3):
        ids = torch.cat([ids, plain(ids).logits[:, -1:].argmax(-1)], dim=1)
    return ids


def masked_js(plain, ids, pairs, scipy_js):
    """JS at the last prompt token and every later one, with some edges blocked in all layers."""
    n = ids.shape[1]
    mask = torch.full((1, 1, n, n), LOWEST, dtype=torch.float64).triu(1)
    clean = plain(ids).logits[0]
    for query, key in pairs:
        mask[..., query, key] = LOWEST
    edited = plain(ids, attention_mask=mask).logits[0]
    return [scipy_js(clean[i], edited[i]) for i in range(9, n)]


@pytest.mark.parametrize("executor", ["reference", "staircase"])
def test_later_tokens_with_a_knockout_on_the_prompt(
    sweep, plain, tower, continued, scipy_js, executor
):
    """Only the last prompt token is blocked; later tokens follow the clean continuation."""
    import knockgrid as kg

    row = kg.knockout(window=99)
    table = sweep(tower, row, layers=[0], n_tokens=4, executor=executor)
    expected = masked_js(plain, continued, [(9, 1), (9, 2), (9, 3)], scipy_js)
    assert table.token.tolist() == [0, 1, 2, 3]
    assert min(expected) > 1e-5
    np.testing.assert_allclose(table.js, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("executor", ["reference", "staircase"])
def test_a_persistent_knockout_binds_later_queries(
    sweep, plain, tower, continued, scipy_js, executor
):
    import knockgrid as kg

    row = kg.knockout(window=99)
    table = sweep(tower, row, layers=[0], n_tokens=4, mode="persistent", executor=executor)
    pairs = [(query, key) for query in range(9, 13) for key in (1, 2, 3)]
    expected = masked_js(plain, continued, pairs, scipy_js)
    np.testing.assert_allclose(table.js, expected, rtol=0, atol=1e-12)
    once = masked_js(plain, continued, pairs[:3], scipy_js)
    assert min(abs(a - b) for a, b in zip(expected[1:], once[1:], strict=True)) > 1e-6
    assert table.attrs["knockgrid"]["mode"] == "persistent"


@pytest.mark.parametrize("mode", ["prompt_only", "persistent"])
def test_later_tokens_with_a_patch(sweep, plain, tower, continued, prompts, scipy_js, mode):
    """A patch touches its prompt position once, in both modes."""
    import knockgrid as kg

    row = kg.patch("resid_post", "subject_last", kg.zero())
    table = sweep(tower, row, layers=[1], n_tokens=4, mode=mode)

    def put(module, args, output):
        hidden = (output if torch.is_tensor(output) else output[0]).clone()
        hidden[0, 3] = 0
        return hidden if torch.is_tensor(output) else (hidden, *output[1:])

    clean = plain(continued).logits[0]
    handle = plain.model.layers[1].register_forward_hook(put)
    edited = plain(continued).logits[0]
    handle.remove()
    expected = [scipy_js(clean[i], edited[i]) for i in range(9, 13)]
    assert min(expected) > 1e-6
    np.testing.assert_allclose(table.js, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("executor", ["reference", "staircase"])
def test_token_0_does_not_depend_on_later_ones(sweep, prompts, executor):
    import knockgrid as kg

    rows = [*kg.information_flow(), kg.edge_patch()]
    one = sweep(prompts, rows, layers=[0, 2], executor=executor)
    many = sweep(prompts, rows, layers=[0, 2], executor=executor, n_tokens=3)
    first = many[many.token == 0]
    assert one.js.max() > 1e-3
    np.testing.assert_allclose(first.js, one.js, rtol=0, atol=1e-12)
    assert len(many) == 3 * len(one)


def test_the_texts_of_the_tokens(sweep, plain, ids_of, tiny_tokenizer):
    """Each row names the clean run's token: the continuation, and the argmax after it."""
    import knockgrid as kg

    text = "The Colosseum is located in the city of Rome."
    ids = ids_of(text)
    for _ in range(3):
        ids = torch.cat([ids, plain(ids).logits[:, -1:].argmax(-1)], dim=1)
    expected = [tiny_tokenizer.decode([i]) for i in ids[0, -3:].tolist()]
    assert len(set(expected)) == 3
    prompt = kg.Prompt(text, spans={"subject": "The Colosseum"})
    table = sweep(prompt, kg.knockout(), layers=[0, 1], n_tokens=3)
    assert table.token_text.tolist() == 2 * expected
    (side,) = table.attrs["knockgrid"]["prompts"]
    assert side["generated"] == expected


def test_after_the_end_of_the_text_there_is_nothing_to_measure(
    tiny_tokenizer, sweep, tower, continued
):
    """The clean continuation's second token is made the end token."""
    import knockgrid as kg

    first, second = continued[0, 10:12].tolist()
    assert first != second
    before = tiny_tokenizer.eos_token
    tiny_tokenizer.eos_token = tiny_tokenizer.convert_ids_to_tokens(second)
    try:
        table = sweep(tower, kg.knockout(), layers=[0], n_tokens=4)
    finally:
        tiny_tokenizer.eos_token = before
    assert table.status.tolist() == ["ok"] * 2 + ["NA: the text had ended before this token"] * 2
    assert table.js.notna().tolist() == [True, True, False, False]


def test_free_run_names_the_first_token_that_differs(sweep, tower):
    """And batches the divergences of a prompt: all cells share one null row."""
    import knockgrid as kg

    row = kg.knockout(window=99)
    table = sweep(tower, row, layers=[0, 1], n_tokens=4, mode="free_run")
    (side,) = table.attrs["knockgrid"]["prompts"]
    free = table[table.layer == 0]
    assert free.diverged.nunique(dropna=False) == 1
    at = free.diverged.iloc[0]
    teacher = sweep(tower, row, layers=[0], n_tokens=4, mode="persistent")
    same = free.token <= (3 if at is None or at != at else int(at))
    np.testing.assert_allclose(free.js[same], teacher.js[same.to_numpy()], rtol=0, atol=1e-9)
    assert side["generated"] == free.token_text.tolist()
