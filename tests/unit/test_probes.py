"""Probes of wrong answers: what is fitted, on what, and what the table says."""

import sys

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu, t

import knockgrid as kg
from knockgrid.evidence import out_of_fold as oof
from knockgrid.evidence import probes
from knockgrid.table.table import build

SUBJECTS = "Anna Bruno Carla Dario Elena Franco Gina Hugo Ines Jonas Kurt Luca".split()
RIGHT, WRONG = "the capital of", "a language from"


@pytest.fixture(scope="module")
def facts(tiny_llama, answer_in):
    """Two prompts per subject: the model is right after one phrase and wrong after the other."""

    def prompt(subject, phrase):
        text = f"{subject} is {phrase}"
        spans = {"subject": subject, "phrase": phrase}
        return kg.Prompt(text, spans=spans, answers=["no such word"], id=f"{subject} {phrase}")

    def right(prompt):
        ids = torch.tensor([tiny_llama.tokenizer(prompt.text)["input_ids"]])
        n = ids.shape[1]
        for _ in range(24):
            ids = torch.cat([ids, tiny_llama(ids)[:, -1:].argmax(-1)], dim=1)
        said = tiny_llama.tokenizer.decode(ids[0, n:]).strip()
        return prompt.replace(answers=[answer_in(said)])

    with torch.no_grad():
        return [right(prompt(s, RIGHT)) for s in SUBJECTS] + [prompt(s, WRONG) for s in SUBJECTS]


@pytest.fixture
def probed(tiny_llama, facts):
    """`kg.evidence.probe_auc` on the tiny Llama, silently, in few fits."""

    def run(prompts=facts, positions=("phrase_last",), **options):
        few = {"layers": [3, 0], "seeds": 2, "folds": 3, "n_tokens": 2, "progress": False}
        return kg.evidence.probe_auc(tiny_llama, prompts, list(positions), **{**few, **options})

    return run


@pytest.fixture
def planted():
    """120 prompts of 60 subjects; the first activation shows the label, the others are noise."""
    draw = np.random.default_rng(0)
    incorrect = draw.random(120) < 0.4
    acts = draw.normal(size=(120, 4)).astype(np.float32)
    acts[:, 0] += 8 * incorrect
    return acts, incorrect, np.arange(120) % 60


def test_a_place_that_shows_the_label_is_read_and_one_before_it_is_not(probed, facts):
    """Both prompts of a subject have the same activation there, one of them wrong: exactly 0.5."""
    table = probed(positions=["subject_last", "phrase_last"])
    read = table[table.position == "phrase_last"]
    before = table[table.position == "subject_last"]
    assert (read.auc > 0.95).all()
    np.testing.assert_allclose(before.auc, 0.5, atol=1e-12)
    assert set(table.n_prompts) == {24}
    assert set(table.n_incorrect) == {12}
    said = table.attrs["knockgrid"]
    assert (said["n_correct"], said["n_incorrect"], said["positive_class"]) == (12, 12, "incorrect")
    assert said["incorrect"] == [one.id for one in facts[12:]]
    assert (said["act_name"], said["seeds"], said["folds"]) == ("resid_post", [0, 1], 3)


def test_the_table_has_a_row_per_seed_position_and_layer_and_a_grid(probed, tmp_path):
    table, again = (probed(positions=["phrase_last", "last_q"]) for _ in range(2))
    assert len(table) == 2 * 2 * 2
    assert table.prompt.unique().tolist() == ["seed 0", "seed 1"]
    grid = kg.grid(table, "auc", rows="layer", columns="position")
    assert (list(grid.index), list(grid.columns)) == ([3, 0], ["phrase_last", "last_q"])
    assert (table.status == "ok").all()
    assert again.equals(table)
    kg.runs.write_table(table, tmp_path / "probes.parquet")
    kept = kg.runs.read_table(tmp_path / "probes.parquet")
    assert kept.equals(table)
    assert kept.attrs == table.attrs


def test_labels_are_those_of_known_also_where_an_answer_is_longer_than_the_output(
    probed, facts, tiny_llama
):
    encode = tiny_llama.tokenizer
    lengths = [len(encode(f.answers[0], add_special_tokens=False)["input_ids"]) for f in facts]
    assert 2 < max(lengths) < 20
    known = kg.known(tiny_llama, facts)
    assert {one.id for one in known} == {one.id for one in facts[:12]}
    for n_tokens in (2, 20):
        said = probed(layers=[0], n_tokens=n_tokens).attrs["knockgrid"]
        assert said["incorrect"] == [one.id for one in known.dropped]


