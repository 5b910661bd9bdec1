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
    described = [
        {
            "name": name,
            "row": name.split(" ")[0],
            "corruption": None if name.startswith("attention") else "swap()",
            "source": None if name.startswith("attention") else "corrupted_run(swap())",
            "window": 5 if name.startswith("attention") else 1,
            "role": "contrast" if "|" in name else "treatment",
            "of": name.split(" | ")[0] if "|" in name else None,
        }
        for name in curves
    ]
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


PLANTED = {"subject": STEP, "attention": BUMP, "last": RISE}


def outcome(frame, claim):
    (line,) = frame[frame["claim"] == claim].to_dict("records")
    return line


@pytest.fixture(scope="module")
def planted():
    curves = {**PLANTED, "subject | rest": 0.5 * STEP[::-1]}
    return table_of(curves)


def test_planted_claims_hold_at_their_layers(planted):
    found = kg.evidence.claims({"plain": planted})
    ends = outcome(found, "subject: the step ends")
    assert (ends["outcome"], ends["value"], ends["confirmed"]) == ("held", "5.5", "5.5")
    assert ends["corruption"] == "swap()"
    sharp = outcome(found, "last: the step is sharp")
    assert (sharp["outcome"], sharp["value"]) == ("held", "0.8 wide")
    begins = outcome(found, "last: the step begins")
    assert (begins["outcome"], begins["value"]) == ("held", "5.5")
    peak = outcome(found, "attention: the peak")
    assert (peak["outcome"], peak["value"], peak["confirmed"]) == ("held", "5", "5")
    assert peak["window"] == "5"
    assert pd.isna(peak["corruption"])
    order = outcome(found, "subject, attention, last")
    assert (order["outcome"], order["note"]) == ("held", "in 100 % of resamples")
    more = outcome(found, "subject exceeds relation tokens")
    assert (more["outcome"], more["value"]) == ("held", "at 0–5")
    assert float(more["confirmed"]) > 0.1


def test_what_only_one_half_shows_fails(planted):
    one, other = halves(planted)
    changed = {
        "subject": np.roll(STEP, -3) * np.r_[np.ones(7), np.zeros(3)],  # ends three layers earlier
        "attention": np.roll(BUMP, 3),
        "last": np.roll(RISE, 2) * np.r_[np.zeros(8), 1, 1],
        "subject | rest": STEP * 1.5,
    }
    curves = {**PLANTED, "subject | rest": 0.5 * STEP[::-1]}
    found = kg.evidence.claims({"plain": table_of(curves, odd=(set(other["prompt"]), changed))})
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
    found = kg.evidence.claims({"x": table_of(PLANTED, odd=(set(other["prompt"]), ramp))})
    line = outcome(found, "last: the step is sharp")
    assert (line["outcome"], line["value"]) == ("failed", "0.8 wide")
    assert float(line["confirmed"].split()[0]) > 7


def test_a_wrong_order_is_not_found_and_a_turned_one_fails(planted):
    turned = {**PLANTED, "last": STEP * 1.01, "subject": RISE}
    assert outcome(kg.evidence.claims({"x": table_of(turned)}), "subject, attention, last")[
        "outcome"
    ] == ("not found")
    _, other = halves(planted)
    changed = {"last": STEP * 1.01, "subject": RISE}
    found = kg.evidence.claims({"x": table_of(PLANTED, odd=(set(other["prompt"]), changed))})
    line = outcome(found, "subject, attention, last")
    assert (line["outcome"], line["note"]) == ("failed", "in 0 % of resamples")


def test_flat_rows_make_no_claim():
    ramp = np.linspace(1, 0, LAYERS)
    flat = {**PLANTED, "subject": ramp, "last": np.ones(LAYERS), "subject | rest": ramp * 2}
    found = kg.evidence.claims({"plain": table_of(flat)})
    assert outcome(found, "last: the step begins")["outcome"] == "not found"
    assert outcome(found, "subject exceeds relation tokens")["value"] == "at no layer"
    assert outcome(found, "subject: the step is sharp")["value"] == "7.3 wide"
    assert outcome(found, "subject: the step is sharp")["outcome"] == "not found"


def test_few_relations_decide_nothing():
    curves = {**PLANTED, "subject | rest": 0.5 * STEP[::-1]}
    found = kg.evidence.claims({"plain": table_of(curves, relations=3, per=8)})
    for claim in (
        "attention: the peak",
        "subject, attention, last",
        "subject exceeds relation tokens",
    ):
        line = outcome(found, claim)
        assert line["outcome"] == "undecided", claim
        assert "3 relations" in line["note"] or "3 clusters" in line["note"]


def test_every_form_and_window_is_a_line_of_its_own(planted):
    several = {**PLANTED, "attention w1": BUMP}
    found = kg.evidence.claims({"plain": table_of(several), "chat": planted})
    peaks = found[found["claim"] == "attention: the peak"]
    assert peaks["form"].tolist() == ["plain", "plain", "chat"]
    assert len(found[found["claim"] == "subject, attention, last"]) == 3


def test_a_contrast_that_no_prompt_has_is_no_claim(planted):
    gone = planted[planted["intervention"] != "subject | rest"]
    gone.attrs = planted.attrs
    found = kg.evidence.claims({"plain": gone})
    assert not found["claim"].str.contains("exceeds").any()


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
    paired = kg.evidence.claims({"x": without(table, ["subject", "last"], alone)})
    line = outcome(paired, "subject, attention, last")
    assert line["outcome"] == "held"
    assert float(line["value"].split(" < ")[1]) > 4.8  # that of all prompts would be 3


def test_prompts_without_a_contrast_leave_the_pair(planted):
    some = without(planted, ["subject | rest"], ["r0-0", "r3-2"])
    line = outcome(kg.evidence.claims({"x": some}), "subject exceeds relation tokens")
    assert (line["outcome"], line["value"]) == ("held", "at 0–5")
    one, _ = halves(planted)
    half = without(planted, ["subject | rest"], set(one["prompt"]))
    assert not kg.evidence.claims({"x": half})["claim"].str.contains("exceeds").any()
    _, other = halves(planted)
    half = without(planted, ["subject | rest"], set(other["prompt"]))
    line = outcome(kg.evidence.claims({"x": half}), "subject exceeds relation tokens")
    assert (line["outcome"], line["note"]) == ("undecided", "no prompt has them all on this half")


def test_rows_that_no_prompt_has_are_no_claims():
    described = {**PLANTED, "last noise": RISE}
    gone = without(
        table_of(described), ["last noise"], [f"r{r}-{i}" for r in range(8) for i in range(6)]
    )
    assert (
        kg.evidence.claims({"x": gone})["claim"].str.startswith("last: the step begins").sum() == 1
    )


def test_centroids_are_layers(planted):
    sparse = planted.assign(layer=planted["layer"] * 3)
    sparse.attrs = planted.attrs
    line = outcome(kg.evidence.claims({"x": sparse}), "subject, attention, last")
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
