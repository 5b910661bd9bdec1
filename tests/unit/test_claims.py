"""The claims card: planted claims hold, planted failures fail, and too little decides nothing."""

import numpy as np
import pandas as pd
import pytest

import knockgrid as kg
from knockgrid.stats.halves import halves
from knockgrid.table.table import build

LAYERS = 10
STEP = np.array([1, 1, 1, 1, 1, 1, 0, 0, 0, 0.0])  # the subject row: falls between 5 and 6
RISE = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1.0])
BUMP = np.array([0, 0, 0, 0, 0, 0, 1, 0, 0, 0.0])
LABELS = {"subject | rest": "Subj. | relation tokens"}
PEAK = "attention: the peak"


def table_of(curves, relations=8, per=6, spread=0.1, odd=None, noise=0.01):
    """Prompts of several relations; `odd` gives every second prompt of a relation other curves."""
    rng = np.random.default_rng(0)
    described = []
    for name in curves:
        one = {"name": name, "row": name.split(" ")[0], "role": "treatment", "of": None}
        one |= {"corruption": "swap()", "source": "corrupted_run(swap())", "window": 1}
        if name.startswith("attention"):
            one |= {"corruption": None, "source": None, "window": 1}
        if "|" in name:
            one |= {"role": "contrast", "of": name.split(" | ")[0]}
        described.append(one)
    sides = [
        {"id": f"r{r}-{i}", "relation": f"r{r}", "subject": f"s{r}-{i}"}
        for r in range(relations)
        for i in range(per)
    ]
    rows = []
    for side in sides:
        scale = 0.4 * np.exp(spread * rng.normal())
        for name, curve in curves.items():
            if odd and side["id"] in odd[0]:
                curve = odd[1].get(name, curve)
            for layer, value in enumerate(curve * scale + noise * rng.random(LAYERS)):
                place = {"prompt": side["id"], "intervention": name, "layer": layer}
                rows.append({**place, "js": value})
    metadata = {"unit": "nats", "interventions": described, "prompts": sides, "labels": LABELS}
    return build(rows, {**metadata, "intervention_order": list(curves)})


def found_in(*given, **options):
    """The claims of one table."""
    table = table_of(*given, **options) if isinstance(given[0], dict) else given[0]
    return kg.evidence.claims({"plain": table})


PLANTED = {"subject": STEP, "attention": BUMP, "last": RISE}
WITH_REST = {**PLANTED, "subject | rest": 0.5 * STEP[::-1]}


def outcome(frame, claim):
    (line,) = frame[frame["claim"] == claim].to_dict("records")
    return line


@pytest.fixture(scope="module")
def planted():
    return table_of(WITH_REST)


def test_planted_claims_hold_at_their_layers(planted):
    found = found_in(planted)
    for claim, value, more in (
        ("subject: the step ends", "5.5", {"confirmed": "5.5", "corruption": "swap()"}),
        ("last: the step is sharp", "0.8 wide", {}),
        ("last: the step begins", "5.5", {}),
        ("attention: the peak", "6", {"confirmed": "6", "window": "1"}),
        ("subject, attention, last", None, {"note": "in 100 % of resamples"}),
        ("subject exceeds relation tokens", "at 0–5", {"confirmed": "at 0–5"}),
    ):
        line = outcome(found, claim)
        expected = {"outcome": "held", "value": value or line["value"], **more}
        assert {name: line[name] for name in expected} == expected
    assert pd.isna(outcome(found, "attention: the peak")["corruption"])