def test_as_much_of_an_output_is_judged_whatever_its_batch(probed, facts, tiny_llama):
    """That is what `known` judges: as long as the longest answer of the set, not of a batch."""
    long = facts[0].replace(text=f"So {facts[0].text}", spans={}, id="long", answers=["so " * 12])
    told = {}

    def judge(prompt, text):
        told[prompt.id] = text
        return RIGHT in prompt.text

    probed([*facts, long], positions=["last_q"], judge=judge)
    assert told.items() == kg.known(tiny_llama, [*facts, long]).said.items()
    assert len({len(tiny_llama.tokenizer(one.text)["input_ids"]) for one in [*facts, long]}) > 1


@pytest.mark.parametrize("act_name", ["mlp_out", "z"])
def test_activations_are_those_of_the_model_averaged_over_a_place(
    tiny_llama, facts, monkeypatch, probed, act_name
):
    """Heads lie side by side in one vector."""
    seen, narrowed = [], probes.narrowed
    monkeypatch.setattr(probes, "narrowed", lambda acts: seen.append(acts) or narrowed(acts))
    probed(positions=["phrase", "first_answer"], layers=[2], act_name=act_name)
    every = [torch.tensor([tiny_llama.tokenizer(one.text)["input_ids"]]) for one in facts]
    with torch.no_grad():
        said = [int(tiny_llama(ids)[0, -1].argmax()) for ids in every]
    ends = [one == tiny_llama.tokenizer.eos_token_id for one in said]
    assert [len(acts) for acts in seen] == [len(facts), len(facts) - sum(ends)]
    at = ends.index(False)
    prompt, ids, over_phrase, over_answer = facts[at], every[at], seen[0][at], seen[1][0]
    phrase = kg.token_positions(prompt, "phrase", tiny_llama)
    assert len(phrase) > 1
    with torch.no_grad():
        longer = torch.cat([ids, tiny_llama(ids)[:, -1:].argmax(-1)], dim=1)
        _, cache = tiny_llama.run_with_cache(longer)
    acts = cache[act_name, 2][0].flatten(1).numpy()
    near = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(over_phrase, acts[list(phrase)].mean(0), **near)
    np.testing.assert_allclose(over_answer, acts[ids.shape[1]], **near)
    assert np.abs(acts[-1] - acts[-2]).max() > 1e-2


def test_a_place_that_prompts_lack_is_fitted_on_the_others(probed, facts):
    """Two subjects lack two places, all prompts but one a third; groups stay those of subjects."""

    def spans(i, one):
        who, phrase = one.spans["subject"], one.spans["phrase"]
        rare = {"rare": who} if i == 0 else {}
        return {"subject": who} | rare | ({"who": who, "phrase": phrase} if i % 12 > 1 else {})

    some = [one.replace(spans=spans(i, one)) for i, one in enumerate(facts)]
    table = probed(some, ["phrase_last", "who_last", "rare", "last_q"], layers=[0])
    rows = table[table.prompt == "seed 0"].set_index("position")
    assert rows.n_prompts.to_dict() == {"phrase_last": 20, "who_last": 20, "rare": 1, "last_q": 24}
    assert rows.n_incorrect.tolist() == [10, 10, 0, 12]
    assert rows.status["rare"] == "NA: 0 subjects with incorrect answers, fewer than 3 folds"
    assert np.isnan([rows.auc["rare"], rows.auc_shuffled["rare"]]).all()
    assert rows.auc["phrase_last"] > 0.95
    assert rows.auc["who_last"] == pytest.approx(0.5, abs=1e-12)


def test_scores_are_for_incorrect_and_pooled_auc_is_the_mann_whitney_statistic(planted):
    acts, incorrect, groups = planted
    acts[:, 0] -= 7 * incorrect  # so that the classes overlap
    scores = oof.out_of_fold(acts, incorrect, groups, 5, 0)
    assert scores[incorrect].mean() > scores[~incorrect].mean() + 0.5
    won = mannwhitneyu(scores[incorrect], scores[~incorrect]).statistic
    expected = won / (incorrect.sum() * (~incorrect).sum())
    assert 0.6 < expected < 0.95
    found = oof.auc_and_control(acts, incorrect, groups, 5, 0)["auc"]
    assert found == pytest.approx(expected, abs=1e-12)


def test_shuffled_labels_cannot_be_read(planted):
    found = [list(oof.auc_and_control(*planted, 5, seed).values()) for seed in range(8)]
    found = np.array(found)
    assert (found[:, 0] > 0.95).all()
    assert abs(found[:, 1].mean() - 0.5) < 0.08
    assert len(set(found[:, 1])) == 8


