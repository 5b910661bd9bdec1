"""Patches at the states that write token k of a free run, against plain loops with raw hooks."""

import json
from functools import partial

import pytest
import torch

import knockgrid as kg
from knockgrid.engine.answers import decode_output
from knockgrid.engine.sampled import drawn, uniform_draws
from knockgrid.reports.methods import methods

T, RUNS, N, LAYER = 1.3, 3, 5, 1
PROMPT = kg.Prompt(
    "The Eiffel Tower is located in", spans={"subject": "Eiffel Tower"}, id="tower", answers=["the"]
)
SAME = kg.Prompt(PROMPT.text, continuation=" the city of Rome, and Paris is", id="same")
OTHER = kg.Prompt("The capital of Italy is", continuation=" Rome, the city of Paris.", id="other")
FREE = {"mode": "free_run", "n_tokens": N, "temperature": T, "layers": [LAYER], "progress": False}


def at(place, donor=SAME, **more):
    return kg.patch("resid_post", place, kg.donor(donor, **more), name="row")


def ids_of(model, text):
    return [1, *model.tokenizer(text, add_special_tokens=False)["input_ids"]]


def state_of(output):
    return output if torch.is_tensor(output) else output[0]


def states(raw, model, donor):
    """The states after a block over the text of a donor, from the last token of its prompt on."""
    kept = []
    handle = raw.model.layers[LAYER].register_forward_hook(
        lambda module, args, output: kept.append(state_of(output)[0].clone())
    )
    with torch.no_grad():
        raw(torch.tensor([ids_of(model, donor.whole)]), use_cache=False)
    handle.remove()
    return kept[0][len(ids_of(model, donor.text)) - 1 :]


def text_of(raw, ids, put, number):
    """One text, drawn by hand or greedily, with states `put` {step: state} wherever they are."""
    n_prompt = len(ids)

    def hook(module, args, output):
        out = state_of(output).clone()
        for step, state in put.items():
            if n_prompt - 1 + step < out.shape[1]:
                out[0, n_prompt - 1 + step] = state
        return out if torch.is_tensor(output) else (out, *output[1:])

    handle = raw.model.layers[LAYER].register_forward_hook(hook)
    draws = None if number is None else uniform_draws(0, PROMPT, number, N)
    for step in range(N):
        with torch.no_grad():
            logits = raw(torch.tensor([ids]), use_cache=False).logits[:, -1]
        own = logits.argmax(-1) if draws is None else drawn(logits, T, draws[step])
        ids = [*ids, int(own)]
    handle.remove()
    return ids[n_prompt:]


WINDOW = [f"last+{k}" for k in (1, 2, 3)]
CASES = {
    "step 0": ("last+0", OTHER, {}, {0: 0}),
    "step 2": ("last+2", SAME, {}, {2: 2}),
    "window": (WINDOW, SAME, {}, {1: 1, 2: 2, 3: 3}),
    "random prompt": (WINDOW, OTHER, {}, {1: 1, 2: 2, 3: 3}),
    "later step": ("last", OTHER, {"pos": "last+3"}, {0: 3}),
    "earlier step": ("last+3", SAME, {"pos": "last"}, {3: 0}),
}


@pytest.mark.parametrize("executor", ["auto", "reference"])
@pytest.mark.parametrize("case", CASES)
def test_texts_are_those_of_a_plain_loop(tiny_llama, plain_of, case, executor):
    pos, donor, more, moved = CASES[case]
    raw, ids = plain_of(tiny_llama), ids_of(tiny_llama, PROMPT.text)
    theirs = states(raw, tiny_llama, donor)
    put = {to: theirs[of] for to, of in moved.items()}
    decode = partial(decode_output, tiny_llama.tokenizer)
    options = {**FREE, "executor": executor}
    table = kg.sweep(tiny_llama, PROMPT, at(pos, donor, **more), sampled_runs=RUNS, **options)
    own = [text_of(raw, ids, put, i) for i in range(RUNS)]
    assert json.loads(table["written"].iloc[0]) == [decode(text) for text in own]
    assert own != [text_of(raw, ids, {}, i) for i in range(RUNS)]
    greedy = kg.sweep(tiny_llama, PROMPT, at(pos, donor, **more), **options)
    assert greedy["written"].iloc[0] == decode(text_of(raw, ids, put, None))


