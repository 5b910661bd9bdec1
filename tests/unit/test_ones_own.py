"""A measure, a source, an intervention and a figure of the user's own, from sweep to verify."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

import knockgrid as kg
from knockgrid.passes import Edit
from knockgrid.table.table import metadata_of


def hellinger(pair):
    p, q = pair.clean.p, pair.intervened.p
    return 1 - (p * q).sqrt().sum(-1)


HELLINGER = kg.Divergence("hellinger", "squared Hellinger distance", hellinger, 1.0, False)


@dataclass(frozen=True)
class Halved(kg.Source):
    """Half of what is there."""

    @property
    def label(self):
        return "halved()"

    def value(self, where):
        return where.base / 2


@dataclass(frozen=True, kw_only=True)
class Silence(kg.Intervention):
    """The MLP adds nothing at a place."""

    pos: str = "last"
    kind = "silence"

    def default_name(self):
        return "silence"

    @property
    def sites(self):
        return (("mlp_out", self.pos),)

    def edits(self, place):
        pos = place.pos(self.pos)
        value = torch.zeros(len(pos), place.run.acts["mlp_out", place.layer].shape[-1])
        return (Edit("mlp_out", place.layer, pos=pos, value=value),)

    def no_op(self, itself):
        return kg.patch("mlp_out", self.pos, itself)

    def maximal(self, n_layers, strong):
        return replace(self, window=2 * n_layers)


def rows():
    return [kg.patch("mlp_out", "last", Halved(), name="half"), Silence()]


def test_all_of_them_are_swept_stored_drawn_and_verified(tiny_llama, prompts, tmp_path):
    out, metrics = tmp_path / "run", ["js", HELLINGER]
    options = {"metrics": metrics, "layers": [0, 2], "progress": False}
    table = kg.sweep(tiny_llama, prompts, rows(), **options)
    assert table["hellinger"].between(0, 1).all()
    assert table["hellinger"].max() > 1e-4
    # for small changes both are the same quadratic form
    small = table[table["js"] < 0.05]
    assert len(small) > 3
    np.testing.assert_allclose(small["hellinger"], small["js"], rtol=0.02)

    stored = kg.sweep(tiny_llama, prompts, rows(), out=out, **options)
    assert stored["hellinger"].equals(table["hellinger"])
    again = kg.open_run(out)
    assert metadata_of(again)["measures"]["hellinger"]["label"] == "squared Hellinger distance"
    found = kg.stats.mean_interval(again, "hellinger", by="prompt")
    assert found["mean"].between(0, 1).all()

    axes = kg.layer_heatmap(again, metric="hellinger")
    words = [axes.get_ylabel(), *(a.get_ylabel() for a in axes.figure.axes)]
    assert any("squared Hellinger distance" in one and "nats" not in one for one in words)
    plt.close(axes.figure)

    other = replace(HELLINGER, formula=lambda pair: hellinger(pair) / 2)
    with pytest.raises(kg.InputError, match=r"other settings \(metrics\)"):
        kg.sweep(tiny_llama, prompts, rows(), out=out, **{**options, "metrics": ["js", other]})
    again = kg.sweep(tiny_llama, prompts, rows(), out=out, **options)
    assert again["hellinger"].equals(table["hellinger"])

    known = [HELLINGER, Halved, Silence]
    whole = kg.verify(out, model=tiny_llama, known=known)
    assert whole.ok, whole.mismatches
    for i, name in enumerate(("hellinger", "Halved", "Silence")):
        with pytest.raises(kg.InputError, match=name):
            kg.verify(out, model=tiny_llama, known=[*known[:i], *known[i + 1 :]])


def test_its_interval_stays_inside_its_bounds(prompts):
    from knockgrid.table.table import build

    facts = {"name": "mine", "label": "mine", "unit": "fraction", "lower": 0.2, "upper": 0.5}
    cells = [
        {"prompt": f"{p}", "intervention": "last", "layer": 0, "mine": 0.2 if p % 5 else 0.5}
        for p in range(30)
    ]
    for measures, inside in (({"mine": {**facts, "needs": ""}}, True), ({}, False)):
        table = build(cells, {"unit": "nats", "measures": measures})
        low = kg.stats.mean_interval(table, "mine", level=0.99999, by="prompt").low[0]
        assert (low >= 0.2) == inside, low


def test_one_that_needs_an_answer_may_have_none(tiny_llama, prompts):
    mine = kg.Divergence("mine", "mine", kg.divergences.logp_answer.formula, needs=("answer",))
    some = [prompts[0].replace(answers=()), prompts[1]]
    table = kg.sweep(tiny_llama, some, kg.knockout(), metrics=[mine], layers=[0], progress=False)
    assert table["mine"].isna().tolist() == [not one.answers for one in some]
    assert kg.grid(table, "mine").notna().all(axis=None) == any(one.answers for one in some)


@pytest.mark.parametrize(
    ("metrics", "says"),
    [
        ([replace(HELLINGER, name="layer")], "'layer'"),
        ([replace(HELLINGER, name="js")], "'js'"),
        ([HELLINGER, replace(HELLINGER, upper=2.0)], "two measures have the column 'hellinger'"),
        ([hellinger], "no measure"),
        ([], "no metrics"),
        (["jss"], "did you mean 'js'"),
    ],
)
def test_what_cannot_be_a_measure_is_refused(tiny_llama, prompts, metrics, says):
    with pytest.raises(kg.InputError, match=says):
        kg.sweep(tiny_llama, prompts[0], kg.knockout(), metrics=metrics, progress=False)
