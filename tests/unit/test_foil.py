"""Foils: what a prompt may have, their token, and the measures that read it, in a sweep."""

import json
import math
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from transformers import BatchEncoding

import knockgrid as kg
from knockgrid.divergences import logit_diff, p_change
from knockgrid.engine.answers import Answer
from knockgrid.engine.foils import check_foils, first_foils
from knockgrid.figures import contrast_curves
from knockgrid.passes.prepared import Prepared
from knockgrid.prompts.data import prompt_as_data, prompt_from_data
from knockgrid.prompts.positions import Tokens
from knockgrid.reports.methods import methods
from knockgrid.reports.opened import opened
from knockgrid.reports.payload import payload
from knockgrid.table.table import build

ALL = ["logit_diff", "recovered", "p_change"]
TEXT = "The capital of France is"


@pytest.fixture(scope="module")
def france():
    """A prompt with an answer, a foil and a partner of its own length."""
    italy = kg.Prompt("The capital of Italy is", spans={"subject": "Italy"}, id="italy")
    return kg.Prompt(
        TEXT, spans={"subject": "France"}, answers=["Paris"], foil="Rome", swap=italy, id="france"
    )


# The field of a prompt


def test_a_foil_is_trimmed_and_travels():
    prompt = kg.Prompt(TEXT, answers=["Paris"], foil=" Rome\n")
    assert prompt.foil == "Rome"
    assert prompt_as_data(prompt)["foil"] == "Rome"
    assert prompt_from_data(prompt_as_data(prompt)) == prompt
    assert "Rome" in prompt._repr_html_()
    assert prompt.id == kg.Prompt(TEXT, answers=["Paris"]).id


def test_prompts_without_a_foil_keep_their_digest():
    assert "foil" not in prompt_as_data(kg.Prompt(TEXT, answers=["Paris"]))


@pytest.mark.parametrize(
    ("foil", "words"),
    [
        (" ", "the foil of 'The capital of France is' is ' ', empty; leave it out"),
        ("PARIS ", "is 'PARIS', which is one of its answers; give a wrong answer"),
        ("a\0", "NUL"),
    ],
)
def test_a_foil_that_is_none(foil, words):
    with pytest.raises(kg.InputError, match=words):
        kg.Prompt(TEXT, answers=["Lutetia", "Paris"], foil=foil)


def test_prompt_files_have_a_column_for_it(tmp_path):
    (tmp_path / "some.csv").write_text("text,answer,foil\nA is,b,c\nD is,e,\n")
    prompts = kg.read_prompts(tmp_path / "some.csv")
    assert [one.foil for one in prompts] == ["c", None]
    (tmp_path / "odd.csv").write_text("text,answer,foil\nA is,b,B\n")
    with pytest.raises(kg.InputError, match="odd.csv.*'B', which is one of its answers"):
        kg.read_prompts(tmp_path / "odd.csv")


# Its token


@pytest.mark.parametrize(
    ("answers", "foil", "words"),
    [
        (["France"], "Frances", "answer 'France' and foil 'Frances' .* begin with the same token"),
        ([], "Rome", "has the foil 'Rome' and no answer, and logit_diff compares the two"),
    ],
)
def test_what_is_refused_before_anything_runs(sweep, telling, answers, foil, words):
    prompt = kg.Prompt(TEXT, spans={"subject": "France"}, answers=answers, foil=foil)
    rows = kg.patch("resid_post", "subject", kg.zero())
    with pytest.raises(kg.InputError, match=words):
        sweep(prompt, rows, layers=[0], metrics=["logit_diff"], executor=telling)
    assert not telling.logits
    sweep(prompt, rows, layers=[0], metrics=["js", "p_change"])  # which read no foil


class Characters:
    """A tokenizer of single characters, in which a space is a token."""

    is_fast = True

    def __call__(self, text, **_):
        ids, at = list(map(ord, text)), [(i, i + 1) for i in range(len(text))]
        return BatchEncoding({"input_ids": ids, "offset_mapping": at})

    def decode(self, ids):
        return "".join(map(chr, ids))


