"""The claims card: planted claims hold, planted failures fail, and too little decides nothing."""

import numpy as np
import pandas as pd
import pytest

import knockgrid as kg
from knockgrid.evidence.claims import averaged
from knockgrid.stats.halves import halves
from knockgrid.table.table import build

LAYERS = 10
STEP = np.array([1, 1, 1, 1, 1, 1, 0, 0, 0, 0.0])  # the subject row: falls between 5 and 6
RISE = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1.0])
BUMP = np.array([0, 0, 0, 0, 0, 1, 0, 0, 0, 0.0])
LABELS = {"subject | rest": "Subj. | relation tokens"}


def table_of(curves, relations=8, per=6, spread=0.1, odd=None):
    """Prompts of several relations; `odd` gives every second prompt of a relation other curves."""
    rng = np.random.default_rng(0)
    described = []
    for name in curves:
        one = {"name": name, "row": name.split(" ")[0], "role": "treatment", "of": None}
        one |= {"corruption": "swap()", "source": "corrupted_run(swap())", "window": 1}
        if name.startswith("attention"):
            one |= {"corruption": None, "source": None, "window": 5}
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
            for layer, value in enumerate(curve * scale + 0.01 * rng.random(LAYERS)):
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
        ("attention: the peak", "5", {"confirmed": "5", "window": "5"}),
        ("subject, attention, last", None, {"note": "in 100 % of resamples"}),
        ("subject exceeds relation tokens", "at 0–5", {}),
    ):
        line = outcome(found, claim)
        expected = {"outcome": "held", "value": value or line["value"], **more}
        assert {name: line[name] for name in expected} == expected
    assert pd.isna(outcome(found, "attention: the peak")["corruption"])
    assert float(outcome(found, "subject exceeds relation tokens")["confirmed"]) > 0.1


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
    early = {"attention": np.roll(BUMP, -5)}
    table = table_of(PLANTED, odd=(alone, early))
    paired = found_in(without(table, ["subject", "last"], alone))
    line = outcome(paired, "subject, attention, last")
    assert line["outcome"] == "held"
    assert float(line["value"].split(" < ")[1]) > 4.8  # that of all prompts would be 3


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


def test_centroids_are_layers(planted):
    sparse = planted.assign(layer=planted["layer"] * 3)
    sparse.attrs = planted.attrs
    line = outcome(found_in(sparse), "subject, attention, last")
    assert [round(float(one)) for one in line["value"].split(" < ")] == [8, 15, 22]


def test_an_average_over_layers_pairs_its_cells():
    rows = [
        {"prompt": "p", "intervention": "a", "layer": i, "js": js}
        for i, js in enumerate([0.1, 0.9])
    ]
    rows += [{"prompt": "p", "intervention": "b", "layer": 0, "js": 0.1}]
    missing = {"prompt": "p", "intervention": "b", "layer": 1, "js": 0.5, "status": "NA: no edge"}
    assert averaged(build([*rows, missing], {}), ["a", "b"], [0, 1], "js") is None
    whole = averaged(build([*rows, {**missing, "status": "ok"}], {}), ["a", "b"], [0, 1], "js")
    assert whole.js.tolist() == pytest.approx([0.5, 0.3])