@pytest.mark.parametrize("seed", range(3))
def test_every_prompt_is_scored_once_and_no_subject_is_fitted_and_scored(planted, seed):
    _, incorrect, groups = planted
    parts = oof.split(incorrect, groups, 5, seed)
    assert len(parts) == 5
    for fit, held_out in parts:
        assert not set(groups[fit]) & set(groups[held_out])
        assert sorted([*fit, *held_out]) == list(range(120))
    assert sorted(np.concatenate([held_out for _, held_out in parts])) == list(range(120))
    assert any(
        set(one[1]) != set(other[1])
        for one, other in zip(parts, oof.split(incorrect, groups, 5, seed + 1), strict=True)
    )


def test_a_subject_learnt_by_heart_is_no_help():
    """Each subject has a direction of its own, and a label drawn for it: nothing carries over."""
    subjects = np.arange(120) % 30
    labels = (np.random.default_rng(1).random(30) < 0.5)[subjects]
    acts = np.eye(30, dtype=np.float32)[subjects] * 5
    by_heart, found = (
        oof.auc_and_control(acts, labels, groups, 5, 0)["auc"]
        for groups in (np.arange(120), subjects)
    )
    assert by_heart > 0.95
    assert found < 0.65


def test_groups_are_subjects_in_any_case_and_prompts_without_one_are_alone():
    rome, plain = kg.Prompt("Rome is", spans={"subject": "Rome"}), kg.Prompt("It is")
    small = kg.Prompt("In rome it is", spans={"subject": "rome"})
    assert oof.subject_groups([rome, plain, small, plain.replace(id="b")]).tolist() == [0, 1, 0, 2]


def test_a_class_needs_as_many_subjects_as_there_are_folds_and_a_fold_both_classes():
    incorrect = np.array([True] * 6 + [False] * 6)
    groups = np.array([0, 0, 0, 1, 1, 2, *range(3, 9)])
    assert oof.too_few(incorrect, groups, 3) is None
    assert oof.too_few(incorrect, groups, 4).startswith("3 subjects with incorrect answers")
    assert oof.too_few(~incorrect, groups, 4).startswith("3 subjects with correct answers")
    incorrect, groups = np.array([True] * 2 + [False] * 4), np.array([0, 0, 1, 1, 2, 2])
    assert oof.out_of_fold(np.ones((6, 1)), incorrect, groups, 2, 0) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"folds": 1}, "folds is 1; give a whole number of at least 2"),
        ({"seeds": 0}, "seeds is 0; give a whole number of at least 1"),
        ({"n_tokens": 0}, "n_tokens is 0; give"),
        ({"positions": ["last_qq"]}, "last_qq"),
        ({"positions": []}, "positions are"),
        ({"positions": ["first_answer"], "n_tokens": 1}, "give n_tokens=2 or more"),
        ({"layers": [4]}, "layer 4 is out of range"),
        ({"act_name": "resid_past"}, "did you mean"),
        ({"prompts": slice(0)}, "the prompt set is empty"),
        ({"prompts": slice(12)}, "every prompt was answered right, so there is nothing"),
        ({"prompts": slice(12, None)}, "every prompt was answered wrong, so there is nothing"),
    ],
)
def test_bad_input_is_refused(probed, facts, options, words):
    if "prompts" in options:
        options = {"prompts": facts[options["prompts"]]}
    with pytest.raises(kg.InputError, match=words):
        probed(**options)


def test_what_it_cannot_do_without_is_named(probed, facts, monkeypatch):
    with pytest.raises(kg.InputError, match="has no answers, so it is neither right nor wrong"):
        probed([*facts, facts[0].replace(answers=[], id="none")])
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(kg.InputError, match=r'pip install "knockgrid\[probes\]"'):
        probed()


def probe_table(aucs):
    """A table of probes from AUCs `{(position, layer): [per seed]}`; NaN is NA."""
    rows = [
        {"prompt": f"seed {seed}", "intervention": "probe", "position": position, "layer": layer}
        | {"auc": auc, "auc_shuffled": auc / 2, "status": "NA: none" if auc != auc else "ok"}
        for (position, layer), values in aucs.items()
        for seed, auc in enumerate(values)
    ]
    return build(rows, {"layer_order": [7, 0]})