def test_what_only_one_half_shows_fails(planted):
    _, other = halves(planted)
    changed = {
        "subject": np.roll(STEP, -3) * np.r_[np.ones(7), np.zeros(3)],  # ends three layers earlier
        "attention": np.roll(BUMP, 3),
        "last": np.roll(RISE, 2) * np.r_[np.zeros(8), 1, 1],
        "subject | rest": STEP * 1.5,
    }
    found = found_in(WITH_REST, odd=(set(other["prompt"]), changed))
    for claim in (
        "subject: the step ends",
        "attention: the peak",
        "last: the step begins",
        "subject exceeds relation tokens",
    ):
        assert outcome(found, claim)["outcome"] == "failed", claim
    assert outcome(found, "subject: the step ends")["confirmed"] == "2.5"


def test_a_step_that_is_a_ramp_on_the_other_half_is_not_sharp(planted):
    _, other = halves(planted)
    ramp = {"last": np.linspace(0, 1, LAYERS)}
    found = found_in(PLANTED, odd=(set(other["prompt"]), ramp))
    line = outcome(found, "last: the step is sharp")
    assert (line["outcome"], line["value"]) == ("failed", "0.8 wide")
    assert float(line["confirmed"].split()[0]) > 7


def test_a_wrong_order_is_not_found_and_a_turned_one_fails(planted):
    changed = {"last": STEP * 1.01, "subject": RISE}
    line = outcome(found_in({**PLANTED, **changed}), "subject, attention, last")
    assert line["outcome"] == "not found"
    _, other = halves(planted)
    found = found_in(PLANTED, odd=(set(other["prompt"]), changed))
    line = outcome(found, "subject, attention, last")
    assert (line["outcome"], line["note"]) == ("failed", "in 0 % of resamples")


def test_flat_rows_make_no_claim():
    ramp = np.linspace(1, 0, LAYERS)
    flat = {**PLANTED, "subject": ramp, "last": np.ones(LAYERS), "subject | rest": ramp * 2}
    found = found_in(flat)
    assert outcome(found, "last: the step begins")["outcome"] == "not found"
    assert outcome(found, "subject exceeds relation tokens")["value"] == "at no layer"
    assert outcome(found, "subject: the step is sharp")["value"] == "7.3 wide"
    assert outcome(found, "subject: the step is sharp")["outcome"] == "not found"


def test_few_relations_decide_nothing():
    found = found_in(WITH_REST, relations=3, per=8)
    exceeds = "subject exceeds relation tokens"
    for claim in ("attention: the peak", "subject, attention, last", exceeds):
        line = outcome(found, claim)
        assert line["outcome"] == "undecided", claim
        assert "3 relations" in line["note"] or "3 clusters" in line["note"]


def test_every_form_and_window_is_a_line_of_its_own(planted):
    several = {**PLANTED, "attention w1": BUMP}
    found = kg.evidence.claims({"plain": table_of(several), "chat": planted})
    peaks = found[found["claim"] == "attention: the peak"]
    assert peaks["form"].tolist() == ["plain", "plain", "chat"]
    assert len(found[found["claim"] == "subject, attention, last"]) == 3


def test_refusals(planted):
    with pytest.raises(kg.InputError, match="no tables given"):
        kg.evidence.claims({})
    rows = [{"prompt": p, "intervention": "mlp", "layer": 0, "js": 0.1} for p in "ab"]
    described = [{"name": "mlp", "source": "zero()", "window": 1}]
    with pytest.raises(kg.InputError, match="no rows named subject, attention or last"):
        kg.evidence.claims({"plain": build(rows, {"interventions": described})})


def test_the_card_shows_every_claim_once(planted):
    found = kg.evidence.claims({"plain": planted, "chat": planted})
    figure = kg.figures.claims_card(found)
    (ax,) = figure.axes
    assert len(ax.patches) == len(found)
    rows = [text.get_text() for text in ax.get_yticklabels()]
    assert rows[:2] == ["subject: the step ends · swap()", "last: the step begins · swap()"]
    assert len(rows) == len(found) / 2
    said = {text.get_text() for text in ax.texts}
    assert "✓ 5.5 → 5.5" in said
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"✓ held"}
    assert figure._suptitle.get_text() == f"{len(found)} held"
    assert [text.get_text() for text in ax.get_xticklabels()] == ["plain", "chat"]
    wrong = found.assign(form=["plain", *["chat"] * (len(found) - 1)])
    places = {tuple(patch.get_xy()) for patch in kg.figures.claims_card(wrong).axes[0].patches}
    assert {(0.0, 0.0), (1.0, 0.0)} <= {(float(x), float(y)) for x, y in places}


