"""The cells of the grids: families of heads, modules, positions, doses, paths; each kind alone."""

import pytest
import torch
from agree import assert_agree, bound, compare, fast
from families import DENSE
from mixtures import BY_NAME

import knockgrid as kg
from knockgrid.engine.executors.free_run import FreeRun

NAMES = ("GPT-2", "GPT-NeoX, Pythia", "BLOOM", "Llama", "Mistral", "Gemma 2", "Phi-3")
FEW = [family for family in DENSE if family.name in NAMES]
few = pytest.mark.parametrize("family", FEW, ids=lambda family: family.name)
OTHER_LENGTH = 1e-8  # a softmax of TransformerLens is float32 inside


def everything(model):
    """One member or more of every family that a grid is made of."""
    return [
        *kg.per_head(kg.knockout(window=1, name="k"), [0, 3]),
        *kg.per_head(kg.edge_patch(window=1, name="e"), [0, 3]),
        *kg.per_head(kg.patch("z", "last"), [0, 3]),
        *kg.per_module(model, "subject", kg.zero()),
        *kg.edits.per_alpha(kg.patch("resid_post", "subject", name="d"), [0.25, 0.5]),
        *kg.edits.per_window(kg.knockout(name="w"), ["all_but", "from", "up_to", 3]),
        *kg.edits.paths(),
    ]


def test_seven_families_are_tried():
    assert len(FEW) == len(NAMES)


@few
def test_every_cell_of_a_grid_is_that_of_the_reference(family, boot, prompts):
    model = boot(family)
    # q and k act through attention alone, and at the subject only through later queries
    found = compare(model, fast(family), prompts, everything(model))
    assert_agree(found, max(family.within, OTHER_LENGTH), 1e-12)


ANSWER = ("last_q", "first_answer", "second_answer", "-1", "subject_last")


@few
def test_places_in_the_answer_are_those_of_the_reference(family, boot, prompts):
    family_of = kg.per_position(kg.patch("resid_post", "last", kg.zero()), ANSWER)
    found = compare(boot(family), fast(family), prompts, family_of, n_tokens=4)
    assert_agree(found, max(family.within, OTHER_LENGTH), 1e-9)


def stepwise(model, ids, hooks_at, n):
    """Greedy tokens and logits of a model under hooks, every step a whole forward without cache."""
    logits = []
    for _ in range(n):
        with torch.no_grad():
            out = model.run_with_hooks(ids, fwd_hooks=hooks_at(ids.shape[1]))[0, -1]
        logits.append(out)
        ids = torch.cat([ids, out.argmax()[None, None]], dim=1)
    return torch.stack(logits), ids[0, -n:].tolist()


def blocked(src, n_prompt, layer):
    """TransformerLens hooks that forbid the last prompt token and all later ones to see `src`."""

    def hooks_at(length):
        def block(scores, hook):
            scores[:, :, n_prompt - 1 : length, src] = torch.finfo(scores.dtype).min
            return scores

        return [(f"blocks.{layer}.attn.hook_attn_scores", block)]

    return hooks_at


def patched(pos, layer):
    """TransformerLens hooks that put zeros at a prompt position."""

    def hooks_at(length):
        def put(resid, hook):
            resid[:, pos] = 0
            return resid

        return [(f"blocks.{layer}.hook_out", put)]

    return hooks_at


@few
@pytest.mark.parametrize("cached", [True, False])
def test_free_run_is_a_step_by_step_run_without_any_cache(family, cached, boot, prompts):
    model, prompt, n = boot(family), prompts[0], 4
    rows = [kg.knockout(window=1), kg.patch("resid_post", "subject_last", kg.zero())]
    (batch,) = bound(model, [prompt], rows, n_tokens=n, persistent=True)
    src = list(kg.token_positions(prompt, "subject", model, True))
    length, seen = batch.runs[0].n_prompt, set()
    ids = batch.runs[0].ids[None, :length]
    for outcome in FreeRun(cached=cached)(model, batch.runs, batch.cells):
        one, layer = outcome.cell.intervention, outcome.cell.layer
        knocked = one.edges is not None
        hooks_at = blocked(src, length, layer) if knocked else patched(src[-1], layer)
        logits, tokens = stepwise(model, ids, hooks_at, n)
        assert outcome.generated == tuple(tokens)
        torch.testing.assert_close(outcome.logits, logits, rtol=0, atol=1e-5)
        seen.add((one.name, tuple(tokens) != batch.clean[0].generated))
    # in a short sliding window the last token cannot see the subject
    assert len({name for name, _ in seen}) == 2 - (family.name == "Mistral")
    assert family.name == "Mistral" or any(diverged for _, diverged in seen)


def test_free_run_edge_patches_hold_at_every_step(boot, prompts):
    """Cached and uncached steps agree, and token 0 is that of the other modes."""
    model, rows = boot(BY_NAME["Llama"]), [kg.edge_patch(window=5)]
    (batch,) = bound(model, prompts[:1], rows, n_tokens=4, persistent=True)
    with_cache, without = (
        {o.cell.index: o for o in FreeRun(cached=cached)(model, batch.runs, batch.cells)}
        for cached in (True, False)
    )
    held = {o.cell.index: o for o in kg.executors.reference(model, batch.runs, batch.cells)}
    for index, outcome in with_cache.items():
        assert outcome.generated == without[index].generated
        torch.testing.assert_close(outcome.logits, without[index].logits, rtol=0, atol=1e-6)
        torch.testing.assert_close(outcome.logits[0], held[index].logits[0], rtol=0, atol=1e-6)
        assert (outcome.logits[0] - outcome.null[0]).abs().max() > 1e-3


def test_free_run_refuses_a_cache_that_lies(boot, prompts, monkeypatch):
    """The unedited row of the batch must be the clean run."""
    model = boot(BY_NAME["Llama"])
    (batch,) = bound(model, prompts[:1], [kg.knockout()], n_tokens=3, persistent=True)
    batch.runs[0].logits[1] += torch.linspace(0, 1, batch.runs[0].logits.shape[-1])
    with pytest.raises(kg.InputError, match="generating prompt 'rome' step by step is .* in JS"):
        list(kg.executors.free_run(model, batch.runs, batch.cells))