def test_a_state_moves_its_token_and_none_before(tiny_llama, nothing):
    family = kg.per_position(at("last"), [f"last+{k}" for k in range(4)])
    table = kg.sweep(tiny_llama, PROMPT, family, sampled_runs=RUNS, **FREE)
    assert table["token"].tolist() == [0, 1, 2, 3]
    assert (table["js"] > 1e-9)[1:].all()
    grid = kg.grid(table, "flipped", rows="position")
    assert grid.index.tolist() == [f"last+{k}" for k in range(4)]
    late = kg.sweep(tiny_llama, PROMPT, at("last+2"), sampled_runs=RUNS, **FREE)
    assert late["js"][:2].max() <= nothing
    assert (late["js"][2:] > 1e-9).all()


def test_its_own_states_change_nothing(tiny_llama):
    """Those of the greedy text, step by step and in a window, in the greedy text."""
    rows = [kg.patch("resid_post", at, kg.donor(PROMPT), name=str(at)) for at in ("last+2", WINDOW)]
    table = kg.sweep(tiny_llama, PROMPT, rows, **FREE)
    assert table["js"].max() < 1e-12
    assert table["diverged"].isna().all()


def test_a_shorter_donor_serves_the_steps_that_it_has(tiny_llama):
    short = kg.Prompt(PROMPT.text, continuation=" the city", id="short")
    table = kg.sweep(tiny_llama, PROMPT, at("last+1", short), **FREE)
    n = len(ids_of(tiny_llama, short.whole)) - len(ids_of(tiny_llama, short.text))
    assert 1 < n + 1 < N
    assert table["js_to_source"].notna().tolist() == [token <= n for token in range(N)]
    assert table["js_to_source"][1] < 1e-12 + table["js"][1]


def test_a_folder_keeps_and_verifies_them(tiny_llama, tmp_path):
    rows = [kg.patch("resid_post", WINDOW, kg.zero(), name="zero"), at("last+1")]
    kg.sweep(tiny_llama, [PROMPT], rows, sampled_runs=2, out=tmp_path / "run", **FREE)
    found = kg.verify(tmp_path / "run", model=tiny_llama, cells=9)
    assert found.ok, found.mismatches
    assert "'last+k' is the state that writes token k" in methods(tmp_path / "run")
    kg.report(tmp_path / "run")


NOISE = kg.patch("resid_post", "last+1", kg.sources.noise(1))
CORRUPTED = kg.patch("resid_post", "last+1")


@pytest.mark.parametrize(
    ("row", "options", "said"),
    [
        (at("last+1"), {"mode": "persistent"}, "none is written here; give mode='free_run'"),
        (at("last", pos="last+1"), {"mode": "persistent"}, "give mode='free_run'"),
        (at("last+5"), {}, "give n_tokens=6 or more"),
        (at("last", pos="last+5"), {}, "give n_tokens=6 or more"),
        (at("last+1", OTHER.replace(continuation=None)), {}, "has 0 tokens after its prompt"),
        (at(["last+1", "last"]), {}, "mixes the prompt with the text"),
        (NOISE, {}, "knows the clean text"),
        (CORRUPTED, {}, "use donor.., zero.. or fixed"),
        (kg.knockout("last+1", "subject"), {}, "only patches can be"),
        (kg.joint([at("last"), at("last+1")]), {}, "only patches can be"),
        (kg.patch("resid_post", "last+x", kg.zero()), {}, "unknown position 'last.x'"),
        (kg.per_position(at("last"), ["first_answer"]), {}, "or a place of the text"),
    ],
)
def test_what_has_no_state_there_is_refused(tiny_llama, row, options, said):
    with pytest.raises(kg.InputError, match=said):
        kg.sweep(tiny_llama, PROMPT, row, **{**FREE, **options})


def test_probes_have_no_text_of_their_own(tiny_llama):
    with pytest.raises(kg.InputError, match="none is written here"):
        kg.evidence.probe_auc(tiny_llama, [PROMPT], ["last+1"], layers=[0])


def test_a_dry_run_counts_them(tiny_llama):
    from knockgrid.runs.estimate import count

    found = count(PROMPT, [at(WINDOW)], tiny_llama.tokenizer, True)
    assert found.starts == (found.length - 1,)