def test_the_card_refuses_other_frames():
    line = {"claim": "c", "form": "f", "corruption": None, "window": None, "value": ""}
    frame = pd.DataFrame([{**line, "confirmed": "", "outcome": "maybe"}])
    with pytest.raises(kg.InputError, match="outcome 'maybe' is none of"):
        kg.figures.claims_card(frame)
    with pytest.raises(kg.InputError, match="no column 'form'"):
        kg.figures.claims_card(frame.drop(columns="form"))
    with pytest.raises(kg.InputError, match="holds no claims"):
        kg.figures.claims_card(frame.iloc[:0])


def without(table, names, prompts):
    """The table without the rows of some interventions on some prompts."""
    gone = table["intervention"].isin(names) & table["prompt"].isin(prompts)
    kept = table[~gone]
    kept.attrs = table.attrs
    return kept


def test_an_order_is_one_of_the_same_prompts():
    """Prompts without a partner have no patch rows; their attention, which comes early, is out."""
    alone = {f"r{r}-{i}" for r in range(8) for i in range(3)}
    early = {"attention": np.roll(BUMP, -6)}
    table = table_of(PLANTED, odd=(alone, early))
    paired = found_in(without(table, ["subject", "last"], alone))
    line = outcome(paired, "subject, attention, last")
    assert line["outcome"] == "held"
    assert float(line["value"].split(", ")[1]) > 5.8  # that of all prompts would be 3


def test_prompts_without_a_contrast_leave_the_pair(planted):
    claim, rest = "subject exceeds relation tokens", ["subject | rest"]
    line = outcome(found_in(without(planted, rest, ["r0-0", "r3-2"])), claim)
    assert (line["outcome"], line["value"]) == ("held", "at 0–5")
    one, other = halves(planted)
    for lacking in (one["prompt"], planted["prompt"]):  # no claim, where the first half has none
        found = found_in(without(planted, rest, lacking))
        assert not found["claim"].str.contains("exceeds").any()
    line = outcome(found_in(without(planted, rest, other["prompt"])), claim)
    assert (line["outcome"], line["note"]) == ("undecided", "no prompt has them all on this half")


def test_rows_that_no_prompt_has_are_no_claims():
    table = table_of({**PLANTED, "last noise": RISE})
    found = found_in(without(table, ["last noise"], table["prompt"]))["claim"]
    assert found.str.startswith("last: the step begins").sum() == 1


def test_places_are_layers(planted):
    sparse = planted.assign(layer=planted["layer"] * 3)
    sparse.attrs = planted.attrs
    line = outcome(found_in(sparse), "subject, attention, last")
    assert (line["outcome"], line["value"]) == ("held", "16.5, 18.0, 16.5")


LEAK = {name: 1e-9 * curve for name, curve in PLANTED.items()}


def test_small_rows_have_no_shape():
    """Leaks of 1e-9 nats beside an effect; alone, they are small beside what JS can reach."""
    some = table_of({**PLANTED, "attention": LEAK["attention"]}, noise=0.0)
    none = table_of(LEAK, noise=0.0)
    for claim in ("attention: the peak", "subject, attention, last"):
        line = outcome(found_in(some), claim)
        assert (line["outcome"], line["value"]) == ("too small to say", "")
        assert line["note"].startswith("attention: ")
    assert set(found_in(none)["outcome"]) == {"too small to say"}
    assert outcome(found_in(some), "subject: the step ends")["outcome"] == "held"


