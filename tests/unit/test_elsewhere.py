"""Where contrasts lie: random tokens, and runs that are corrupted elsewhere than at the subject."""

import json
import subprocess
import sys

import pytest
import torch

import knockgrid as kg
from knockgrid.sources.source import normal

SUBJECT = {"france": (4,), "italy": (4,), "tower": (1, 2, 3)}


# random tokens


def places(text, subject, at, tokenizer, bos=True, **more):
    prompt = kg.Prompt(text, spans={"subject": subject}, **more)
    return kg.token_positions(prompt, at, tokenizer, prepend_bos=bos)


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("The official language of Brazil is Portuguese.", "Brazil"),
        ("The city of the Eiffel Tower in the North of France is located in the", "Eiffel Tower"),
    ],
)
def test_random_tokens_are_as_many_and_others(tiny_tokenizer, bos, text, subject):
    given = places(text, subject, "subject", tiny_tokenizer, bos)
    every = places(text, subject, "all", tiny_tokenizer, bos)
    allowed = set(every[int(bos) : -1]) - set(given)
    seen = set()
    for i in range(60):
        at = places(text, subject, "random", tiny_tokenizer, bos, id=str(i))
        assert len(at) == len(given)
        assert list(at) == sorted(set(at))
        assert set(at) <= allowed
        assert at == places(text, subject, "random", tiny_tokenizer, bos, id=str(i))
        seen |= set(at)
    assert seen == allowed


def test_random_tokens_where_there_are_fewer(tiny_tokenizer):
    text, subject = "The Eiffel Tower is located", "Eiffel Tower is"
    every = places(text, subject, "all", tiny_tokenizer)
    of = places(text, subject, "subject", tiny_tokenizer)
    expected = sorted(set(every[1:-1]) - set(of))
    assert 0 < len(expected) < len(of)
    assert list(places(text, subject, "random", tiny_tokenizer)) == expected
    assert places("Rome is", "Rome", "random", tiny_tokenizer) == ()


def test_random_tokens_are_the_same_in_another_process():
    code = """
import json
from knockgrid.prompts.positions import Tokens, resolve
from knockgrid.prompts.prompt import Prompt
tokens = Tokens(tuple(range(10)), tuple((2 * i, 2 * i + 1) for i in range(10)), 0)
made = [Prompt("a b c d e f g h i j", spans={"subject": (4, 9)}, id=i) for i in "ä234"]
found = [resolve(p, tokens, "random") for p in made]
"""
    there = code + "print(json.dumps(found))"
    run = subprocess.run([sys.executable, "-c", there], capture_output=True, check=True, text=True)
    exec(code, here := {})
    assert json.loads(run.stdout) == [list(at) for at in here["found"]]
    assert len(set(here["found"])) > 1


def test_random_tokens_of_a_partner_are_those_of_the_prompt(sweep, telling, prompts, outputs):
    """Another id draws other tokens; a swap is exchanged index by index."""
    partners = [prompts[0].replace(id=str(i)) for i in range(8)]
    row = kg.patch("resid_post", "random", kg.corrupted_run(by=kg.swap()), name="p")
    sweep(partners, row, executor=telling, layers=[1])
    seen = set()
    for prompt in partners:
        (edit,) = telling.edits[prompt.id, "p", 1, 0]
        expected = outputs(prompts[2].text)[1, list(edit.pos)]
        torch.testing.assert_close(edit.value, expected, rtol=0, atol=1e-12)
        seen.add(edit.pos)
    assert len(seen) > 1


def test_random_tokens_have_no_counterpart_in_another_form(sweep, prompts):
    # as long, its subject elsewhere
    early = kg.Prompt("The France of capital is", spans={"subject": "France"})
    for other, words in ((prompts[1], "'random' covers 1 tokens .* cannot"), (early, "cannot")):
        row = kg.patch("resid_post", "random", kg.donor(other), name="p")
        with pytest.raises(kg.InputError, match=f"{words} be aligned"):
            sweep(prompts[0], row)


# noise elsewhere


@pytest.mark.parametrize("executor", ["reference", "staircase", "rectangle"])
@pytest.mark.parametrize(
    ("which", "at"),
    [
        *((i, at) for i in (0, 1) for at in ("rest", "random", "bos", ("bos", "subject"))),
        (1, "between"),
    ],
)
def test_a_run_that_is_corrupted_elsewhere(
    sweep, prompts, plain, ids_of, tiny_tokenizer, scipy_js, executor, at, which
):
    """Patched in at every token before block 0, it is the plain model on noisy embeddings."""
    prompt = prompts[which]
    source = kg.corrupted_run(by=kg.noise(2.0, pos=at))
    rows = [kg.patch("resid_pre", "all", source, name="all")]
    rows += [kg.patch("resid_post", "last", source, name="last")]
    table = sweep([prompt, prompts[2]], rows, executor=executor, seed=4)
    sigma = table.attrs["knockgrid"]["sigma"]["subject"]
    embedded = plain.model.embed_tokens.weight
    of = [ids_of(p.text)[0, list(SUBJECT[p.id])] for p in (prompt, prompts[2])]
    assert sigma == pytest.approx(embedded[torch.cat(of)].std().item(), rel=1e-9)
    pos = list(kg.token_positions(prompt, at, tiny_tokenizer, True))
    drawn = normal((len(pos), 32), (4, prompt.id, "embed", 2.0, "subject", 0, at))
    states = plain.model.embed_tokens(ids_of(prompt.text)).clone()
    states[0, pos] += (2.0 * sigma * drawn).double()
    clean = plain(ids_of(prompt.text)).logits[0, -1]
    expected = scipy_js(clean, plain(inputs_embeds=states).logits[0, -1])
    assert expected > 1e-3
    for name, layer in (("all", 0), ("last", 3)):
        cell = table[(table.prompt == prompt.id) & (table.intervention == name)]
        assert float(cell.js[cell.layer == layer].iloc[0]) == pytest.approx(expected, abs=1e-7)


def test_the_noise_of_the_subject_is_what_it_was(prompts):
    """No place, no new label and no new draw."""
    assert kg.noise(3.0).label == "noise(3.0)"
    assert kg.noise(3.0, pos="rest").label == "noise(3.0, pos='rest')"
    both = kg.noise(1, "vocabulary", pos=["bos", "rest"])
    assert both.label == "noise(1.0, scale_from='vocabulary', pos=('bos', 'rest'))"
    specs = [kg.noise(3.0, pos=at).corrupted(prompts[0]) for at in ("subject", "rest", ["rest"])]
    assert len(set(specs)) == 3
    assert specs[0] == kg.noise().corrupted(prompts[0])


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (kg.noise(1.0, pos="rest"), "pos= names the tokens of a corrupted run"),
        (kg.corrupted_run(by=kg.noise(pos="subjekt")), "'subjekt'; did you mean 'subject'"),
    ],
)
def test_noise_elsewhere_is_no_source_of_its_own(sweep, prompts, source, words):
    with pytest.raises(kg.InputError, match=words):
        sweep(prompts, kg.patch("resid_post", "last", source, name="p"))
