"""Sources side by side: a step that becomes a ramp is named, though ranks agree."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

import knockgrid as kg
from knockgrid.table.table import build, metadata_of

STEP = np.array([0, 0, 0, 0.01, 0.98, 0.99, 1.0])
RAMP = np.array([0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0])


def table_of(curves, n=4):
    """The same curve for all prompts, up to its height."""
    described = [
        {"name": name, "row": row, "corruption": f"{by}()", "source": "", "window": 1}
        for name, (row, by) in ((name, name.split()) for name in curves)
    ]
    rows = [
        {"prompt": f"{p}", "intervention": name, "layer": i, "js": value * (1 + p / 9)}
        for p in range(n)
        for name, curve in curves.items()
        for i, value in enumerate(curve)
    ]
    return build(rows, {"unit": "nats", "interventions": described})


def test_where_a_row_rises_under_each_source():
    table = table_of({"last swap": STEP, "last noise": RAMP})
    found = kg.stats.source_comparison(table).set_index("source")
    assert found.loc["swap()", "onset"] == pytest.approx(3 + 0.49 / 0.97)
    assert found.loc["noise()", "onset"] == pytest.approx(3.0)
    assert found.loc["swap()", "rise_width"] == pytest.approx(0.8 / 0.97)
    assert found.loc["noise()", "rise_width"] == pytest.approx(4.0)
    assert found["peak"].tolist() == [6, 6]
    assert found.loc["swap()", "maximum"] == pytest.approx(np.mean([1 + p / 9 for p in range(4)]))


def test_ranks_agree_while_a_step_becomes_a_ramp():
    found = kg.stats.source_comparison(table_of({"last swap": STEP, "last noise": RAMP}))
    rank = metadata_of(found)["rank"]["last"]
    assert rank == pytest.approx(spearmanr(STEP, RAMP)[0])
    assert 0.9 < rank < 1.0
    said = kg.stats.surviving_claims(found).set_index("claim")
    assert said["survives"].to_dict() == {"onset": True, "rise_width": False, "peak": True}
    assert said.loc["rise_width", "words"] == (
        "last rise_width: does not survive, 0.8 (swap()) to 4.0 (noise())"
    )
    assert said.loc["peak", "words"] == "last peak: survives, 6 under 2 sources"
    assert (
        not kg.stats.surviving_claims(found, tolerance=0.1)
        .set_index("claim")
        .loc["onset", "survives"]
    )


def test_a_source_without_a_step_is_named():
    table = table_of({"last swap": STEP, "last zero": np.ones(7)})
    said = kg.stats.surviving_claims(kg.stats.source_comparison(table)).set_index("claim")
    assert not said.loc["onset", "survives"]
    assert said.loc["onset", "words"] == "last onset: does not survive, there is none under zero()"


def test_refusals():
    with pytest.raises(kg.InputError, match="two sources or more"):
        kg.stats.source_comparison(table_of({"last swap": STEP, "subject swap": STEP}))
    found = kg.stats.source_comparison(table_of({"last swap": STEP, "last noise": RAMP}))
    with pytest.raises(kg.InputError, match="tolerance -1"):
        kg.stats.surviving_claims(found, tolerance=-1)
    with pytest.raises(kg.InputError, match="no frame of source_comparison"):
        kg.stats.surviving_claims(pd.DataFrame({"row": ["last"]}))