def test_the_share_is_what_a_row_must_reach():
    quarter = table_of({**PLANTED, "attention": 0.25 * BUMP})
    for share, expected in ((0.2, "held"), (0.3, "too small to say")):
        found = kg.evidence.claims({"plain": quarter}, share=share)
        assert outcome(found, "attention: the peak")["outcome"] == expected
    for share in (0, 1, -1, True, float("nan")):
        with pytest.raises(kg.InputError, match="is not between 0 and 1"):
            kg.evidence.claims({"plain": quarter}, share=share)


def test_two_rises_are_no_step():
    """Two layers that follow each other have a width of 1.6."""
    twice = {**PLANTED, "last": np.array([0, 0, 0, 0, 0, 0.5, 1, 1, 1, 1.0])}
    line = outcome(found_in(twice), "last: the step is sharp")
    assert (line["outcome"], line["value"]) == ("not found", "1.6 wide in 2 rises, at 5–6")


def test_a_peak_of_several_layers_says_which(planted):
    """Half of the relations have it one layer later than the others."""
    late = {f"r{r}-{i}" for r in range(0, 20, 2) for i in range(6)}
    odd = (late, {"attention": np.roll(BUMP, 1)})
    line = outcome(found_in(PLANTED, odd=odd, relations=20), PEAK)
    assert (line["outcome"], line["value"], line["confirmed"]) == ("held", "6 or 7", "6 or 7")


def test_a_peak_that_the_other_half_spreads_is_undecided():
    _, other = halves(table_of(PLANTED, relations=20))
    late = {prompt for prompt in other["prompt"] if int(prompt[1:].split("-")[0]) % 2}
    odd = (late, {"attention": np.roll(BUMP, 1)})
    line = outcome(found_in(PLANTED, odd=odd, relations=20), PEAK)
    assert (line["outcome"], line["value"], line["confirmed"]) == ("undecided", "6", "6 or 7")


def test_layers_of_a_contrast_are_confirmed_one_by_one(planted):
    """The other half has no difference at one of the layers, though the mean of both is large."""
    _, other = halves(planted)
    wide = {"subject": np.r_[np.zeros(4), 1, 1, np.zeros(4)], "subject | rest": np.zeros(LAYERS)}
    one = {"subject": np.r_[np.zeros(5), 1, np.zeros(4)]}
    claim = "subject exceeds relation tokens"
    line = outcome(found_in({**PLANTED, **wide}, odd=(set(other["prompt"]), one)), claim)
    assert (line["value"], line["confirmed"]) == ("at 4–5", "at 5")
    assert line["outcome"] != "held"


def test_differences_that_are_significant_and_small_are_named_so(planted):
    small = {**PLANTED, "subject": STEP + 0.03 * (STEP == 0), "subject | rest": np.zeros(LAYERS)}
    line = outcome(found_in(small), "subject exceeds relation tokens")
    assert (line["outcome"], line["value"]) == ("held", "at 0–5")
    assert line["note"] == "significant but small at 6–9"


@pytest.mark.parametrize(
    ("ways", "expected"),
    [({"direct": 0.0, "between": 1.0, "both": 1.0}, "held"), ({}, "undecided")],
)
def test_ways_through_tokens_between_are_named(ways, expected):
    curves = {**PLANTED, "attention": np.zeros(LAYERS)}
    curves |= {name: share * STEP for name, share in ways.items()}
    found = found_in(curves)
    assert outcome(found, "through tokens between")["outcome"] == expected
    assert outcome(found, "subject, attention, last")["outcome"] == "too small to say"
    assert not found_in(PLANTED)["claim"].eq("through tokens between").any()


def test_in_the_last_layer_too():
    last = {"subject": np.r_[np.ones(9), 0], "attention": np.r_[np.zeros(9), 1]}
    found = found_in({**last, "last": np.r_[np.zeros(9), 1]})
    assert outcome(found, "subject, attention, last")["outcome"] == "held"