def test_a_separator_that_is_a_token_leaves_nothing_to_tell_apart():
    """Japanese behind English: the model chooses between a space, which both begin with, and none.

    Nothing can be refused before the model has chosen.
    """
    prompt = kg.Prompt("The capital is", answers=["東京"], foil="京都")
    ids = tuple(map(ord, prompt.text))
    offsets = tuple((i, i + 1) for i in range(len(ids)))
    one = Prepared(prompt, Tokens(ids, offsets, 0))
    check_foils(Characters(), [one], [logit_diff])
    bare, spaced = Answer("", (ord("東"),)), Answer(" ", (ord(" "), ord("東")))
    assert first_foils(Characters(), [one], [bare], [logit_diff]) == [ord("京")]
    assert first_foils(Characters(), [one], [spaced], [p_change]) == [-1]
    with pytest.warns(UserWarning, match="of 1 prompts .*'京都'.*no value there"):
        assert first_foils(Characters(), [one], [spaced], [logit_diff]) == [-1]


@contextmanager
def put(blocks, layer, at, states):
    """What a block puts out at some positions, replaced by a raw hook of PyTorch's."""

    def replace(_, __, out):
        hidden = (out if torch.is_tensor(out) else out[0]).clone()
        hidden[0, at] = states
        return hidden if torch.is_tensor(out) else (hidden, *out[1:])

    handle = blocks[layer].register_forward_hook(replace)
    yield
    handle.remove()


def kept(blocks, layer, run):
    """What a block puts out in a plain run, `[pos, d_model]`, and the logits behind the prompt."""
    found = []
    handle = blocks[layer].register_forward_hook(
        lambda _, __, out: found.append((out if torch.is_tensor(out) else out[0])[0])
    )
    logits = run()
    handle.remove()
    return found[0], logits


def apart(logits, tokens):
    """Logit of the answer minus that of the foil."""
    return float(logits[tokens[0]] - logits[tokens[1]])


def test_the_foil_has_the_separator_of_the_answer(sweep, plain, tiny_tokenizer):
    """The first tokens of " Italy" and "Italy" differ: which is read depends on the answer's."""
    text = 'The capital of "'
    prompt = kg.Prompt(text, spans={"subject": "capital"}, answers=["France"], foil="Italy", id="q")
    row = kg.patch("resid_post", "subject_last", kg.zero())
    table = sweep(prompt, row, layers=[1], metrics=["logit_diff"])
    (side,) = table.attrs["knockgrid"]["prompts"]
    own = tiny_tokenizer(text)["input_ids"]
    firsts = {
        sep: [tiny_tokenizer(text + sep + w)["input_ids"][len(own)] for w in ("France", "Italy")]
        for sep in ("", " ")
    }
    assert len({token for two in firsts.values() for token in two}) == 4
    with put(plain.model.layers, 1, side["subject_tokens"][-1], 0.0):
        logits = plain(torch.tensor([own])).logits[0, -1]
    expected = {sep: apart(logits, two) for sep, two in firsts.items()}
    assert abs(expected[""] - expected[" "]) > 1e-3
    assert table.logit_diff[0] == pytest.approx(expected[side["separator"]], abs=1e-10)


# The measures in a sweep, against raw hooks on the plain model


@pytest.fixture(params=["llama", "gpt2"])
def host(request, plain_of, ids_of):
    """A bridge, the blocks of the same plain model, and its logits behind a text."""
    bridge = request.getfixturevalue(f"tiny_{request.param}")
    plain = plain_of(bridge)
    blocks = plain.model.layers if request.param == "llama" else plain.transformer.h
    return bridge, blocks, lambda text: plain(ids_of(text)).logits[0, -1]


@pytest.mark.parametrize("executor", ["reference", "staircase", "rectangle"])
@pytest.mark.parametrize("direction", ["noising", "denoising"])
def test_one_patched_cell(sweep, host, france, tiny_tokenizer, direction, executor):
    """A state of the partner's run goes into the clean one, or the other way round."""
    bridge, blocks, of = host
    tokens = tiny_tokenizer(" Paris Rome", add_special_tokens=False)["input_ids"]
    row = kg.patch("resid_post", "subject", kg.corrupted_run(by=kg.swap()))
    options = {"metrics": ALL, "direction": direction, "executor": executor}
    table = sweep(france, row, bridge, layers=[1], **options)
    (side,) = table.attrs["knockgrid"]["prompts"]
    at = side["subject_tokens"]
    clean_states, clean = kept(blocks, 1, lambda: of(france.text))
    states, corrupted = kept(blocks, 1, lambda: of(france.swap.text))
    base, given = (france, states) if direction == "noising" else (france.swap, clean_states)
    with put(blocks, 1, at, given[at]):
        edited = of(base.text)
    x, most, least = (apart(run, tokens) for run in (edited, clean, corrupted))
    p, q = (run.softmax(-1)[tokens[0]] for run in (clean, edited))
    assert abs(most - least) > 0.1
    assert min(abs(x - most), abs(x - least)) > 1e-3
    (got,) = table.itertuples()
    assert got.logit_diff == pytest.approx(x, abs=1e-10)
    assert got.recovered == pytest.approx((x - least) / (most - least), abs=1e-10)
    assert got.p_change == pytest.approx(float(100 * (q - p) / p), abs=1e-10)


