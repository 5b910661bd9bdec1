"""Planted models do what they say: plain passes find their mechanism, and nothing else."""

import pytest
import torch

import knockgrid as kg
from knockgrid.evidence.planted import VARIANTS, planted

SMALL = {"n_layers": 6, "n_relations": 6, "prompts_each": 2}


def p_answer(made, prompt, *hooks):
    """The probability of a prompt's answer in a whole pass of TransformerLens with hooks."""
    ids = made.model.to_tokens(prompt.text)
    with torch.no_grad():
        logits = made.model.run_with_hooks(ids, fwd_hooks=list(hooks))[0, -1]
    answer = made.model.tokenizer(prompt.answers[0], add_special_tokens=False)["input_ids"][0]
    return float(logits.softmax(-1)[answer])


def without(head):
    """A hook that takes what a head writes at the last token."""

    def zeroed(z, hook):
        z[0, -1, head[1]] = 0
        return z

    return f"blocks.{head[0]}.attn.hook_z", zeroed


@pytest.mark.parametrize("shape", ["llama", "gpt2"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_sure_of_its_answers(variant, shape):
    made = planted(variant, shape=shape, seed=3, **SMALL)
    assert len(made.prompts) == 12
    sure = [p_answer(made, prompt) for prompt in made.prompts]
    assert min(sure) > 0.5


@pytest.mark.parametrize("shape", ["llama", "gpt2"])
def test_the_output_needs_the_heads_that_were_planted_and_no_others(shape):
    made = planted("plain", shape=shape, seed=1, **SMALL)
    heads = [(layer, head) for layer in range(6) for head in range(4)]
    clean = p_answer(made, made.prompts[0])
    drops = {one: clean - p_answer(made, made.prompts[0], without(one)) for one in heads}
    first, second = sorted(drops, key=drops.get)[::-1][:2]
    assert {first, second} == {made.reads[0], made.relation}
    others = [drop for one, drop in drops.items() if one not in (first, second)]
    assert drops[second] > 0.3 > 0.1 > max(others)


def test_a_backup_reads_only_where_the_first_head_did_not():
    made = planted("backup", seed=2, **SMALL)
    prompt, (first, second) = made.prompts[0], made.reads
    clean = p_answer(made, prompt)
    assert p_answer(made, prompt, without(first)) > clean - 0.1
    assert p_answer(made, prompt, without(second)) > clean - 0.1
    assert p_answer(made, prompt, without(first), without(second)) < clean - 0.3
    (at,) = kg.token_positions(prompt, "subject_last", made.model)
    seen = []

    def keep(pattern, hook):
        seen.append(float(pattern[0, second[1], -1, at]))

    watched = f"blocks.{second[0]}.attn.hook_pattern", keep
    p_answer(made, prompt, watched)
    p_answer(made, prompt, watched, without(first))
    assert seen[0] < 0.2 < 0.8 < seen[1]


def test_a_decoy_looks_at_the_subject_and_is_not_read():
    made = planted("decoy", seed=4, **SMALL)
    prompt = made.prompts[0]
    (at,) = kg.token_positions(prompt, "subject_last", made.model)
    _, cache = made.model.run_with_cache(prompt.text)
    layer, head = made.decoy
    assert cache["pattern", layer][0, head, -1, at] > 0.8
    assert abs(p_answer(made, prompt) - p_answer(made, prompt, without(made.decoy))) < 0.1


def test_subjects_are_swapped_for_others_of_their_length():
    made = planted("plain", **SMALL)
    lengths = set()
    for prompt in made.prompts:
        at = [kg.token_positions(one, "subject", made.model) for one in (prompt, prompt.swap)]
        assert at[0] == at[1]
        assert prompt.answers != prompt.swap.answers
        lengths.add(len(at[0]))
    assert lengths == {1, 2}


def test_a_seed_draws_the_same_model():
    one, same, other = (planted("plain", seed=seed, **SMALL) for seed in (5, 5, 6))
    weights = [made.model.original_model.state_dict() for made in (one, same, other)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert any(not torch.equal(value, weights[2][name]) for name, value in weights[0].items())


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"variant": "plainer"}, "plain"),
        ({"shape": "mamba"}, "llama"),
        ({"n_layers": 5}, "n_layers"),
        ({"n_heads": 1}, "n_heads"),
        ({"prompts_each": 5}, "prompts_each"),
        ({"n_relations": 1}, "n_relations"),
        ({"leak": -1}, "leak"),
        ({"leak": float("nan")}, "leak"),
        ({"leak": 50.0}, "drowns the mechanism"),
    ],
)
def test_impossible_models_are_refused(given, said):
    with pytest.raises(kg.InputError, match=said):
        planted(**{"variant": "plain", **SMALL, **given})