def test_intervals_are_t_intervals_over_seeds():
    values = [0.6, 0.7, 0.65, 0.72, 0.61]
    table = probe_table({("-1", 7): values, ("-1", 0): [float("nan")] * 5})
    found = kg.evidence.auc_interval(table, level=0.9).set_index("layer")
    one = found.loc[7]
    for prefix, share in (("", 1), ("shuffled_", 0.5)):
        numbers = np.array(values) * share
        low, high = t.interval(0.9, 4, numbers.mean(), numbers.std(ddof=1) / 5**0.5)
        got = one[[f"{prefix}{name}" for name in ("mean", "low", "high")]].astype(float)
        np.testing.assert_allclose(got, [numbers.mean(), low, high], rtol=1e-12)
    assert (one.position, one.seeds, found.seeds[0]) == ("-1", 5, 0)
    assert found.loc[0, ["mean", "low", "high", "shuffled_mean"]].isna().all()


def test_a_single_seed_has_no_interval_and_bounds_stay_shares():
    single, wide = (
        kg.evidence.auc_interval(probe_table({("-1", 7): aucs})).iloc[0]
        for aucs in ([0.7], [0.1, 0.9])
    )
    assert single["mean"] == 0.7
    assert np.isnan([single.low, single.high]).all()
    assert (wide.low, wide.high) == (0, 1)
    for level in (0.0, 1.0, 95):
        with pytest.raises(kg.InputError, match="give a share between 0 and 1"):
            kg.evidence.auc_interval(probe_table({("-1", 7): [0.7]}), level=level)


def sweep_table(values, **metadata):
    """A table of a sweep from `{(position, layer): [js per prompt]}`."""
    rows = [
        {"prompt": str(i), "intervention": position, "position": position, "layer": layer, "js": js}
        for (position, layer), values in values.items()
        for i, js in enumerate(values)
    ]
    return build(rows, {"unit": "nats", **metadata})


AUCS = {("a", 0): [0.9, 1.0], ("a", 7): [0.2, 0.4], ("b", 0): [0.5], ("b", 7): [float("nan")]}
MOVED = {("b", 0): [0.4, 0.2], ("b", 7): [0.1], ("a", 7): [0.0, 0.3], ("a", 0): [0.03]}


def test_readable_not_used_is_the_difference_of_two_shares():
    found = kg.evidence.readable_not_used(probe_table(AUCS), sweep_table(MOVED))
    assert (list(found.index), list(found.columns)) == ([7, 0], ["a", "b"])
    expected = [[0 - 0.15 / 0.3, np.nan], [0.9 - 0.03 / 0.3, 0 - 1]]
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("cell", "words"),
    [(("a", 1), "probes lack the layers 1"), (("c", 0), "probes lack the positions c")],
)
def test_other_axes_are_refused(cell, words):
    with pytest.raises(kg.InputError, match=words):
        kg.evidence.readable_not_used(probe_table(AUCS), sweep_table({**MOVED, cell: [0.1]}))
    more = probe_table({**AUCS, cell: [0.6]})
    with pytest.raises(kg.InputError, match=words.replace("probes", "cells of the sweep")):
        kg.evidence.readable_not_used(more, sweep_table(MOVED))


@pytest.mark.parametrize(
    ("probed", "moved", "metric", "words"),
    [
        (probe_table(AUCS), sweep_table(MOVED), "rank_clean", "unknown divergence 'rank_clean'"),
        (probe_table(AUCS), sweep_table(MOVED, direction="denoising"), "js", "denoising"),
        (
            probe_table(AUCS),
            sweep_table(dict.fromkeys(MOVED, [0.0])),
            "js",
            "is 0.0, which nothing",
        ),
        (sweep_table(MOVED), sweep_table(MOVED), "js", "'auc'; give a table of probe_auc"),
    ],
)
def test_what_is_no_share_of_a_movement_is_refused(probed, moved, metric, words):
    with pytest.raises(kg.InputError, match=words):
        kg.evidence.readable_not_used(probed, moved, metric)


def test_probes_and_a_sweep_of_the_same_places_meet(probed, facts, sweep):
    places = ["subject_last", "phrase_last"]
    moves = kg.per_position(kg.patch("resid_post", "last", kg.zero()), places)
    table = sweep(facts, moves, layers=[3, 0], n_tokens=2)
    found = kg.evidence.readable_not_used(probed(positions=places), table)
    assert found.shape == (2, 2)
    assert (found["subject_last"] <= 1e-12).all()  # nothing to read there
    assert found.loc[0, "subject_last"] < -0.05  # but it is used
    assert found.loc[3, "phrase_last"] > 0.1


def test_processes_fit_what_one_fits(planted):
    acts, incorrect, groups = planted
    have = [np.arange(120), np.arange(80)]
    one, several = (
        list(oof.fits([(at, acts[at]) for at in have], incorrect, groups, 5, 2, alone))
        for alone in (True, False)
    )
    assert one == several
    assert [found["n_prompts"] for found in one] == [120, 120, 80, 80]