def test_the_ends_of_what_is_recovered(sweep, france):
    """The last layer's last token decides all: 0 where it is the corrupted run's, 1 where clean."""
    row = kg.patch("resid_post", "last", kg.corrupted_run(by=kg.swap()))
    for direction, end in (("noising", 0.0), ("denoising", 1.0)):
        table = sweep(france, row, layers=[3], metrics=ALL, direction=direction)
        assert table.recovered[0] == pytest.approx(end, abs=1e-10)


def test_every_sample_has_its_own_corrupted_run(sweep, telling, france, tiny_tokenizer):
    """Of noise, three draws: the mean of three shares; and a row without a source beside it."""
    noisy = kg.corrupted_run(by=kg.noise(10.0))
    rows = [kg.patch("resid_post", at, noisy) for at in ("subject", "last")] + [kg.knockout()]
    tokens = tiny_tokenizer(" Paris Rome", add_special_tokens=False)["input_ids"]
    options = {"layers": [1, 3], "metrics": ["js", *ALL], "samples": 3}
    table = sweep(france, rows, executor=telling, **options)
    name = rows[0].name
    corrupted = [telling.logits["france", rows[1].name, 3, i][0] for i in range(3)]
    clean = apart(telling.null["france", name, 1, 0][0], tokens)
    shares = []
    for i, other in enumerate(corrupted):
        x, least = apart(telling.logits["france", name, 1, i][0], tokens), apart(other, tokens)
        shares.append((x - least) / (clean - least))
    assert max(shares) - min(shares) > 1e-3
    got = table.set_index(["intervention", "layer"])
    assert got.recovered[name, 1] == pytest.approx(sum(shares) / 3, abs=1e-9)
    assert got.recovered[rows[2].name].isna().all()
    assert got.logit_diff[rows[2].name].notna().all()
    assert (got.status == "ok").all()
    stairs = sweep(france, rows, executor="staircase", **options)
    for metric in ALL:
        one, other = stairs[metric].to_numpy(), table[metric].to_numpy()
        assert one == pytest.approx(other, abs=1e-9, nan_ok=True)
    assert kg.grid(table, "recovered").shape == (3, 2)


def test_later_tokens_and_prompts_without_a_foil_have_no_value(sweep, france):
    bare = france.replace(foil=None, id="bare")
    row = kg.patch("resid_post", "subject", kg.corrupted_run(by=kg.swap()))
    table = sweep([france, bare], row, layers=[1], metrics=ALL, n_tokens=2)
    assert (table.status == "ok").all()
    has = (table.prompt == "france") & (table.token == 0)
    for metric in ("logit_diff", "recovered"):
        assert table[metric].notna().tolist() == has.tolist()
    assert table.p_change.notna().tolist() == (table.token == 0).tolist()
    assert [side["foil"] for side in table.attrs["knockgrid"]["prompts"]] == ["Rome", None]


def test_clean_and_corrupted_alike_have_nothing_to_recover(sweep, france):
    row = kg.patch("resid_post", "subject", kg.donor(france))
    table = sweep(france, row, layers=[1], metrics=ALL)
    assert math.isnan(table.recovered[0])
    assert table.logit_diff.notna().all()
    assert table.p_change[0] == pytest.approx(0.0, abs=1e-9)


# What is kept, told and drawn of them


@pytest.fixture(scope="module")
def told(tmp_path_factory, tiny_folder, france):
    """A run folder of the three measures, swept by the shell from a file of prompts."""
    home = tmp_path_factory.mktemp("told")
    rows = [{**prompt_as_data(one), "swap": None} for one in (france, france.swap)]
    rows[0]["swap"] = "italy"
    file, out = home / "prompts.jsonl", home / "run"
    file.write_text("\n".join(map(json.dumps, rows)))
    words = ["sweep", "--model", tiny_folder, "--prompts", file, "--all", "--source", "swap"]
    code = "import sys; from knockgrid.cli.app import main; main()"
    words += [word for metric in ("js", *ALL) for word in ("--metric", metric)]
    words += ["--out", out, "--dtype", "float64", "--no-noise-floor"]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_a_run_folder_keeps_them_and_is_verified(told):
    table = kg.open_run(told)
    has = table[table.prompt == "france"]
    assert has.logit_diff.notna().all()
    assert has[has.intervention == "subject"].recovered.notna().all()
    assert table[table.prompt == "italy"].logit_diff.isna().all()
    assert [side["foil"] for side in table.attrs["knockgrid"]["prompts"]] == ["Rome", None]
    found = kg.verify(told)
    assert not found.mismatches
    assert any("against the reference executor" in line for line in found.checked)


def test_verify_computes_them_anew(told, monkeypatch):
    """A foil that was lost leaves no value."""
    from knockgrid.runs import verification

    monkeypatch.setattr(
        verification, "prompt_from_data", lambda data: prompt_from_data({**data, "foil": None})
    )
    found = kg.verify(told)
    assert any("logit_diff is" in line and "nan anew" in line for line in found.mismatches)


def test_the_methods_paragraph_names_and_cites_them(told):
    said = methods(told)
    for part in (
        "the logit of the answer minus that of a foil in the edited run (logit\\_diff)",
        "the share of the logit difference that is recovered (recovered)",
        "change of the answer's probability in percent of the clean one (p\\_change)",
        "wrong answer, which 1 of 2 prompts has",
        "not taken where these are less than 0.1 logits apart",
        "@article{wang2022,",
        "@article{zhang2023,",
        "@article{zhang2024,",
    ):
        assert part in said, said


def test_the_report_has_a_scale_of_two_sides_for_them(told):
    signed = {one["name"]: one["signed"] for one in payload(opened(told))["metrics"]}
    assert signed == {"js": False, "js_to_source": False} | dict.fromkeys(ALL, True)


def test_heatmaps_of_them_are_white_at_0(told):
    table = kg.open_run(told)
    for metric in ALL:
        mesh = kg.layer_heatmap(table, metric=metric).collections[0]
        low, high = mesh.get_clim()
        assert low == -high < 0
        assert high == pytest.approx(np.nanmax(np.abs(kg.grid(table, metric).to_numpy())))
        assert min(mesh.cmap(0.5)[:3]) > 0.99
    own = kg.layer_heatmap(table, metric="logit_diff", cmap="Greys", limits=(-1, 3)).collections[0]
    assert (own.get_clim(), own.cmap.name) == ((-1, 3), "Greys")
    js = kg.layer_heatmap(table, metric="js").collections[0]
    assert (js.get_clim()[0], js.cmap.name) == (0.0, "Blues")
    label = kg.layer_curve(table, metric="p_change").get_ylabel()
    assert label == "Avg. change of p(answer) (%)"
    assert "p_change in percent" in str(kg.summary(table))


def test_contrasts_below_0_are_not_cut_off():
    described = [
        {"name": "subject", "role": "treatment", "of": None},
        {"name": "subject | bos", "role": "contrast", "of": "subject"},
    ]
    row = {"prompt": "rome", "layer": 0, "logit_diff": -2.0}
    rows = [{**row, "intervention": one["name"]} for one in described]
    figure = contrast_curves(build(rows, {"interventions": described}), "logit_diff")
    assert figure.axes[0].get_ylim()[0] < -2


def test_a_measure_of_ones_own_reads_them(sweep, france):
    """And says what it needs: rows without have no value, and no measure of it is refused."""

    def share(pair):
        return pair.intervened.logp_of(pair.foil) - pair.corrupted.logp_of(pair.foil)

    mine = kg.Divergence("mine", "mine", share, None, False, ("foil", "source"), lower=None)
    rows = [kg.patch("resid_post", "last", kg.corrupted_run(by=kg.swap())), kg.knockout()]
    table = sweep(france, rows, layers=[0, 3], metrics=[mine], n_tokens=2)
    assert table[table.token == 1].mine.isna().all()  # the foil stands behind the prompt alone
    table = table[table.token == 0]
    got = table.set_index(["intervention", "layer"]).mine
    assert got[rows[0].name, 3] == pytest.approx(0.0, abs=1e-12)
    assert abs(got[rows[0].name, 0]) > 1e-4
    assert got[rows[1].name].isna().all()
    assert kg.grid(table, "mine").shape == (2, 2)
    for needs, words in (("foil", "give a tuple of 'answer'"), (("foils",), "mean 'foil'")):
        with pytest.raises(kg.InputError, match=words):
            kg.Divergence("mine", "mine", share, needs=needs)
